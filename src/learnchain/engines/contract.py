"""The ten questions that every engine answers, in the order of the spine; one frozen dataclass answers them.

An engine's fields are its paper's parameters. There is no base class to inherit from and no engine imports another:
a fifth protocol is a copied folder. The first docstring line of each answer says what the paper decides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from learnchain.encoding.codec import Hash32
from learnchain.protocol.measurement import Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import AnyBlock, Commitment, Escrow, Reveal, Task, Verdict
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.selection import Selection
from learnchain.protocol.state import ChainState, Reward
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.protocol.training_terms import TrainingTerms

STEPS = (
    "admit_task",
    "required_escrow",
    "select_task",
    "training_terms",
    "check_commitment",
    "check_reveal",
    "judge",
    "check_header",
    "weigh",
    "compute_reward",
)


@dataclass(frozen=True, slots=True)
class JudgementCase:
    """Step 7: everything a judgement rests on: the released commitments, what was opened, what was measured, and when.

    `released_milliseconds` is the publisher's signed date of the release.
    """

    selection: Selection
    commitments: tuple[tuple[Hash32, Commitment], ...]
    reveals: dict[Hash32, Reveal]
    measurements: dict[tuple[Hash32, MeasurementKind], Measurement]
    reveals_closed: bool
    released_milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class LocalDurations:
    """Hold what tasks ask for on one machine: key, data and a probe of training; training; judging.

    `release_*` and `reveal_*` count from the end of training: test set and models are opened at the latest then.
    """

    key_milliseconds: int
    training_milliseconds: int
    judging_milliseconds: int
    release_milliseconds: int
    reveal_milliseconds: int

    @property
    def interval_milliseconds(self) -> int:
        """Return how long a height is where everything follows one after the other."""
        return self.key_milliseconds + self.training_milliseconds + self.judging_milliseconds


class Rules(Protocol):
    """What an engine answers. Every answer is pure: no clock, disk, network, randomness or torch."""

    @property
    def name(self) -> str:
        """Name the consensus as `--consensus` does."""
        ...

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse a genesis that the engine cannot run with."""
        ...

    def encode_parameters(self) -> bytes:
        """Return the engine's own parameters for the genesis hash."""
        ...

    def admit_task(self, task: Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Refuse a task that may not join the list."""
        ...

    def required_escrow(self, task: Task) -> Escrow:
        """Say what must be locked for a task, and until when."""
        ...

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Choose the task of the next height and name its deadlines."""
        ...

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Say what training must embed, as data."""
        ...

    def check_commitment(
        self, selection: Selection, commitment: Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Refuse a commitment that may not compete."""
        ...

    def check_reveal(self, selection: Selection, commitment: Commitment, reveal: Reveal) -> None:
        """Refuse an opening that does not fit its commitment or its task."""
        ...

    def judge(self, case: JudgementCase) -> MeasurementRequest | Verdict | None:
        """Ask for the next measurement, give the verdict, or wait for reveals."""
        ...

    def check_header(self, parent: ChainState, selection: Selection, block: AnyBlock) -> None:
        """Refuse a block whose own fields break the paper's rules."""
        ...

    def weigh(self, block: AnyBlock, siblings: tuple[AnyBlock, ...]) -> int:
        """Say what a block adds to its branch, given all known blocks on the same parent."""
        ...

    def compute_reward(self, selection: Selection, block: AnyBlock, parameters: ChainParameters) -> Reward:
        """Say what a block mints and how its task is settled."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Join an engine's class with what builds it for so many miners on one machine, whose tasks need these durations.

    An entry point of the group `learnchain.engines` names one. `tasks` are what a local network trains where nobody
    names another, and posts too unless the engine takes no commissions. A `variant` is an engine under other
    parameters; comparisons leave it out. An engine whose work is no training needs other parameters on `simulated`
    machines, which try so many hashes a second together.
    """

    kind: type[Any]
    build_local: Callable[[LocalDurations, int], Rules]
    tasks: tuple[str, ...] = ("digits",)
    is_variant: bool = False
    accepts_posted_tasks: bool = True
    build_simulated: Callable[[LocalDurations, int], Rules] | None = None

    @property
    def about(self) -> str:
        """Return what the engine is, as the first line of its class says."""
        return (self.kind.__doc__ or "").partition("\n")[0]

    @property
    def package(self) -> str:
        """Return the package that holds the engine, with its interpretations, equations and what it is tried with."""
        return self.kind.__module__.rpartition(".")[0]
