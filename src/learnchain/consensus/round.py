"""One node's view of the height that is being decided, and what all steps share.

What waits beside the block for a proposer: which of it still counts on a head, and what measuring it came to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from learnchain.consensus.fork_choice import BlockTree
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import Rules
from learnchain.protocol import messages
from learnchain.protocol.actions import Action, MeasureCandidate
from learnchain.protocol.audit_messages import AuditMessage, DisputeMessage
from learnchain.protocol.events import Event
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState, PostedTask, Selection
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import Rejected, RejectionReason, Unavailable

StoredBlocks = tuple[tuple[messages.AnyBlock, ChainState], ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Hold one node's view: the tree of complete blocks, the head, and the height that is being decided on it.

    `root_weight` is what lies below the tree's root. `witnessed` names what arrived in time on which parent,
    `overridden` the branches the operator accepted in spite of it. `measurements` and `asked` are keyed by
    commitment, by an empty block's hash, or by the hash of `evidence` or of an answer among `disputes`, which wait for
    the next proposer, or of one of the `losers`, which the next block may cite.
    """

    rules: Rules
    parameters: ChainParameters
    tree: BlockTree
    head: messages.Head
    selection: Selection
    root_weight: int = 0
    key_release: messages.KeyRelease | None = None
    commitments: dict[Hash32, messages.Commitment] = field(default_factory=dict)
    announcement: messages.ReleaseAnnouncement | None = None
    reveals: dict[Hash32, messages.Reveal] = field(default_factory=dict)
    reveals_closed: bool = False
    verdict: messages.Verdict | None = None
    measurements: dict[tuple[Hash32, MeasurementKind], Measurement] = field(default_factory=dict)
    requested_measurements: frozenset[tuple[Hash32, MeasurementKind]] = frozenset()
    pending_blocks: dict[Hash32, messages.AnyBlock] = field(default_factory=dict)
    unfunded_tasks: dict[tuple[Hash32, Hash32], PostedTask] = field(default_factory=dict)
    witnessed_deadlines: frozenset[tuple[Hash32, messages.Deadline]] = frozenset()
    accepted_branches: frozenset[Hash32] = frozenset()
    evidence: dict[Hash32, messages.Evidence] = field(default_factory=dict)
    audits: dict[Hash32, AuditMessage] = field(default_factory=dict)
    disputes: dict[Hash32, DisputeMessage] = field(default_factory=dict)
    losers: dict[Hash32, messages.Reveal] = field(default_factory=dict)

    @property
    def parent(self) -> ChainState:
        """Return the state after the head, on which the current height is decided."""
        return self.tree.state(self.head.block)


Transition = tuple[Round, tuple[Action, ...], tuple[Event, ...]]
"""A handler's answer: the new round, what the node must do, and which later steps follow at once."""


def request_candidate_measurement(
    state: Round,
    measure: MeasurementRequest,
    selection: Selection,
    subject: messages.Reveal | messages.EmptyBlock,
    keys: tuple[bytes, Cid, bytes],
) -> Transition:
    """Ask the node for a measurement, once; of a candidate's own assignment."""
    if (measure.candidate, measure.kind) in state.requested_measurements:
        return state, (), ()
    own = selection.select_assignment(subject.miner) if isinstance(subject, messages.Reveal) else None
    action = MeasureCandidate(
        measure,
        state.tree.state(selection.parent),
        own or selection,
        subject if isinstance(subject, messages.Reveal) else None,
        *keys,
        subject.payload_hash,
        subject.payload_cid,
    )
    return (
        replace(state, requested_measurements=state.requested_measurements | {(measure.candidate, measure.kind)}),
        (action,),
        (),
    )


def data_keys_of(rules: Rules, block: messages.Block) -> tuple[bytes, Cid, bytes]:
    """Return what opens the data that a block rests on: training rows, their products where encrypted, test set."""
    return block.key_release.key, rules.parts.functional_key(block.key_release), block.release.key


def require_current(state: Round, parent: Hash32, height: int) -> None:
    """Keep what belongs to a rival or a later block for when the head moves there; refuse what is over."""
    if parent == state.selection.parent:
        return
    if height >= state.selection.height:
        raise Unavailable(f"a head on block {parent.hex()}")
    raise Rejected(RejectionReason.WRONG_HEIGHT, f"height {height} is over, {state.selection.height} is decided now")


def add_witness(state: Round, which: messages.Deadline) -> frozenset[tuple[Hash32, messages.Deadline]]:
    """Note that what this deadline asks for came in time on the head."""
    return state.witnessed_deadlines | {(state.selection.parent, which)}


def reveal_deadline(state: Round) -> int:
    """Return the moment after which no reveal counts, given when the release came."""
    released = state.announcement.release.released_milliseconds if state.announcement else None
    return state.selection.schedule.deadline(messages.Deadline.REVEAL, released)


def candidate_key(block: messages.AnyBlock) -> Hash32:
    """Return the key under which a block's measurements are kept."""
    return block.verdict.winner if isinstance(block, messages.Block) else message_hash(block)


_Message = TypeVar("_Message")


def filter_valid(waiting: Mapping[Hash32, _Message], check: Callable[[_Message], object]) -> dict[Hash32, _Message]:
    """Return the messages that a block on this head may still carry: those that `check` does not refuse."""
    found: dict[Hash32, _Message] = {}
    for key, message in waiting.items():
        try:
            check(message)
        except Rejected:
            continue
        found[key] = message
    return found


def is_unmeasured(state: Round, key: Hash32, kind: MeasurementKind) -> bool:
    """Return whether nobody measured it yet, or what that takes was not here."""
    found = state.measurements.get((key, kind))
    return found is None or found.finding is Finding.UNAVAILABLE


def has_finding(state: Round, key: Hash32, kind: MeasurementKind, finding: Finding) -> bool:
    """Return whether measuring it came to this."""
    found = state.measurements.get((key, kind))
    return found is not None and found.finding is finding
