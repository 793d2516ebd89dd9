"""The ten questions that every engine answers, in the order of the spine; one frozen dataclass answers them.

An engine's fields are its paper's parameters. There is no base class to inherit from and no engine imports another:
a fifth protocol is a copied folder. The first docstring line of each answer says what the paper decides. What an engine
alone adds to a message stands in its `EngineParts`, apart from the ten: most engines add nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from learnchain.encoding.codec import Hash32
from learnchain.protocol import messages
from learnchain.protocol.measurement import Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState, MultiBlockPosition, Reward, Selection
from learnchain.protocol.task_specification import Cid, TaskSpecification
from learnchain.protocol.training_terms import TrainingTerms
from learnchain.rejection import Rejected, RejectionReason

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
    commitments: tuple[tuple[Hash32, messages.Commitment], ...]
    reveals: dict[Hash32, messages.Reveal]
    measurements: dict[tuple[Hash32, MeasurementKind], Measurement]
    reveals_closed: bool
    released_milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Lookahead:
    """Name the position of a task in the next height if it goes on, and when commitments to that close.

    A miner may begin it as soon as it has committed: Phase 1 of a block overlaps Phase 2 of the last (PoDL III-B).
    """

    position: MultiBlockPosition
    commitment_milliseconds: int


PartedMessage = messages.KeyRelease | messages.TrainingRecord | messages.Commitment | messages.Verdict | messages.Block
"""The messages to which an engine may add something."""


class EngineParts:
    """Answer for what an engine alone adds to messages; these are the answers of one that adds nothing (ROUND-23).

    An engine with parts derives its own, and nobody else decodes a part. Answers are pure, as all of an engine's.
    """

    def check(self, selection: Selection, message: PartedMessage) -> None:
        """Refuse a part that is malformed, or that does not belong to this message of a height."""
        refuse_part(message)

    def key_release_part(self, functional_key: Cid) -> bytes:
        """Say what a publisher adds to its key release when rows stay encrypted."""
        return b""

    def functional_key(self, release: messages.KeyRelease) -> Cid:
        """Return where the functional key of a height lies; nothing where rows are opened."""
        return b""

    def training_part(self, selection: Selection, work: Hash32, correct: int, total: int) -> bytes:
        """Say what a miner adds to the record of its run, which got so many of all training rows right."""
        return b""

    def training_count(self, record: messages.TrainingRecord) -> tuple[int, int]:
        """Return (correct, total) that a record claims on the training rows; zeros where it claims nothing."""
        return 0, 0

    def mapping_identity(self, record: messages.TrainingRecord) -> bytes:
        """Return what names the mapping layer that a model was trained behind; nothing without one."""
        return b""

    def commitment_part(self, selection: Selection, trained: messages.TrainedModel) -> bytes:
        """Say what a miner adds to its commitment to a model."""
        return b""

    def list_citable_commitments(self, selection: Selection) -> tuple[Hash32, ...]:
        """Name the losers of earlier heights that the block of this height may cite, the one to prefer first."""
        return ()

    def block_part(self, standing: tuple[messages.Reveal, ...]) -> bytes:
        """Say what a winner adds to its block when these losers may be cited and stand, the preferred first."""
        return b""

    def list_cited_losers(self, block: messages.AnyBlock) -> tuple[messages.Reveal, ...]:
        """Return the openings of the losers that a block cites."""
        return ()

    def lookahead(self, parent: ChainState, selection: Selection, parameters: ChainParameters) -> Lookahead | None:
        """Say what may be trained for the next height before this one is decided."""
        return None

    def baseline_model(self, selection: Selection) -> Cid:
        """Name the earlier model of the task that the winner's is compared with, if there is one."""
        return b""

    def baseline_count(self, verdict: messages.Verdict) -> tuple[int, int]:
        """Return (correct, total) of that earlier model on the winner's test set; zeros where none was counted."""
        return 0, 0

    def is_waived(self, verdict: messages.Verdict) -> bool:
        """Return whether the winner won without reaching what the task requires of its training."""
        return False


def refuse_part(message: PartedMessage) -> None:
    """Refuse a message that carries a part where the engine has none: nobody smuggles bytes."""
    if message.engine:
        detail = f"a {type(message).__name__} carries {len(message.engine)} bytes for an engine that adds none to it"
        raise Rejected(RejectionReason.MALFORMED, detail)


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
    """What an engine answers. Every answer is pure: no clock, disk, network, randomness or torch.

    For people, a line each: how the number is made that `Selection.score` shows, and who gets what of a block's reward.
    """

    score_formula: ClassVar[str]
    reward_formula: ClassVar[str]

    @property
    def name(self) -> str:
        """Name the consensus as `--consensus` does."""
        ...

    @property
    def parts(self) -> EngineParts:
        """Answer for what the engine alone adds to messages."""
        ...

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse a genesis that the engine cannot run with."""
        ...

    def encode_parameters(self) -> bytes:
        """Return the engine's own parameters for the genesis hash."""
        ...

    def admit_task(self, task: messages.Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Refuse a task that may not join the list."""
        ...

    def required_escrow(self, task: messages.Task) -> messages.Escrow:
        """Say what must be locked for a task, and until when."""
        ...

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Choose the task of the next height and name its deadlines."""
        ...

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Say what training must embed, as data."""
        ...

    def check_commitment(
        self, selection: Selection, commitment: messages.Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Refuse a commitment that may not compete."""
        ...

    def check_reveal(self, selection: Selection, commitment: messages.Commitment, reveal: messages.Reveal) -> None:
        """Refuse an opening that does not fit its commitment or its task."""
        ...

    def judge(self, case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
        """Ask for the next measurement, give the verdict, or wait for reveals."""
        ...

    def check_header(self, parent: ChainState, selection: Selection, block: messages.AnyBlock) -> None:
        """Refuse a block whose own fields break the paper's rules."""
        ...

    def weigh(self, block: messages.AnyBlock, siblings: tuple[messages.AnyBlock, ...]) -> int:
        """Say what a block adds to its branch, given all known blocks on the same parent."""
        ...

    def compute_reward(self, selection: Selection, block: messages.AnyBlock, parameters: ChainParameters) -> Reward:
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
