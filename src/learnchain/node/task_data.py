"""Fetch, open and check the data of tasks: encrypted files early, plain rows once the publisher opens them."""

import asyncio
from pathlib import Path

from learnchain.learning.data import open_part
from learnchain.node.blobs.blob_store import BlobStore
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import DataPart


class TaskData:
    """Keep plain files of opened parts under their roots; a part is opened once, however many ask for it."""

    def __init__(self, directory: Path, blobs: BlobStore) -> None:
        self._directory = directory
        self._blobs = blobs
        self._opening: dict[bytes, asyncio.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True)

    async def prefetch(self, part: DataPart) -> Path:
        """Fetch the encrypted file; a file of another size than declared voids the task (DLBC-R11)."""
        path = await self._blobs.fetch(part.cid, max_bytes=part.ciphertext_bytes)
        size = path.stat().st_size
        if size != part.ciphertext_bytes:
            detail = f"the file has {size} bytes, the task declares {part.ciphertext_bytes}"
            raise Rejected(RejectionReason.TASK_SIZE_DECLARED_WRONG, detail)
        return path

    async def opened(self, part: DataPart, key: bytes) -> Path:
        """Return the plain file; raise `Rejected` for a wrong key or root, `Unavailable` while nobody has the file."""
        plain = self._directory / f"{part.plaintext_root.hex()}.safetensors"
        lock = self._opening.setdefault(part.plaintext_root, asyncio.Lock())
        async with lock:
            if not plain.exists():
                encrypted = await self.prefetch(part)
                partial = plain.with_suffix(".partial")
                await asyncio.to_thread(open_part, encrypted, part, key, partial)
                partial.replace(plain)
        return plain
