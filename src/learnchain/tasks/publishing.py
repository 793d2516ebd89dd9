"""Commission a model, and open the data of commissioned models.

Publishing encrypts the data, keeps the keys, publishes the files and posts the task with its reward. A publisher's
secrets are written before a task is posted, read when the chain asks for them, never sent early. Nodes fetch encrypted
files early and check plain rows once the publisher opens them; encrypted training rows pass between disk, vault and the
encryption process.
"""

import asyncio
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from learnchain.encoding.codec import Hash32, decode, encode
from learnchain.encoding.cryptography import KEY_BYTES, decrypt_file, encrypt_file, key_hash, tagged_hash
from learnchain.encoding.files import PARTIAL_SUFFIX, clear_leftovers, storage_error, sync_file, write_whole
from learnchain.encryption.jobs import CheckRows, EncryptRows, IssueKey, OpenRows, PromisedRows, key_bytes_bound
from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.wallet import Wallet
from learnchain.learning.data import (
    DataSet,
    PreparedPart,
    check_data,
    load_data,
    open_part,
    prepare_part,
    prepare_task_data,
    save_data,
)
from learnchain.network.concurrency import Clock
from learnchain.protocol import task_specification
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.training_terms import SecureMapping, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.task_file import TaskDraft

SEED_SUFFIX, RELEASED_SUFFIX = ".seed", ".released"


class Vault:
    """Keep each key in a file of its own that only its owner may read, under the hash that the task commits to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear_leftovers(directory)

    def keep(self, key: bytes) -> Hash32:
        """Write a key durably and return its hash."""
        digest = key_hash(key)
        if self.key(digest) is None:
            write_whole(self._directory / digest.hex(), key)
        return digest

    def store_seed(self, root: Hash32, seed: bytes) -> None:
        """Write the seed of the master key of encrypted rows durably: a master key of its own for each data set."""
        write_whole(self._directory / f"{root.hex()}{SEED_SUFFIX}", seed)

    def seed(self, root: Hash32) -> bytes | None:
        """Return the seed of the rows with this root, or None when this publisher does not hold it whole."""
        path = self._directory / f"{root.hex()}{SEED_SUFFIX}"
        seed = path.read_bytes() if path.is_file() else b""
        return seed if len(seed) == KEY_BYTES else None

    def record_release(self, root: Hash32, mapping: SecureMapping) -> None:
        """Note durably that the products of rows with these vectors are given away, before the key leaves."""
        encoded = encode(mapping)
        name = f"{root.hex()}-{tagged_hash('released', encoded).hex()}{RELEASED_SUFFIX}"
        write_whole(self._directory / name, encoded)

    def list_released(self, root: Hash32) -> tuple[SecureMapping, ...]:
        """Return the mappings whose products of these rows were given away."""
        found = sorted(self._directory.glob(f"{root.hex()}-*{RELEASED_SUFFIX}"))
        return tuple(decode(SecureMapping, path.read_bytes()) for path in found)

    def key(self, digest: Hash32) -> bytes | None:
        """Return the key behind a hash, or None when this publisher does not hold it whole."""
        path = self._directory / digest.hex()
        if not path.is_file():
            return None
        key = path.read_bytes()
        return key if len(key) == KEY_BYTES and key_hash(key) == digest else None


def is_encrypted(part: task_specification.DataPart, promised: task_specification.TaskSpecification) -> bool:
    """Return whether a part of a task stays encrypted when its data key is out; test sets never do."""
    return promised.encryption is task_specification.Encryption.INNER_PRODUCT and part == promised.data.training


async def prepare_encrypted_part(
    data: DataSet, key: bytes, seed: bytes, path: Path, carry_out: EncryptionRunner
) -> PreparedPart:
    """Write the file of encrypted rows, wrapped like all data, so that labels too wait for the previous block."""
    with TemporaryDirectory(dir=path.parent) as place:
        plain, rows = Path(place) / "plain", Path(place) / "rows"
        save_data(plain, data)
        made = await carry_out(EncryptRows(seed, key, str(plain), str(rows)))
        size = encrypt_file(rows, path, key)
    return PreparedPart(path, bytes.fromhex(made["root"]), key_hash(key), len(data), size)


async def issued_key(
    vault: Vault, carry_out: EncryptionRunner, part: task_specification.DataPart, terms: TrainingTerms
) -> bytes:
    """Return the functional key of one block's vectors; refuse beyond the leak budget, which survives restarts."""
    seed, mapping = vault.seed(part.plaintext_root), terms.mapping
    if seed is None or mapping is None:
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, "no master key, or no mapping layer, for these rows")
    with TemporaryDirectory() as place:
        target = Path(place) / "key"
        await carry_out(IssueKey(seed, mapping, vault.list_released(part.plaintext_root), str(target)))
        # On disk before on the wire: what a killed data node may have given away counts as given away.
        vault.record_release(part.plaintext_root, mapping)
        return target.read_bytes()


async def unwrap_rows(
    encrypted: Path,
    promised: task_specification.TaskSpecification,
    key: bytes,
    target: Path,
    carry_out: EncryptionRunner,
) -> None:
    """Open the wrapping of encrypted rows; refuse a key or a file other than those committed at posting."""
    part = promised.data.training
    if key_hash(key) != part.key_hash:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the key does not hash to the commitment of the task")
    await asyncio.to_thread(decrypt_file, encrypted, target, key, part.ciphertext_bytes)
    await carry_out(CheckRows(str(target), build_promised_rows(promised, key)))


def build_promised_rows(promised: task_specification.TaskSpecification, key: bytes) -> PromisedRows:
    """Return what a task promises of its encrypted rows."""
    part, data = promised.data.training, promised.data
    return PromisedRows(key, part.rows, part.plaintext_root, data.sample_shape, data.classes, promised.metric)


POST_BASE_GAS = 400_000
GAS_PER_BYTE = 60
"""Calldata at the floor price of EIP-7623, the log and its memory, rounded up."""


@dataclass(frozen=True)
class Posting:
    """Say what was posted, and by which transaction."""

    transaction_hash: str
    specification: task_specification.TaskSpecification
    reward_wei: int
    bond_wei: int
    value_wei: int
    raw: bytes


async def prepare_task(
    draft: TaskDraft,
    blobs: BlobStore,
    vault: Vault,
    directory: Path,
    random_source: random.Random,
    encryption: EncryptionRunner = in_own_process,
) -> task_specification.TaskSpecification:
    """Encrypt every data set under a fresh key, keep the keys, publish the files; return the specification."""
    training_key, test_key, *later_keys = (random_source.randbytes(32) for _ in range(2 + len(draft.later_tests)))
    for key in (training_key, test_key, *later_keys):
        vault.keep(key)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        if draft.encryption is task_specification.Encryption.INNER_PRODUCT:
            # A master key for this data set alone; the test set has none: nothing may be learned from it (PoLe 3.4).
            seed, path = random_source.randbytes(32), Path(place) / "training.enc"
            training = await prepare_encrypted_part(draft.training_data, training_key, seed, path, encryption)
            vault.store_seed(training.plaintext_root, seed)
            test = await asyncio.to_thread(prepare_part, draft.test_data, test_key, Path(place) / "test.enc")
        else:
            training, test = await asyncio.to_thread(
                prepare_task_data, draft.training_data, draft.test_data, training_key, test_key, Path(place)
            )
        files = [training, test]
        for number, (each, key) in enumerate(zip(draft.later_tests, later_keys, strict=True), start=1):
            files.append(await asyncio.to_thread(prepare_part, each, key, Path(place) / f"test-{number}.enc"))
        parts = [each.part(await blobs.add(each.path)) for each in files]
    specification = draft.specification(parts[0], parts[1], tuple(parts[2:]))
    specification.check_numbers()
    return specification


@dataclass(frozen=True)
class TaskPublisher:
    """Post tasks from one wallet."""

    parameters: ChainParameters
    engine: ExecutionEngine
    wallet: Wallet
    clock: Clock

    async def post(self, draft: TaskDraft, specification: task_specification.TaskSpecification) -> Posting:
        """Send the posting transaction: the reward, the bond and the claimer's tip go into the contract's hands."""
        encoded = task_specification.encode_specification(specification)
        deadline = self.clock.now_milliseconds() // 1000 + draft.deadline_seconds
        value = posting_value_wei(draft.reward_wei, draft.bond_wei)
        data = post_calldata(encoded, draft.reward_wei, draft.bond_wei, deadline)
        address = "0x" + self.wallet.address.hex()
        fee = 2 * int(await self.engine.rpc("eth_gasPrice", []), 16)
        nonce = int(await self.engine.rpc("eth_getTransactionCount", [address, "pending"]), 16)
        transaction = {
            "chainId": self.parameters.chain_id,
            "nonce": nonce,
            "to": "0x" + self.parameters.escrow.hex(),
            "value": value,
            "gas": POST_BASE_GAS + GAS_PER_BYTE * len(data),
            "maxFeePerGas": fee,
            "maxPriorityFeePerGas": 0,
            "data": "0x" + data.hex(),
        }
        raw = self.wallet.sign_transaction(transaction)
        sent: str = await self.engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
        return Posting(sent, specification, draft.reward_wei, draft.bond_wei, value, raw)


MAXIMUM_PLAIN_PARTS = 16
"""Opened parts that stay on disk beside their encrypted files."""
MAPPING_SUFFIX = ".mapping"
MAXIMUM_MAPPINGS = 16
"""Mapping layers that stay on disk: one a height, or one a miner and height."""


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """Hold what a key release opens: the file of training rows, and the place of the functional key if any."""

    key: bytes
    functional_key: task_specification.Cid


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
        self._checked: set[tuple[task_specification.DataPart, tuple[int, ...], int, task_specification.Metric]] = set()
        directory.mkdir(parents=True, exist_ok=True)
        clear_leftovers(directory)

    async def prefetch(self, part: task_specification.DataPart) -> Path:
        """Fetch the encrypted file; a file of another size than declared voids the task (DLBC-R11)."""
        path = await self._blobs.fetch(part.cid, max_bytes=part.ciphertext_bytes)
        size = path.stat().st_size
        if size != part.ciphertext_bytes:
            detail = f"the file has {size} bytes, the task declares {part.ciphertext_bytes}"
            raise Rejected(RejectionReason.TASK_SIZE_DECLARED_WRONG, detail)
        return path

    async def open_part(
        self, part: task_specification.DataPart, key: bytes, promised: task_specification.TaskSpecification
    ) -> Path:
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

    async def training(
        self, opened: OpenedKeys, promised: task_specification.TaskSpecification, terms: TrainingTerms
    ) -> Path:
        """Return what may be trained on: the plain rows, or their products with this height's mapping layer alone."""
        part = promised.data.training
        if promised.encryption is task_specification.Encryption.SYMMETRIC:
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
        self,
        opened: OpenedKeys,
        promised: task_specification.TaskSpecification,
        mapping: SecureMapping,
        rows: Path,
        products: Path,
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
        self, opened: OpenedKeys, promised: task_specification.TaskSpecification, terms: TrainingTerms, directory: Path
    ) -> None:
        """Open the training data themselves in an empty directory: rows, and where they stay encrypted all products."""
        rows = directory / "rows"
        await self.reopen_part(promised.data.training, opened.key, promised, rows)
        if is_encrypted(promised.data.training, promised) and terms.mapping is not None:
            await self._decrypt(opened, promised, terms.mapping, rows, directory / "products")

    async def reopen_part(
        self, part: task_specification.DataPart, key: bytes, promised: task_specification.TaskSpecification, plain: Path
    ) -> None:
        """Open the encrypted file itself to `plain`, whatever was opened before: rows are compared with the promise."""
        encrypted = await self.prefetch(part)
        await self._open(encrypted, part, key, plain, promised)

    async def _open(
        self,
        encrypted: Path,
        part: task_specification.DataPart,
        key: bytes,
        target: Path,
        promised: task_specification.TaskSpecification,
    ) -> None:
        if is_encrypted(part, promised):
            await unwrap_rows(encrypted, promised, key, target, self._encryption)
        else:
            await asyncio.to_thread(open_part, encrypted, part, key, target, promised)

    async def _check(
        self, plain: Path, part: task_specification.DataPart, key: bytes, promised: task_specification.TaskSpecification
    ) -> None:
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


def _check(plain: Path, promised: task_specification.TaskSpecification) -> None:
    check_data(load_data(plain, mapped=True), promised)
