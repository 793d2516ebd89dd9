"""Whatever bytes a file holds, an importer gives data or refuses them: no other error, no endless work."""

import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from learnchain.learning.sources.files import ImportOptions, SourceFile
from learnchain.learning.sources.speech import read_wav
from learnchain.learning.sources.store import IMPORTERS
from learnchain.learning.sources.synthetic import WRITERS, generator, tone, write_wav
from learnchain.rejection import Rejected

ROUNDS = int(os.environ.get("LEARNCHAIN_MUTATIONS", "60"))
SPEECH = ("spoken-digits", "speech-commands")
PICTURES = ("image-classes", "glas")


def mutated(data: bytes, source: random.Random) -> bytes:
    """Return bytes with a few places overwritten, cut, doubled or filled with extremes; mostly near the header."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(min(len(changed), 400 if source.random() < 0.8 else len(changed)) or 1)
        kind = source.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 1:
            changed[at : at + 4] = source.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = changed[at : at + source.randint(1, 64)]
        else:
            changed[at : at + source.randint(1, 8)] = b""
    return bytes(changed)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_mutated_file_is_data_or_refused(tmp_path: Path, kind: str) -> None:
    if kind in PICTURES:
        pytest.importorskip("PIL")
    rows = 4 if kind in ("glas", "mmwhs") else 20
    WRITERS[kind](tmp_path, rows, generator(kind, 1))
    source = random.Random(f"mutations-{kind}")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    refused = 0
    # Spectrograms of all files cost most; the test below changes recordings alone, many times.
    for _ in range(ROUNDS // 6 if kind in SPEECH else ROUNDS):
        victim = source.choice(files)
        whole = victim.read_bytes()
        victim.write_bytes(mutated(whole, source))
        try:
            IMPORTERS[kind](tmp_path, ImportOptions())
        except Rejected:
            refused += 1
        finally:
            victim.write_bytes(whole)
    assert IMPORTERS[kind](tmp_path, ImportOptions()).training
    assert refused > 0, "no mutation was noticed"


def test_a_mutated_recording_is_samples_or_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", tone(generator("tone", 1), 3))
    whole, source, refused = (tmp_path / "x.wav").read_bytes(), random.Random("recordings"), 0
    for _ in range(20 * ROUNDS):
        try:
            samples, rate = read_wav(SourceFile("x.wav", mutated(whole, source)))
            assert 0 < len(samples) <= 60 * rate
        except Rejected:
            refused += 1
    assert refused > ROUNDS


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip"])
def test_a_mutated_archive_is_data_or_refused(tmp_path: Path, kind: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    WRITERS["idx"](files, 10, generator("idx", 1))
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(files.iterdir()):
                archive.write(path, path.name)
    else:
        with tarfile.open(fileobj=target, mode=f"w:{kind.partition('.')[2]}") as tar:
            tar.add(files, "files")
    whole, source = target.getvalue(), random.Random(f"mutations-{kind}")
    path, refused = tmp_path / "archive", 0
    for _ in range(3 * ROUNDS):
        path.write_bytes(mutated(whole, source))
        try:
            IMPORTERS["idx"](path, ImportOptions())
        except Rejected:
            refused += 1
    assert refused > 0, "no mutation was noticed"
