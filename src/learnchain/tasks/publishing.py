"""Commission a model: encrypt its data, keep the keys, publish the files, post the task with its reward."""

import asyncio
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.wallet import Wallet
from learnchain.learning.data import prepare_part, prepare_task_data
from learnchain.network.concurrency import Clock
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.task_specification import Encryption, TaskSpecification, encode_specification
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.task_file import TaskDraft
from learnchain.tasks.vault import Vault, prepare_encrypted_part

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
