"""Fetch, open and check the data of tasks: encrypted files early, plain rows once the publisher opens them."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from learnchain.encoding.codec import encode
from learnchain.encoding.files import PARTIAL_SUFFIX, clear_leftovers, storage_error, sync_file, write_whole
from learnchain.encoding.hashing import tagged_hash
from learnchain.encryption.jobs import CheckRows, OpenRows, key_bytes_bound
from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.learning.data import check_data, load_data, open_part
from learnchain.protocol.task_specification import Cid, DataPart, Encryption, Metric, TaskSpecification
from learnchain.protocol.training_terms import SecureMapping, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.publishing import build_promised_rows, is_encrypted, unwrap_rows

MAXIMUM_PLAIN_PARTS = 16
"""Opened parts that stay on disk beside their encrypted files."""
MAPPING_SUFFIX = ".mapping"
MAXIMUM_MAPPINGS = 16
"""Mapping layers that stay on disk: one a height, or one a miner and height."""


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """Hold what a key release opens: the file of training rows, and the place of the functional key if any."""

    key: bytes
    functional_key: Cid


class TaskData:
    """Keep plain files of opened parts under their roots; a part is opened once, however many ask for it.

    Mapping layers lie beside them: they are too large for the frames in which jobs travel.
    """

    def __init__(self, directory: Path, blobs: BlobStore, encryption: EncryptionRunner = in_own_process) -> None:
        self._encryption = encryption
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

    async def open_part(self, part: DataPart, key: bytes, promised: TaskSpecification) -> Path:
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
                    await self._open(encrypted, part, key, partial, promised)
                    await asyncio.to_thread(sync_file, partial)
                    partial.replace(plain)
                except OSError as error:
                    partial.unlink(missing_ok=True)
                    raise storage_error(plain, error) from error
                await asyncio.to_thread(self._forget_old, plain)
            else:
                os.utime(plain)
                if (part, promised.data.sample_shape, promised.data.classes, promised.metric) not in self._checked:
                    await self._check(plain, part, key, promised)
            self._checked.add((part, promised.data.sample_shape, promised.data.classes, promised.metric))
        return plain

    async def training(self, opened: OpenedKeys, promised: TaskSpecification, terms: TrainingTerms) -> Path:
        """Return what may be trained on: the plain rows, or their products with this height's mapping layer alone."""
        part = promised.data.training
        if promised.encryption is Encryption.SYMMETRIC:
            return await self.open_part(part, opened.key, promised)
        mapping = terms.mapping
        if mapping is None:
            raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, "rows stay encrypted, and nothing maps them")
        name = tagged_hash("products", part.plaintext_root, encode(mapping), opened.functional_key).hex()
        products = self._directory / f"{name}.safetensors"
        async with self._opening.setdefault(bytes.fromhex(name), asyncio.Lock()):
            if not products.exists():
                rows = await self.open_part(part, opened.key, promised)
                await self._decrypt(opened, promised, mapping, rows, products)
                await asyncio.to_thread(self._forget_old, products)
        return products

    async def _decrypt(
        self, opened: OpenedKeys, promised: TaskSpecification, mapping: SecureMapping, rows: Path, products: Path
    ) -> None:
        """Verify the functional key and decrypt the features of a block, once, in a process without torch."""
        functional_key = await self._blobs.fetch(opened.functional_key, max_bytes=key_bytes_bound(mapping))
        partial = products.with_name(products.name + PARTIAL_SUFFIX)
        paths = (str(rows), str(functional_key), str(partial))
        try:
            # Crafted points are opened one by one: whoever posts them must not keep a node busy for days.
            async with asyncio.timeout(promised.time_limit_seconds):
                await self._encryption(OpenRows(*paths, mapping, build_promised_rows(promised, opened.key)))
            await asyncio.to_thread(sync_file, partial)
            partial.replace(products)
        except TimeoutError as error:
            raise Unavailable("the products of encrypted rows within the time limit of their task") from error
        except OSError as error:
            raise storage_error(products, error) from error
        finally:
            partial.unlink(missing_ok=True)

    async def mapping_path(self, terms: TrainingTerms) -> str:
        """Return where the mapping layer of a height lies for training processes; nothing where there is none."""
        mapping = terms.mapping
        if mapping is None:
            return ""
        path = self._directory / f"{mapping.identity.hex()}-{len(mapping.rows)}-{mapping.kernel}{MAPPING_SUFFIX}"
        async with self._mapping:
            if not path.exists():
                await asyncio.to_thread(self._write_mapping, path, mapping)
        return str(path)

    def _write_mapping(self, path: Path, mapping: SecureMapping) -> None:
        write_whole(path, encode(mapping), 0o644)
        found = sorted(self._directory.glob(f"*{MAPPING_SUFFIX}"), key=lambda each: each.stat().st_mtime_ns)
        for old in found[:-MAXIMUM_MAPPINGS]:
            old.unlink(missing_ok=True)

    async def reopen_training_data(
        self, opened: OpenedKeys, promised: TaskSpecification, terms: TrainingTerms, directory: Path
    ) -> None:
        """Open the training data themselves in an empty directory: rows, and where they stay encrypted all products."""
        rows = directory / "rows"
        await self.reopen_part(promised.data.training, opened.key, promised, rows)
        if is_encrypted(promised.data.training, promised) and terms.mapping is not None:
            await self._decrypt(opened, promised, terms.mapping, rows, directory / "products")

    async def reopen_part(self, part: DataPart, key: bytes, promised: TaskSpecification, plain: Path) -> None:
        """Open the encrypted file itself to `plain`, whatever was opened before: rows are compared with the promise."""
        encrypted = await self.prefetch(part)
        await self._open(encrypted, part, key, plain, promised)

    async def _open(
        self, encrypted: Path, part: DataPart, key: bytes, target: Path, promised: TaskSpecification
    ) -> None:
        if is_encrypted(part, promised):
            await unwrap_rows(encrypted, promised, key, target, self._encryption)
        else:
            await asyncio.to_thread(open_part, encrypted, part, key, target, promised)

    async def _check(self, plain: Path, part: DataPart, key: bytes, promised: TaskSpecification) -> None:
        if is_encrypted(part, promised):
            await self._encryption(CheckRows(str(plain), build_promised_rows(promised, key)))
        else:
            await asyncio.to_thread(_check, plain, promised)

    def _forget_old(self, just_opened: Path) -> None:
        """Delete plain files that were used longest ago: they can be opened again from what the chain holds."""
        found = sorted(self._directory.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-MAXIMUM_PLAIN_PARTS]:
            if path != just_opened:
                path.unlink(missing_ok=True)


def _check(plain: Path, promised: TaskSpecification) -> None:
    check_data(load_data(plain, mapped=True), promised)
