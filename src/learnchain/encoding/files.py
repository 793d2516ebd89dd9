"""Write small files whole or not at all, and clear away what an earlier life left half written."""

import os
import shutil
from pathlib import Path

from learnchain.rejection import Unavailable

PARTIAL_SUFFIX = ".partial"


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file beside its place, sync it, and move it there: a kill leaves the old file or the new one."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_file(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def sync_file(path: Path) -> None:
    """Wait until a file's bytes, or the names in a directory, are on the disk: before anybody believes them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(path: Path, error: OSError) -> Unavailable:
    """Say what to do when the disk takes no more; nothing is lost, whoever asked tries again."""
    return Unavailable(
        f"{path} cannot be written ({error.strerror}); free disk space there, the node goes on by itself"
    )


def clear_leftovers(directory: Path) -> None:
    """Delete half-written files of an earlier life; what they were to become is made again when it is needed."""
    for leftover in directory.glob("*" + PARTIAL_SUFFIX):
        leftover.unlink(missing_ok=True)


def clear_directory(directory: Path) -> None:
    """Delete what a killed run left behind, as a whole."""
    shutil.rmtree(directory, ignore_errors=True)


def directory_bytes(directory: Path) -> int:
    """Return the bytes that the files under a directory take; those that vanish meanwhile count nothing."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_blocks * 512
            except OSError:
                continue
    return total
