"""Step 3: the selected task, its place in the ranking and the deadlines of the height; recomputed, never sent."""

from dataclasses import dataclass

from learnchain.encoding.codec import Hash32
from learnchain.protocol.messages import Deadline, Task
from learnchain.protocol.task_specification import Cid, DataPart, TaskSpecification


@dataclass(frozen=True, slots=True)
class PostedTask:
    """Join a task with its specification, which came in the same transaction."""

    task: Task
    specification: TaskSpecification


@dataclass(frozen=True, slots=True)
class Schedule:
    """Name every deadline of one height as data: clock-driven and event-driven rounds differ only here.

    Commitments are in time up to `commitment_milliseconds`, or up to an earlier release: from
    `release_opens_milliseconds` on, `enough_commitments` of them end the wait; 0 means that only the clock does.
    `reveal_*` and `block_*` are offsets: from the release deadline when `clocked`, from the actual release else.
    `training_milliseconds` is the end of a phase that belongs to key, decryption and probe (DLBC IV-B); without one, 0,
    training begins with the key.
    With a `time_limit_milliseconds` training ends as soon as the required accuracy is reached on the training rows, at
    the latest at the limit; who has not reached it commits after that, and the list then stays open for all up to
    `commitment_milliseconds`. 0: training ends with its deadline.
    """

    start_milliseconds: int
    key_milliseconds: int
    release_opens_milliseconds: int
    commitment_milliseconds: int
    release_milliseconds: int
    reveal_after_milliseconds: int
    block_after_milliseconds: int
    is_clocked: bool
    payload_timestamp_seconds: int
    sufficient_commitments: int = 0
    time_limit_milliseconds: int = 0
    training_milliseconds: int = 0

    def is_release_due(self, commitments: int, at_milliseconds: int) -> bool:
        """Return whether the publisher should close the list now."""
        if at_milliseconds >= self.commitment_milliseconds:
            return commitments > 0
        if 0 < self.time_limit_milliseconds <= at_milliseconds:
            # Everybody commits now: the best of all is to win, not the best of those whose messages were fast.
            return False
        return at_milliseconds >= self.release_opens_milliseconds and 0 < self.sufficient_commitments <= commitments

    def deadline(self, which: Deadline, released_milliseconds: int | None = None) -> int:
        """Return the time of a deadline; reveal and block follow the release in event-driven rounds."""
        if which is Deadline.KEY:
            return self.key_milliseconds
        if which is Deadline.COMMITMENT:
            return self.commitment_milliseconds
        if which is Deadline.RELEASE:
            return self.release_milliseconds
        origin = self.release_milliseconds
        if not self.is_clocked and released_milliseconds is not None:
            origin = released_milliseconds
        after = self.reveal_after_milliseconds if which is Deadline.REVEAL else self.block_after_milliseconds
        return origin + after


@dataclass(frozen=True, slots=True)
class MultiBlockPosition:
    """Say where a task stands that spans several blocks, and which blocks seed its training (ROUND-9).

    `turn` counts its blocks from 0. `origin` seeds the initialisation, `order` the order of the batches; empty, they
    are the parent: the task starts and ends in one block.
    """

    block_index: int = 0
    initialisation_seed: bytes = b""
    batch_order_seed: bytes = b""


@dataclass(frozen=True, slots=True)
class Lookahead:
    """Name the course of the next height if the task goes on, and when its commitments close.

    A miner may begin it as soon as it has committed: Phase 1 of a block overlaps Phase 2 of the last (PoDL III-B).
    """

    position: MultiBlockPosition
    commitment_milliseconds: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Say which task every miner works on at a height, and what the next block must list as unselected.

    `score` is the engine's ranking number as text, for display and for the decision trace; `queue_length` is l of
    DLBC Eq. 1: publishers' tasks in the parent's list, the selected one included (reading DLBC-R7). `memory` is what
    the engine remembers from the parent block (`Reward.memory`). `citable` names commitments of earlier heights that
    lost and that the block of this height may cite as ommers, the one to prefer first. `discloses` says whether miners
    show their model with the commitment. `baseline` is the model that this height's winner is compared with on the same
    test set (PODL-R1); `ahead` is what may be trained before the height is decided.
    """

    height: int
    parent: Hash32
    posted_task: PostedTask
    score: str
    queue_length: int
    schedule: Schedule
    ranking: tuple[tuple[str, Hash32], ...]
    memory: bytes = b""
    citable_commitments: tuple[Hash32, ...] = ()
    shows_models: bool = False
    position: MultiBlockPosition = MultiBlockPosition()
    baseline_model: Cid = b""
    lookahead: tuple[Lookahead, ...] = ()

    @property
    def task(self) -> Task:
        """Name the selected task."""
        return self.posted_task.task

    @property
    def test_set(self) -> DataPart:
        """Name the test set that is released at this height."""
        return self.posted_task.specification.data.test_sets[self.position.block_index]
