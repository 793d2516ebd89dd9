"""Read the files of a folder or an archive with bounds: sizes before bytes, nothing extracted, links never followed.

Names only serve to recognise files; no name from an archive ever becomes a path on this machine.

Describe what an importer gives and what it may be asked: nouns that all layouts share.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_FILES = 500_000
MAXIMUM_FILE_BYTES = 1 << 30
MAXIMUM_TOTAL_BYTES = 1 << 35
_CHUNK_BYTES = 1 << 20
_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_FAULTS = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)

Progress = Callable[[int], None]
"""Is told how many files were read so far."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """Hold one file: its name inside the source, with slashes, and its bytes."""

    name: str
    data: bytes

    @property
    def stem(self) -> str:
        """Return the last part of the name."""
        return self.name.rpartition("/")[2]


@dataclass(slots=True)
class _Budget:
    """Count what was read against the bounds, before it is read."""

    files: int = 0
    total_bytes: int = 0

    def take(self, name: str, size: int) -> None:
        self.files += 1
        self.total_bytes += size
        if size > MAXIMUM_FILE_BYTES or self.files > MAXIMUM_FILES or self.total_bytes > MAXIMUM_TOTAL_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"{name} with {size} bytes, or the whole source, is too large")


def read_files(path: Path, wanted: Callable[[str], bool], progress: Progress = lambda _count: None) -> list[SourceFile]:
    """Return the wanted files of a folder, a tar or a zip archive, sorted by name; a `.gz` file is opened."""
    if path.is_dir():
        found = _of_folder(path, wanted)
    elif path.is_file():
        found = _of_archive(path, wanted)
    else:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is neither a folder nor an archive")
    files: list[SourceFile] = []
    for each in found:
        files.append(each)
        progress(len(files))
    files.sort(key=lambda each: each.name)
    if len({each.name for each in files}) != len(files):
        raise Rejected(RejectionReason.MALFORMED, f"{path} holds two files of one name")
    return files


def digests(path: Path, files: list[SourceFile]) -> dict[str, str]:
    """Return the SHA-256 of what was imported: of each of a few files, or one over the names and digests of many."""
    each = {file.name: hashlib.sha256(file.data).hexdigest() for file in files}
    if len(each) <= 16:
        return each
    lines = "".join(f"{digest}  {name}\n" for name, digest in each.items())
    return {f"{len(each)} files of {path.name}": hashlib.sha256(lines.encode()).hexdigest()}


def _of_folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[SourceFile]:
    budget = _Budget()
    for directory, _, names in os.walk(path, followlinks=False):
        for name in names:
            file = Path(directory) / name
            relative = file.relative_to(path).as_posix()
            if not wanted(_strip_compression_suffix(relative)) or file.is_symlink() or not file.is_file():
                continue
            size = file.stat().st_size
            budget.take(relative, size)
            with file.open("rb") as stream:
                yield _source_file(relative, _exactly(stream, size, relative), budget)


def _of_archive(path: Path, wanted: Callable[[str], bool]) -> Iterator[SourceFile]:
    try:
        if zipfile.is_zipfile(path):
            yield from _of_zip(path, wanted)
        else:
            yield from _of_tar(path, wanted)
    except _FAULTS as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no tar or zip archive: {error}") from error


def _of_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[SourceFile]:
    budget = _Budget()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or not wanted(_strip_compression_suffix(member.filename)):
                continue
            budget.take(member.filename, member.file_size)
            with archive.open(member) as stream:
                yield _source_file(member.filename, _exactly(stream, member.file_size, member.filename), budget)


def _of_tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[SourceFile]:
    budget = _Budget()
    with path.open("rb") as raw:
        head = raw.peek(6)[:6]
        opener = next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)
        plain = opener(raw) if opener is not None else raw
        with tarfile.open(fileobj=cast(Any, _Bounded(plain)), mode="r:") as archive:
            for member in archive:
                # Files that nobody wants are decompressed on the way too, so they count.
                budget.take(member.name, member.size)
                if not member.isreg() or not wanted(_strip_compression_suffix(member.name)):
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    yield _source_file(member.name, _exactly(stream, member.size, member.name), budget)


class _Bounded:
    """Refuse to read more at once than a file may have: headers of archives name sizes too."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes, which must be within the bound."""
        if not 0 <= size <= MAXIMUM_FILE_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"the archive asks to read {size} bytes at once")
        data: bytes = self._stream.read(size)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move within the bound on the whole archive."""
        if offset > MAXIMUM_TOTAL_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"the archive reaches to byte {offset}")
        place: int = self._stream.seek(offset, whence)
        return place

    def tell(self) -> int:
        """Return the place."""
        place: int = self._stream.tell()
        return place


def _exactly(stream: IO[bytes], size: int, name: str) -> bytes:
    data = stream.read(size + 1)
    if len(data) != size:
        raise Rejected(RejectionReason.MALFORMED, f"{name} has another size than it claims")
    return data


def _strip_compression_suffix(name: str) -> str:
    return name.removesuffix(".gz")


def _source_file(name: str, data: bytes, budget: _Budget) -> SourceFile:
    """Return a file, a compressed one opened: its plain size counts too."""
    if not name.endswith(".gz"):
        return SourceFile(name, data)
    plain = io.BytesIO()
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                plain.write(chunk)
                if plain.tell() > MAXIMUM_FILE_BYTES:
                    raise Rejected(RejectionReason.TOO_LARGE, f"{name} unpacks to more than {MAXIMUM_FILE_BYTES} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{name} is no gzip file: {error}") from error
    budget.take(name, plain.tell())
    return SourceFile(_strip_compression_suffix(name), plain.getvalue())


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Say how to import: the shape to bring samples to, digests that files must have, whom to tell of progress.

    `sha256` maps the last part of a file's name to the digest of its plain bytes.
    """

    shape: tuple[int, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda _count: None


@dataclass(frozen=True, slots=True, eq=False)
class ImportedData:
    """Hold what was read: the published split if there is one, the names of the classes, where it came from."""

    training: DataSet
    test: DataSet | None
    class_names: tuple[str, ...]
    sources: Mapping[str, str]
    licence: str = ""


def malformed_error(detail: str) -> Rejected:
    """Return the refusal of a file that is not what its layout promises."""
    return Rejected(RejectionReason.MALFORMED, detail)


def stack_rows(rows: Sequence[tuple[Array, Array | int]]) -> DataSet:
    """Return a data set of samples and labels, which must all have one shape."""
    if not rows:
        raise malformed_error("the source holds no samples of this layout")
    shapes = {row.shape for row, _ in rows}
    if len(shapes) != 1:
        raise malformed_error(f"samples have different shapes: {sorted(shapes)[:4]}")
    labels = np.array([label for _, label in rows], dtype=np.uint8)
    return DataSet(np.stack([row for row, _ in rows]), labels)


def stack_rows_or_none(rows: Sequence[tuple[Array, Array | int]]) -> DataSet | None:
    """Return a data set, or None without rows."""
    return stack_rows(rows) if rows else None
