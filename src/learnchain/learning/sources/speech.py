"""Turn spoken words into log-mel spectrograms, in whole numbers: the same bytes on any machine.

A frame of n samples is multiplied by a Hann window and by the real and imaginary parts of a Fourier transform, both
rounded to integers; every sum stays below $2^{53}$ and so is exact in float64 in any order. Power is summed over mel
bands, and its binary logarithm is read from a table in eighths: a byte covers 32 octaves, 96 decibels.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import (
    ImportedData,
    ImportOptions,
    SourceFile,
    digests,
    malformed_error,
    read_files,
    stack_rows,
    stack_rows_or_none,
)
from learnchain.rejection import Rejected, RejectionReason

BANDS, FRAMES = 32, 64
SPECTROGRAM_SHAPE = (1, BANDS, FRAMES)
RATES = (8_000, 16_000)
MAXIMUM_SECONDS = 60

FLOOR_EIGHTHS = 64
"""Power below 2**8 counts as silence."""

_DIGITS = re.compile(r"(^|/)(\d)_([A-Za-z]+)_(\d{1,4})\.wav$")
_TEST_LIST, _VALIDATION_LIST = "testing_list.txt", "validation_list.txt"
_MAXIMUM_LIST_BYTES = 1 << 24
_PCM = 1


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Hold the integer tables for one sampling rate; `check_tables` of the tests shows that rounding is safe."""

    window: Array
    transform: Array
    bands: Array
    step: int


@lru_cache(maxsize=4)
def tables(rate: int) -> Tables:
    """Return window (12 bits), transform (14 bits) and mel bands (8 bits) for a frame of 32 milliseconds."""
    size = rate * 32 // 1000
    places = np.arange(size)
    window = np.rint((1 << 12) * (0.5 - 0.5 * np.cos(2 * np.pi * places / size))).astype(np.int64)
    angles = 2 * np.pi * (np.outer(places, np.arange(size // 2 + 1)) % size) / size
    transform = np.rint((1 << 14) * np.concatenate([np.cos(angles), np.sin(angles)], axis=1))
    edges = 700 * (10 ** (np.linspace(_mel(60.0), _mel(rate / 2), BANDS + 2) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * rate / size
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((frequencies - left) / (middle - left), (right - frequencies) / (right - middle))
    bands = np.rint((1 << 8) * np.maximum(triangles, 0)).astype(np.int64)
    # A band narrower than a bin still hears its nearest bin.
    nearest = np.abs(frequencies[None] - middle).argmin(1)
    bands[np.arange(BANDS), nearest] = np.maximum(bands[np.arange(BANDS), nearest], 1)
    return Tables(window, transform, bands, size // 2)


def spectrogram(samples: Array, rate: int) -> Array:
    """Return the log-mel spectrogram of the first second of 16-bit samples as bytes, 32 bands by 64 frames."""
    table = tables(rate)
    size, length = len(table.window), (FRAMES + 1) * table.step
    padded = np.zeros(length, np.int64)
    padded[: min(length, len(samples))] = samples[:length]
    starts = table.step * np.arange(FRAMES)
    frames = padded[starts[:, None] + np.arange(size)] * table.window >> 12
    # |frame| < 2**15, |transform| <= 2**14, at most 512 terms: the sums are below 2**38.
    spectrum = (frames.astype(np.float64) @ table.transform).astype(np.int64) >> 14
    bins = size // 2 + 1
    power = spectrum[:, :bins] ** 2 + spectrum[:, bins:] ** 2
    # Below 2**49 for power and 2**9 for a band's weights, which sum to less than 2**13 at most.
    energy = power @ table.bands.T >> 8
    return np.clip(_logarithm_eighths(energy) - FLOOR_EIGHTHS, 0, 255).astype(np.uint8).T[np.newaxis]


def _logarithm_eighths(values: Array) -> Array:
    """Return eight times the binary logarithm, floored: exponent and a table over the next three bits' bounds."""
    _, exponents = np.frexp(np.minimum(values, (1 << 53) - 1).astype(np.float64))
    exponents = np.maximum(exponents.astype(np.int64) - 1, 0)
    scaled = (np.maximum(values, 1) << 10) >> exponents
    bounds = np.array([1117, 1218, 1328, 1449, 1580, 1723, 1879])
    return 8 * exponents + np.searchsorted(bounds, scaled, side="right")


def _mel(frequency: float) -> float:
    return float(2595 * np.log10(1 + frequency / 700))


def read_wav(file: SourceFile) -> tuple[Array, int]:
    """Return samples and rate of a 16-bit mono recording of 8 or 16 kHz; anything else is refused.

    The reader of the standard library leaves its own errors on broken files, so the two chunks are found here.
    """
    chunks = dict(_chunks(file))
    head, data = chunks.get(b"fmt ", b""), chunks.get(b"data", b"")
    if len(head) < 16 or not data or len(data) % 2:
        raise malformed_error(f"{file.name} is no recording: its format or its samples are missing")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head)
    if code != _PCM or channels != 1 or bits != 16 or rate not in RATES:
        raise malformed_error(f"{file.name} has {channels} channels of {bits} bits at {rate} Hz, coded as {code}")
    if len(data) // 2 > MAXIMUM_SECONDS * rate:
        raise Rejected(RejectionReason.TOO_LARGE, f"{file.name} has {len(data) // 2} samples")
    return np.frombuffer(data, "<i2"), rate


def _chunks(file: SourceFile) -> Iterator[tuple[bytes, bytes]]:
    """Yield the named chunks of a RIFF file; one that reaches beyond the file's end is refused."""
    data = file.data
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise malformed_error(f"{file.name} is no RIFF WAVE file")
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data):
            raise malformed_error(f"a chunk of {file.name} is cut short")
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def import_spoken_digits(path: Path, options: ImportOptions) -> ImportedData:
    """Return the Free Spoken Digit Dataset: `{digit}_{speaker}_{i}.wav`, the official test set is i < 5."""
    files = read_files(path, lambda name: _DIGITS.search(name) is not None, options.progress)
    rows: dict[bool, list[tuple[Array, Array | int]]] = {True: [], False: []}
    for file in files:
        found = _DIGITS.search(file.name)
        if found is not None:
            rows[int(found[4]) < 5].append((spectrogram(*read_wav(file)), int(found[2])))
    licence = "CC BY-SA 4.0 if these are the recordings of the Free Spoken Digit Dataset"
    names = tuple("0123456789")
    return ImportedData(stack_rows(rows[False]), stack_rows_or_none(rows[True]), names, digests(path, files), licence)


def import_speech_commands(path: Path, options: ImportOptions) -> ImportedData:
    """Return recordings in the layout of Speech Commands: a folder a word, `testing_list.txt` names the test set."""
    lists = (_TEST_LIST, _VALIDATION_LIST)
    files = read_files(path, lambda name: name.endswith(".wav") or name.rpartition("/")[2] in lists, options.progress)
    tested: set[str] = set()
    recordings: list[tuple[str, str, SourceFile]] = []
    for file in files:
        if file.stem == _TEST_LIST:
            tested = _read_test_list(file)
        word, _, _ = file.name.rpartition("/")
        word = word.rpartition("/")[2]
        if file.stem.endswith(".wav") and word and not word.startswith("_"):
            recordings.append((word, f"{word}/{file.stem}", file))
    names = tuple(sorted({word for word, _, _ in recordings}))
    if not 2 <= len(names) <= 256:
        raise malformed_error(f"{path} has {len(names)} folders of words; a classifier needs 2 to 256")
    rows: dict[bool, list[tuple[Array, Array | int]]] = {True: [], False: []}
    for word, place, file in recordings:
        rows[place in tested].append((spectrogram(*read_wav(file)), names.index(word)))
    return ImportedData(stack_rows(rows[False]), stack_rows_or_none(rows[True]), names, digests(path, files))


def _read_test_list(file: SourceFile) -> set[str]:
    if len(file.data) > _MAXIMUM_LIST_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"{file.name} has {len(file.data)} bytes")
    try:
        return {line.strip() for line in file.data.decode().splitlines() if line.strip()}
    except UnicodeDecodeError as error:
        raise malformed_error(f"{file.name} is no list of names") from error
