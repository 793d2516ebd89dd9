"""What the spine asks the node to do; roles carry it out, each one its own part."""

from dataclasses import dataclass

from learnchain.encoding.codec import Hash32
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import AuditCommitment, AuditReport, Challenge, ChallengeResponse
from learnchain.protocol.measurement import MeasurementRequest
from learnchain.protocol.state import BondRegistry, ChainState, HeightRecord, Selection
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import RejectionReason


@dataclass(frozen=True, slots=True)
class RefuseTask:
    """Tell the operator that a posted task was not admitted; its escrow stays refundable."""

    task_id: Hash32
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class OpenHeight:
    """Begin a height: set the timers of its schedule, fetch its data; the publisher releases the data key."""

    selection: Selection


@dataclass(frozen=True, slots=True)
class TrainModel:
    """Train the selected task; the data can be decrypted now."""

    selection: Selection
    key_release: messages.KeyRelease


@dataclass(frozen=True, slots=True)
class SendCommitment:
    """Build a payload, bind it to the trained model, and commit."""

    selection: Selection
    model: messages.TrainedModel


@dataclass(frozen=True, slots=True)
class ReleaseTestSet:
    """Close the list of commitments and open the test set; only the task's publisher can."""

    selection: Selection
    commitments: tuple[messages.Commitment, ...]


@dataclass(frozen=True, slots=True)
class RevealModel:
    """Count on the released test set and open this node's commitment, if it has one."""

    selection: Selection
    announcement: messages.ReleaseAnnouncement


@dataclass(frozen=True, slots=True)
class MeasureCandidate:
    """Measure one thing of one candidate and feed back `Measured`; `reveal` is missing for an empty block."""

    request: MeasurementRequest
    parent: ChainState
    selection: Selection
    reveal: messages.Reveal | None
    training_key: bytes
    functional_key: Cid
    test_key: bytes
    payload_hash: Hash32
    payload_cid: Cid


@dataclass(frozen=True, slots=True)
class MeasureEvidence:
    """Measure whether evidence holds, against public data, and feed back `Measured`; `book` is that of its branch."""

    request: MeasurementRequest
    evidence: messages.Evidence
    record: HeightRecord
    registry: BondRegistry


@dataclass(frozen=True, slots=True)
class MeasureResponse:
    """Fetch what an answer to an accusation names and feed back `Measured`: accepted when digests hash to its root.

    Steps that nobody can fetch could not be proven wrong; so no block with an answer is admitted before they are here.
    """

    request: MeasurementRequest
    response: ChallengeResponse
    record: HeightRecord


@dataclass(frozen=True, slots=True)
class ProposeBlock:
    """Publish the block of this verdict, if this node is the winner; `engine` is what the engine adds to it."""

    selection: Selection
    parent: ChainState
    key_release: messages.KeyRelease
    announcement: messages.ReleaseAnnouncement
    reveal: messages.Reveal
    verdict: messages.Verdict
    evidence: tuple[messages.Evidence, ...] = ()
    audits: tuple[AuditCommitment, ...] = ()
    audit_reports: tuple[AuditReport, ...] = ()
    challenges: tuple[Challenge, ...] = ()
    responses: tuple[ChallengeResponse, ...] = ()
    engine: bytes = b""


@dataclass(frozen=True, slots=True)
class ProposeEmptyBlock:
    """Publish an empty block, unless one with a lower ticket is known."""

    selection: Selection
    parent: ChainState
    missed: messages.Deadline
    end_milliseconds: int
    commitments: tuple[messages.Commitment, ...] = ()
    evidence: tuple[messages.Evidence, ...] = ()
    challenges: tuple[Challenge, ...] = ()
    responses: tuple[ChallengeResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class RefuseBlock:
    """Tell peers and operator that a pending block failed its measurements."""

    block: Hash32
    reason: str


@dataclass(frozen=True, slots=True)
class StoreBlock:
    """Write an accepted block and the state after it to disk, atomically, before anything builds on it."""

    block: messages.AnyBlock
    state: ChainState


@dataclass(frozen=True, slots=True)
class ForgetBlocks:
    """Delete empty blocks that lost, with their payloads: they come again if anybody ever trains on top of them."""

    blocks: tuple[messages.EmptyBlock, ...]


@dataclass(frozen=True, slots=True)
class MoveHead:
    """Point the execution engine, the wallets and the explorer at a new head."""

    head: messages.Head
    state: ChainState


Action = (
    RefuseTask
    | OpenHeight
    | TrainModel
    | SendCommitment
    | ReleaseTestSet
    | RevealModel
    | MeasureCandidate
    | MeasureEvidence
    | MeasureResponse
    | ProposeBlock
    | ProposeEmptyBlock
    | RefuseBlock
    | StoreBlock
    | ForgetBlocks
    | MoveHead
)
