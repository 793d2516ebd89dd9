import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from learnchain.learning.sources.files import ImportOptions, SourceFile
from learnchain.learning.sources.speech import (
    BANDS,
    FRAMES,
    RATES,
    SPECTROGRAM_SHAPE,
    _logarithm_eighths,
    import_speech_commands,
    import_spoken_digits,
    read_wav,
    spectrogram,
    tables,
)
from learnchain.learning.sources.synthetic import write_wav
from learnchain.rejection import Rejected, RejectionReason

DIGITS_PLACE = Path(os.environ.get("LEARNCHAIN_SPOKEN_DIGITS", "/nowhere"))


def reason_of(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def recording(samples, rate=8_000, channels=1, width=2):
    target = io.BytesIO()
    with wave.open(target, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(width)
        written.setframerate(rate)
        written.writeframes(samples)
    return target.getvalue()


def sine(frequency, rate, seconds=1.0, loud=8_000):
    time = np.arange(int(rate * seconds)) / rate
    return np.rint(loud * np.sin(2 * np.pi * frequency * time)).astype("<i2")


@pytest.mark.parametrize("rate", RATES)
def test_rounding_the_tables_is_safe_on_any_machine(rate):
    """No entry lies near a half, so a last bit of a cosine cannot change an integer."""
    size = rate * 32 // 1000
    angles = 2 * np.pi * (np.outer(np.arange(size), np.arange(size // 2 + 1)) % size) / size
    for exact in ((1 << 14) * np.cos(angles), (1 << 14) * np.sin(angles)):
        assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6
    assert np.abs(tables(rate).transform).max() <= 1 << 14
    assert tables(rate).bands.sum(1).min() > 0


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_lights_its_band_and_nothing_overflows(rate):
    def loudest(frequency):
        return int(spectrogram(sine(frequency, rate), rate)[0].astype(int).sum(1).argmax())

    assert spectrogram(sine(500, rate), rate).shape == SPECTROGRAM_SHAPE == (1, BANDS, FRAMES)
    assert loudest(300) < loudest(800) < loudest(2_000) < loudest(3_500)
    loud = np.where(np.arange(rate) % 8 < 4, 32_767, -32_768).astype("<i2")
    assert spectrogram(loud, rate).max() <= 255
    assert spectrogram(np.zeros(rate, np.int16), rate).max() == 0


def test_the_spectrogram_is_the_same_in_any_order_of_sums():
    samples = np.random.default_rng(3).integers(-32_768, 32_768, 8_000).astype(np.int16)
    table = tables(8_000)
    frames = np.stack([samples[128 * index : 128 * index + 256].astype(np.int64) for index in range(60)])
    spectrum = (frames * table.window >> 12) @ table.transform.astype(np.int64) >> 14
    power = spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2
    expected = np.clip(_logarithm_eighths(power @ table.bands.T >> 8) - 64, 0, 255).T
    assert np.array_equal(spectrogram(samples, 8_000)[0, :, :60], expected)


def test_logarithms_are_floored_eighths():
    values = np.array([0, 1, 2, 1024, 1116, 1117, 1 << 52])
    assert _logarithm_eighths(values).tolist() == [0, 0, 8, 80, 80, 81, 416]
    powers = 2 ** np.arange(0, 50)
    assert np.array_equal(_logarithm_eighths(powers), 8 * np.arange(0, 50))


def test_short_and_long_recordings_become_one_second():
    short, long = sine(440, 8_000, 0.3), sine(440, 8_000, 3.0)
    assert spectrogram(short, 8_000).shape == spectrogram(long, 8_000).shape == SPECTROGRAM_SHAPE
    assert spectrogram(short, 8_000)[0, :, 30:].max() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        recording(b""),
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        recording(b"\0\0" * 10, rate=11_025),
        recording(b"\0\0" * 10, channels=2),
        recording(b"\0" * 10, width=1),
        recording(sine(440, 8_000).tobytes())[:-100],
    ],
)
def test_what_is_no_recording_of_ours_is_malformed(data):
    assert reason_of(read_wav, SourceFile("x.wav", data)) is RejectionReason.MALFORMED


def test_an_endless_recording_is_too_large():
    file = SourceFile("x.wav", recording(b"\0\0" * (8_000 * 60 + 1)))
    assert reason_of(read_wav, file) is RejectionReason.TOO_LARGE


def test_spoken_digits_split_as_published(tmp_path):
    for name in ("3_ann_0", "3_ann_4", "7_bob_5", "7_bob_12"):
        write_wav(tmp_path / f"{name}.wav", sine(440, 8_000, 0.2))
    found = import_spoken_digits(tmp_path, ImportOptions())
    assert found.test is not None
    assert (found.training.labels.tolist(), found.test.labels.tolist()) == ([7, 7], [3, 3])
    assert "CC BY-SA 4.0" in found.licence


def test_speech_commands_follow_their_list(tmp_path):
    for word in ("yes", "no", "_background_noise_"):
        (tmp_path / word).mkdir()
        for index in range(2):
            write_wav(tmp_path / word / f"{index}_nohash_0.wav", sine(440, 16_000, 0.2), 16_000)
    (tmp_path / "testing_list.txt").write_text("yes/1_nohash_0.wav\n")
    found = import_speech_commands(tmp_path, ImportOptions())
    assert found.class_names == ("no", "yes")
    assert found.test is not None
    assert (found.training.labels.tolist(), found.test.labels.tolist()) == ([0, 0, 1], [1])
    (tmp_path / "testing_list.txt").write_bytes(b"\xff\xfe")
    assert reason_of(import_speech_commands, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


@pytest.mark.slow
@pytest.mark.skipif(not DIGITS_PLACE.exists(), reason="set LEARNCHAIN_SPOKEN_DIGITS to the folder or archive")
def test_the_free_spoken_digits_are_three_thousand():
    found = import_spoken_digits(DIGITS_PLACE, ImportOptions())
    assert found.test is not None
    assert (len(found.training), len(found.test)) == (2_700, 300)
    assert np.bincount(found.test.labels).tolist() == [30] * 10
