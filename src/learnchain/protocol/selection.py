"""Step 3: the selected task, its place in the ranking and the deadlines of the height; recomputed, never sent."""

from dataclasses import dataclass, replace
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32
from learnchain.protocol.messages import MAXIMUM_COMMITMENTS, Deadline, Task
from learnchain.protocol.task_specification import DataPart, TaskSpecification


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

    `block_index` counts its blocks from 0 and names the test set of the height. Empty seeds are the parent: the task
    starts and ends in one block.
    """

    block_index: int = 0
    initialisation_seed: bytes = b""
    batch_order_seed: bytes = b""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Name a task and who may train it at a height: the listed miners, or everybody where none is listed (ASSIGN-1)."""

    posted_task: PostedTask
    miners: Annotated[tuple[Address, ...], Bound(MAXIMUM_COMMITMENTS)] = ()
    position: MultiBlockPosition = MultiBlockPosition()


@dataclass(frozen=True, slots=True)
class Selection:
    """Say what is trained at a height and by whom, and what the next block must list as unselected.

    A race has one assignment, for everybody; the properties read the first, whose publisher opens data and test set for
    all. `score` is the engine's ranking number as text, for display and for the decision trace; `queue_length` is l of
    DLBC Eq. 1: publishers' tasks in the parent's list, the selected one included (reading DLBC-R7). `memory` is what
    the engine remembers from the parent block (`Reward.memory`).
    """

    height: int
    parent: Hash32
    assignments: tuple[Assignment, ...]
    score: str
    queue_length: int
    schedule: Schedule
    ranking: tuple[tuple[str, Hash32], ...]
    memory: bytes = b""

    def select_assignment(self, miner: Address) -> "Selection | None":
        """Return the selection as one miner reads it, with its own assignment alone; None: nothing is assigned to it.

        A miner is listed in one assignment at most; a race is the same for all.
        """
        own = next((each for each in self.assignments if not each.miners or miner in each.miners), None)
        if own is None or len(self.assignments) == 1:
            return self if own else None
        return replace(self, assignments=(own,))

    @property
    def posted_task(self) -> PostedTask:
        """Return the selected task with its specification."""
        return self.assignments[0].posted_task

    @property
    def task(self) -> Task:
        """Name the selected task."""
        return self.posted_task.task

    @property
    def tasks(self) -> dict[Hash32, PostedTask]:
        """Return every task that is assigned at this height."""
        return {each.posted_task.task.task_id: each.posted_task for each in self.assignments}

    @property
    def position(self) -> MultiBlockPosition:
        """Say where the selected task stands."""
        return self.assignments[0].position

    @property
    def test_set(self) -> DataPart:
        """Name the test set that is released at this height."""
        return self.posted_task.specification.data.test_sets[self.position.block_index]
