"""Fetch, open and check the data of tasks: encrypted files early, plain rows once the publisher opens them."""

import asyncio
import os
from pathlib import Path

from learnchain.learning.data import check_data, load_data, open_part
from learnchain.node.blobs.blob_store import BlobStore
from learnchain.node.storage.files import PARTIAL_SUFFIX, clear_leftovers, disk_refused, sync_file, write_whole
from learnchain.primitives.codec import encode
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import DataPart, Metric, TaskSpecification
from learnchain.primitives.training_terms import SecureMapping, TrainingTerms

MAXIMUM_PLAIN_PARTS = 16
"""Opened parts that stay on disk beside their encrypted files."""
MAPPING_SUFFIX = ".mapping"
MAXIMUM_MAPPINGS = 16
"""Mapping layers that stay on disk: one a height, or one a miner and height."""


class TaskData:
    """Keep plain files of opened parts under their roots; a part is opened once, however many ask for it.

    Mapping layers lie beside them: they are too large for the frames in which jobs travel.
    """

    def __init__(self, directory: Path, blobs: BlobStore) -> None:
        self._directory = directory
        self._blobs = blobs
        self._opening: dict[bytes, asyncio.Lock] = {}
        self._mapping = asyncio.Lock()
        self._checked: set[tuple[DataPart, tuple[int, ...], int, Metric]] = set()
        directory.mkdir(parents=True, exist_ok=True)
        clear_leftovers(directory)

    async def prefetch(self, part: DataPart) -> Path:
        """Fetch the encrypted file; a file of another size than declared voids the task (DLBC-R11)."""
        path = await self._blobs.fetch(part.cid, max_bytes=part.ciphertext_bytes)
        size = path.stat().st_size
        if size != part.ciphertext_bytes:
            detail = f"the file has {size} bytes, the task declares {part.ciphertext_bytes}"
            raise Rejected(RejectionReason.TASK_SIZE_DECLARED_WRONG, detail)
        return path

    async def opened(self, part: DataPart, key: bytes, promised: TaskSpecification) -> Path:
        """Return the plain file; raise `Rejected` for a wrong key or root, `Unavailable` while nobody has the file.

        Rows that are not what the task promises are refused: two tasks may share a file and promise different things.
        """
        plain = self._directory / f"{part.plaintext_root.hex()}.safetensors"
        lock = self._opening.setdefault(part.plaintext_root, asyncio.Lock())
        async with lock:
            if not plain.exists():
                encrypted = await self.prefetch(part)
                partial = plain.with_name(plain.name + PARTIAL_SUFFIX)
                try:
                    await asyncio.to_thread(open_part, encrypted, part, key, partial, promised)
                    await asyncio.to_thread(sync_file, partial)
                    partial.replace(plain)
                except OSError as error:
                    partial.unlink(missing_ok=True)
                    raise disk_refused(plain, error) from error
                await asyncio.to_thread(self._forget_old, plain)
            else:
                os.utime(plain)
                if (part, promised.data.sample_shape, promised.data.classes, promised.metric) not in self._checked:
                    await asyncio.to_thread(_check, plain, promised)
            self._checked.add((part, promised.data.sample_shape, promised.data.classes, promised.metric))
        return plain

    async def mapping_path(self, terms: TrainingTerms) -> str:
        """Return where the mapping layer of a height lies for training processes; nothing where there is none."""
        if not isinstance(terms, SecureMapping):
            return ""
        path = self._directory / f"{terms.identity.hex()}-{len(terms.rows)}-{terms.kernel}{MAPPING_SUFFIX}"
        async with self._mapping:
            if not path.exists():
                await asyncio.to_thread(self._write_mapping, path, terms)
        return str(path)

    def _write_mapping(self, path: Path, terms: SecureMapping) -> None:
        write_whole(path, encode(terms), 0o644)
        found = sorted(self._directory.glob(f"*{MAPPING_SUFFIX}"), key=lambda each: each.stat().st_mtime_ns)
        for old in found[:-MAXIMUM_MAPPINGS]:
            old.unlink(missing_ok=True)

    def _forget_old(self, just_opened: Path) -> None:
        """Delete plain files that were used longest ago: they can be opened again from what the chain holds."""
        found = sorted(self._directory.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-MAXIMUM_PLAIN_PARTS]:
            if path != just_opened:
                path.unlink(missing_ok=True)


def _check(plain: Path, promised: TaskSpecification) -> None:
    check_data(load_data(plain, mapped=True), promised)
