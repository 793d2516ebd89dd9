"""Commission a model: encrypt its data, keep the keys, publish the files, post the task with its reward.

A publisher's secrets: written before a task is posted, read when the chain asks for them, never sent early.

Encrypted training rows between disk, vault and the encryption process: the data node's part, then the miner's.
"""

import asyncio
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from learnchain.encoding.codec import Hash32, decode, encode
from learnchain.encoding.cryptography import KEY_BYTES, decrypt_file, encrypt_file, key_hash
from learnchain.encoding.files import clear_leftovers, write_whole
from learnchain.encoding.hashing import tagged_hash
from learnchain.encryption.jobs import CheckRows, EncryptRows, IssueKey, PromisedRows
from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.wallet import Wallet
from learnchain.learning.data import DataSet, PreparedPart, prepare_part, prepare_task_data, save_data
from learnchain.network.concurrency import Clock
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.task_specification import DataPart, Encryption, TaskSpecification, encode_specification
from learnchain.protocol.training_terms import SecureMapping, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason
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


def is_encrypted(part: DataPart, promised: TaskSpecification) -> bool:
    """Return whether a part of a task stays encrypted when its data key is out; test sets never do."""
    return promised.encryption is Encryption.INNER_PRODUCT and part == promised.data.training


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


async def issued_key(vault: Vault, carry_out: EncryptionRunner, part: DataPart, terms: TrainingTerms) -> bytes:
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
    encrypted: Path, promised: TaskSpecification, key: bytes, target: Path, carry_out: EncryptionRunner
) -> None:
    """Open the wrapping of encrypted rows; refuse a key or a file other than those committed at posting."""
    part = promised.data.training
    if key_hash(key) != part.key_hash:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the key does not hash to the commitment of the task")
    await asyncio.to_thread(decrypt_file, encrypted, target, key, part.ciphertext_bytes)
    await carry_out(CheckRows(str(target), build_promised_rows(promised, key)))


def build_promised_rows(promised: TaskSpecification, key: bytes) -> PromisedRows:
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
    specification: TaskSpecification
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
) -> TaskSpecification:
    """Encrypt every data set under a fresh key, keep the keys, publish the files; return the specification."""
    training_key, test_key, *later_keys = (random_source.randbytes(32) for _ in range(2 + len(draft.later_tests)))
    for key in (training_key, test_key, *later_keys):
        vault.keep(key)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        if draft.encryption is Encryption.INNER_PRODUCT:
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

    async def post(self, draft: TaskDraft, specification: TaskSpecification) -> Posting:
        """Send the posting transaction: the reward, the bond and the claimer's tip go into the contract's hands."""
        encoded = encode_specification(specification)
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
