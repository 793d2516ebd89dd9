"""Make data sets up, in the layouts of real ones: to try the program and its loaders, never to compare with a paper.

Whatever is made here is marked `synthetic` in its manifest, in the task and wherever it is shown.
"""

import struct
import wave
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from learnchain.encoding.cryptography import shake256
from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.speech import FRAMES, tables
from learnchain.learning.sources.volumes import HEART_LABELS

Generator = np.random.Generator
_RATE = 8_000
HEART_CLASSES = 8


def generator(kind: str, seed: int) -> Generator:
    """Return the random source of a kind and a seed."""
    key = int.from_bytes(shake256(f"synthetic-{kind}", seed.to_bytes(8, "big", signed=True), 16), "big")
    return np.random.Generator(np.random.PCG64(key))


def glyph(random: Generator, label: int, side: int = 28) -> Array:
    """Return a grey picture of one of ten strokes: an angle and a curvature for each class, moved and blurred."""
    angle, bend = np.pi * (label % 5) / 5, 0.0 if label < 5 else 0.9
    centre = side / 2 + random.uniform(-2, 2, 2)
    along = np.linspace(-0.36, 0.36, 48) * side
    across = bend * (along**2 / side - 0.04 * side) * 2
    turned = angle + random.normal(0, 0.08)
    rows = centre[0] + along * np.sin(turned) + across * np.cos(turned)
    columns = centre[1] + along * np.cos(turned) - across * np.sin(turned)
    grid = np.arange(side)
    distance = (grid[:, None, None] - rows) ** 2 + (grid[None, :, None] - columns) ** 2
    ink = np.exp(-distance.min(2) / 2.2) * random.uniform(0.75, 1.0) + random.normal(0, 0.03, (side, side))
    return (np.clip(ink, 0, 1) * 255).astype(np.uint8)


def glands(random: Generator, height: int, width: int) -> tuple[Array, Array]:
    """Return a coloured picture (3, height, width) of dark ellipses on tissue, and the mask that numbers them."""
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for number in range(1, int(random.integers(2, 5)) + 1):
        centre = random.uniform(0.15, 0.85, 2) * (height, width)
        radii = random.uniform(0.12, 0.28, 2) * min(height, width)
        turn = random.uniform(0, np.pi)
        down, right = rows - centre[0], columns - centre[1]
        first, second = down * np.cos(turn) + right * np.sin(turn), right * np.cos(turn) - down * np.sin(turn)
        mask[(first / radii[0]) ** 2 + (second / radii[1]) ** 2 < 1] = number
    tissue, gland = np.array([200, 150, 190]), np.array([120, 60, 140])
    picture = np.where((mask > 0)[None], gland[:, None, None], tissue[:, None, None])
    noisy = picture + random.normal(0, 18, (3, height, width))
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def heart(random: Generator, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Return a volume of grey values and the classes 0 to 7 of seven balls at roughly fixed places."""
    grid = np.indices(shape).astype(float) / np.array(shape)[:, None, None, None]
    centres = 0.5 + 0.27 * np.array(
        [(-1, -1, -1), (-1, 1, -1), (1, -1, -1), (1, 1, -1), (0, 0, 0), (-1, 0, 1), (1, 0, 1)], dtype=float
    )
    classes = np.zeros(shape, np.uint8)
    for number, centre in enumerate(centres, 1):
        place = centre + random.normal(0, 0.03, 3)
        distance = ((grid - place[:, None, None, None]) ** 2).sum(0)
        classes[distance < random.uniform(0.15, 0.2) ** 2] = number
    grey = 40 + 28 * classes.astype(float) + random.normal(0, 8, shape)
    return np.clip(grey, 0, 400).astype(np.int16), classes


def tone(random: Generator, label: int) -> Array:
    """Return one second of a made-up word: two rising or falling tones whose pitches tell the class."""
    count = tables(_RATE).step * (FRAMES - 12)
    time = np.arange(count) / _RATE
    low, high = 250 + 120 * label, 900 + 200 * ((label * 3) % 10)
    drift = 1 + 0.1 * (1 if label % 2 else -1) * time
    sound = np.sin(2 * np.pi * low * drift * time) + 0.6 * np.sin(2 * np.pi * high * time)
    envelope = np.clip(np.minimum(time, time[-1] - time) * 20, 0, 1)
    loud = 7_000 * random.uniform(0.5, 1.0) * envelope * sound + random.normal(0, 150, count)
    return np.clip(np.rint(loud), -32_768, 32_767).astype("<i2")


def glas_synthetic(rows: int = 200, height: int = 32, width: int = 48, seed: int = 1) -> DataSet:
    """Return made-up pictures with masks, as the importer of GlaS would give them."""
    random = generator("glas", seed)
    made = [glands(random, height, width) for _ in range(rows)]
    return DataSet(np.stack([each for each, _ in made]), np.stack([(mask > 0).astype(np.uint8) for _, mask in made]))


def mmwhs_synthetic(rows: int = 60, shape: tuple[int, int, int] = (16, 16, 16), seed: int = 1) -> DataSet:
    """Return made-up volumes with labels, as the importer of MM-WHS would give them."""
    random = generator("mmwhs", seed)
    made = [heart(random, shape) for _ in range(rows)]
    grey = np.stack([np.clip(voxels // 2, 0, 255).astype(np.uint8) for voxels, _ in made])[:, np.newaxis]
    return DataSet(grey, np.stack([classes for _, classes in made]))


def _write_idx(directory: Path, rows: int, random: Generator) -> None:
    for part, count in (("train", rows), ("t10k", max(10, rows // 5))):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.stack([glyph(random, int(label)) for label in labels])
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (directory / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (directory / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())


def _write_cifar10(directory: Path, rows: int, random: Generator) -> None:
    for name, count in (("data_batch_1", rows), ("test_batch", max(10, rows // 5))):
        written = bytearray()
        for index in range(count):
            grey = glyph(random, index % 10, 32)
            tint = random.integers(60, 256, 3)
            written += bytes([index % 10]) + (grey[None] * (tint[:, None, None] / 255)).astype(np.uint8).tobytes()
        (directory / f"{name}.bin").write_bytes(bytes(written))


def _write_image_classes(directory: Path, rows: int, random: Generator) -> None:
    for part, count in (("train", rows), ("test", max(10, rows // 5))):
        for index in range(count):
            folder = directory / part / f"stroke-{index % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            write_bmp(folder / f"{index:05d}.bmp", np.repeat(glyph(random, index % 10, 32)[None], 3, 0))


def _write_spoken_digits(directory: Path, rows: int, random: Generator) -> None:
    folder = directory / "recordings"
    folder.mkdir(exist_ok=True)
    for index in range(rows):
        turn, speaker = divmod(index // 10, 5)
        # The first of five speakers says each digit in the test set: i < 5 there, above it elsewhere.
        number = turn % 5 if speaker == 0 else 5 + turn
        name = chr(ord("a") + speaker) * (1 + turn // 5)
        write_wav(folder / f"{index % 10}_synthetic{name}_{number}.wav", tone(random, index % 10))


def _write_speech_commands(directory: Path, rows: int, random: Generator) -> None:
    words = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
    tested: list[str] = []
    for index in range(rows):
        place = f"{words[index % 10]}/{index:08x}_nohash_0.wav"
        (directory / place).parent.mkdir(exist_ok=True)
        write_wav(directory / place, tone(random, index % 10))
        if index // 10 % 5 == 0:
            tested.append(place)
    (directory / "testing_list.txt").write_text("\n".join(tested) + "\n")


def _write_glas(directory: Path, rows: int, random: Generator) -> None:
    for part, count in (("train", rows), ("testA", max(2, rows // 4))):
        for number in range(1, count + 1):
            image, mask = glands(random, 64, 96)
            write_bmp(directory / f"{part}_{number}.bmp", image)
            write_bmp(directory / f"{part}_{number}_anno.bmp", np.repeat(mask[None], 3, 0))


def _write_mmwhs(directory: Path, rows: int, random: Generator) -> None:
    greys = {number: grey for grey, number in HEART_LABELS.items() if grey != 421}
    folder = directory / "ct_train"
    folder.mkdir(exist_ok=True)
    for number in range(rows):
        voxels, classes = heart(random, (24, 32, 32))
        marked = np.vectorize(greys.__getitem__, otypes=[np.int16])(classes)
        write_nifti(folder / f"ct_train_{1001 + number}_image.nii", voxels)
        write_nifti(folder / f"ct_train_{1001 + number}_label.nii", marked)


def write_bmp(path: Path, picture: Array) -> None:
    """Write a picture (3, height, width) as an uncompressed BMP."""
    _, height, width = picture.shape
    row_bytes = (3 * width + 3) // 4 * 4
    rows = np.zeros((height, row_bytes), np.uint8)
    rows[:, : 3 * width] = picture[::-1, ::-1].transpose(1, 2, 0).reshape(height, 3 * width)
    head = struct.pack("<2sIHHI", b"BM", 54 + rows.nbytes, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, rows.nbytes, 2835, 2835, 0, 0)
    path.write_bytes(head + info + rows.tobytes())


def write_wav(path: Path, samples: Array, rate: int = _RATE) -> None:
    """Write a 16-bit mono recording."""
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(samples.astype("<i2").tobytes())


def write_nifti(path: Path, voxels: Array) -> None:
    """Write a volume (z, y, x) of 16-bit numbers as a single-file NIfTI-1."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *voxels.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<4f", head, 76, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    head[344:348] = b"n+1\0"
    path.write_bytes(bytes(head) + voxels.astype("<i2").tobytes())


WRITERS: Mapping[str, Callable[[Path, int, Generator], None]] = {
    "idx": _write_idx,
    "cifar10": _write_cifar10,
    "image-classes": _write_image_classes,
    "spoken-digits": _write_spoken_digits,
    "speech-commands": _write_speech_commands,
    "glas": _write_glas,
    "mmwhs": _write_mmwhs,
}
"""Kinds whose layouts can be made up; (directory, rows, random source)."""

SYNTHETIC_SOURCES: Mapping[str, Callable[[], DataSet]] = {
    "glas-synthetic": glas_synthetic,
    "mmwhs-synthetic": mmwhs_synthetic,
}
"""Made-up data sets that any node can produce by itself, as those of `learning.data.SOURCES`."""
