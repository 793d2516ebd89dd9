"""What a role reaches the world through: handed over once, replaced as a whole in tests."""

import random
from dataclasses import dataclass
from typing import Protocol

from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.wallet import Wallet
from learnchain.learning.jobs import Training
from learnchain.network.concurrency import Clock, Tasks
from learnchain.node.chain import Chain, Decisions, WireMessage
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.publishing import Vault
from learnchain.tasks.task_data import TaskData


class MessagePublisher(Protocol):
    """Send a message of the round to everybody."""

    async def publish(self, message: WireMessage) -> None:
        """Gossip one message; this node itself has already fed it to its chain."""
        ...


@dataclass(frozen=True)
class Ports:
    """Join everything a role may use."""

    clock: Clock
    chain: Chain
    network: MessagePublisher
    blobs: BlobStore
    data: TaskData
    engine: ExecutionEngine
    evaluator: Training
    archive: Archive
    wallet: Wallet
    vault: Vault
    tasks: Tasks
    decisions: Decisions
    random_source: random.Random
    encryption: EncryptionRunner = in_own_process

    async def announce(self, message: WireMessage) -> None:
        """Feed a message of our own to our own chain first, then to the others; a refusal of our own is a bug."""
        self.chain.receive(message)
        await self.network.publish(message)
