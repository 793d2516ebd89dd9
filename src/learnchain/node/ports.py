"""What a role reaches the world through: handed over once, replaced as a whole in tests."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from learnchain.learning.jobs import (
    Evaluation,
    EvaluationJob,
    Progress,
    Search,
    SearchJob,
    TrainedFiles,
    TrainingJob,
    WatermarkCheck,
    WatermarkJob,
)
from learnchain.learning.replay.jobs import AuditJob, AuditLine, DisputeJob, SegmentJob
from learnchain.node.blobs.blob_store import BlobStore
from learnchain.node.chain import Chain, WireMessage
from learnchain.node.clock import Clock
from learnchain.node.decisions import Decisions
from learnchain.node.encryption.process import Carrier, in_own_process
from learnchain.node.execution.engine import ExecutionEngine
from learnchain.node.storage.archive import Archive
from learnchain.node.task_data import TaskData
from learnchain.node.vault import Vault
from learnchain.node.wallet import Wallet
from learnchain.primitives.codec import Hash32
from learnchain.primitives.rejection import Rejected, Unavailable

logger = logging.getLogger(__name__)


class Publishing(Protocol):
    """Send a message of the round to everybody."""

    async def publish(self, message: WireMessage) -> None:
        """Gossip one message; this node itself has already fed it to its chain."""
        ...


class Training(Protocol):
    """Train and measure models somewhere else: in a process of its own, or in a simulation in this one."""

    async def start(self) -> None:
        """Get ready; the first job then need not wait."""
        ...

    async def machine_class(self) -> Hash32:
        """Return the reproducibility class of the process that trains; zero where nobody may compare bits with it."""
        ...

    async def probe(self, job: TrainingJob) -> float:
        """Return the seconds of one epoch."""
        ...

    async def train(self, job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> TrainedFiles:
        """Run a job; weights and trace then lie in its directory."""
        ...

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        ...

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        """Return the exact counts of a model."""
        ...

    async def check_watermark(self, job: WatermarkJob) -> WatermarkCheck:
        """Return whether a model carries a mark."""
        ...

    async def search(self, job: SearchJob) -> Search:
        """Try salts of a puzzle, at most as many as the job says."""
        ...

    async def audit(self, job: AuditJob) -> tuple[AuditLine, ...]:
        """Return what the check of a published run came to, up to the first fault."""
        ...

    async def answer(self, job: SegmentJob) -> None:
        """Train a segment again; its directory then holds the states of all steps and their digests."""
        ...

    async def check_states(self, job: SegmentJob) -> None:
        """Refuse an answer whose states are not those of its digests."""
        ...

    async def outlying(self, job: SegmentJob) -> int:
        """Return the first step of an answer that no honest machine takes, or -1."""
        ...

    async def dispute(self, job: DisputeJob) -> bool:
        """Return whether a proof about one step, or about an answer's ends, holds."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...


@dataclass
class Tasks:
    """Supervise what runs beside the event loop's main path: a failure is logged, the node goes on."""

    running: dict[asyncio.Task[None], None] = field(default_factory=dict)
    """In the order of their start: a set of tasks is ordered by places in memory."""

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine under supervision."""
        task = asyncio.create_task(self._supervised(coroutine, name), name=name)
        self.running[task] = None
        task.add_done_callback(lambda done: self.running.pop(done, None))
        # A task that is cancelled before its first step never awaits its coroutine.
        task.add_done_callback(lambda _task: coroutine.close())
        return task

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        for task in tuple(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _supervised(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except Rejected as error:
            logger.warning("%s is refused: %s", name, error)
        except Unavailable as error:
            logger.info("%s waits for what is not here: %s", name, error)
        except Exception:
            logger.exception("%s failed; this is a bug of ours", name)


@dataclass(frozen=True)
class Ports:
    """Join everything a role may use."""

    clock: Clock
    chain: Chain
    network: Publishing
    blobs: BlobStore
    data: TaskData
    engine: ExecutionEngine
    trainer: Training
    archive: Archive
    wallet: Wallet
    vault: Vault
    tasks: Tasks
    decisions: Decisions
    random_source: random.Random
    encryption: Carrier = in_own_process

    async def announce(self, message: WireMessage) -> None:
        """Feed a message of our own to our own chain first, then to the others; a refusal of our own is a bug."""
        self.chain.receive(message)
        await self.network.publish(message)
