"""Play heights through the spine as one node lives them: events in, actions out, measurements answered at once."""

from dataclasses import dataclass, field, replace

from learnchain.consensus import Round, advance, begin
from learnchain.consensus.audits import Assignment, AuditFinding, agrees, assignment, decode_fraud_proof, open_segment
from learnchain.consensus.evidence import audit_proof
from learnchain.encoding.codec import Hash32
from learnchain.encoding.hashing import tagged_hash
from learnchain.protocol.actions import (
    Action,
    MeasureAnswer,
    MeasureCandidate,
    MeasureEvidence,
    ProposeBlock,
    ProposeEmptyBlock,
)
from learnchain.protocol.dispute_messages import SegmentOpening
from learnchain.protocol.events import (
    BlockReceived,
    Committed,
    DeadlineMissed,
    Event,
    KeyReleased,
    Measured,
    Released,
    ReleaseDue,
    Revealed,
    RevealsClosed,
)
from learnchain.protocol.measurement import Finding, MeasureKind, Measurement
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, Fault
from learnchain.protocol.selection import PostedTask
from learnchain.protocol.state import ChainState, RoundFact
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import INTERVAL_STEPS, Candidate, ChainBuilder, steps_between
from learnchain.simulation.sample_tasks import address


@dataclass(slots=True)
class Observer:
    """Be one node: hold its round, answer what it asks to be measured, remember events and actions."""

    builder: ChainBuilder
    round: Round
    events: list[Event] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    @property
    def parent(self) -> ChainState:
        """Return the state on which the current height is decided."""
        return self.round.parent

    def feed(self, event: Event) -> tuple[Action, ...]:
        """Advance by an event and by the measurements it asks for; return all actions."""
        self.round, actions = advance(self.round, event)
        self.events.append(event)
        self.actions.extend(actions)
        for action in actions:
            if isinstance(action, MeasureCandidate | MeasureEvidence | MeasureAnswer):
                at = getattr(event, "at_milliseconds", self.round.parent.end_milliseconds)
                actions = (*actions, *self.feed(Measured(measure(self.builder, action), at)))
        return actions

    def receive(self, block: AnyBlock) -> tuple[Action, ...]:
        """Feed a block at the moment at which its height ends."""
        return self.feed(BlockReceived(block, block.end_milliseconds))


def observe(builder: ChainBuilder) -> Observer:
    """Return a node that has just started from genesis."""
    state, actions = begin(builder.rules, builder.parameters, builder.genesis())
    return Observer(builder, state, [], list(actions))


def measure(builder: ChainBuilder, action: MeasureCandidate | MeasureEvidence | MeasureAnswer) -> Measurement:
    """Answer a measurement from the builder's world, as an honest full node would."""
    if isinstance(action, MeasureAnswer):
        here = action.answer.answer.root not in builder.withheld
        finding = Finding.ACCEPTED if here else Finding.UNAVAILABLE
        return Measurement(action.measure.candidate, action.measure.kind, finding)
    if isinstance(action, MeasureEvidence):
        held = action.evidence.fault_id in builder.forged or _is_proven(builder, action)
        finding = Finding.ACCEPTED if held else Finding.REJECTED
        reason = "" if held else RejectionReason.EVIDENCE_INVALID.value
        return Measurement(action.measure.candidate, action.measure.kind, finding, reason)
    candidate, kind = action.measure.candidate, action.measure.kind
    if kind is MeasureKind.PAYLOAD:
        facts = builder.payloads.get(action.payload_hash)
        finding = Finding.ACCEPTED if facts is not None else Finding.UNAVAILABLE
        return Measurement(candidate, kind, finding, facts=facts)
    reveal = action.reveal
    if reveal is None or reveal.model_cid not in builder.counts:
        return Measurement(candidate, kind, Finding.UNAVAILABLE)
    if kind is MeasureKind.BASELINE:
        baseline = builder.counts.get(action.selection.baseline)
        if baseline is None:
            return Measurement(candidate, kind, Finding.UNAVAILABLE)
        return Measurement(candidate, kind, Finding.ACCEPTED, "", baseline, action.selection.test.rows)
    if kind is MeasureKind.WATERMARK:
        if reveal.model_cid in builder.unmarked:
            return Measurement(candidate, kind, Finding.REJECTED, RejectionReason.WATERMARK_MISSING.value)
        return Measurement(candidate, kind, Finding.ACCEPTED)
    if kind is MeasureKind.TRAINING:
        said = reveal.training
        right = builder.trained.get(reveal.model_cid, said.correct)
        found = Finding.ACCEPTED if right == said.correct else Finding.REJECTED
        reason = "" if right == said.correct else RejectionReason.CLAIM_NOT_EXACT.value
        return Measurement(candidate, kind, found, reason, right, said.total)
    correct = builder.counts[reveal.model_cid]
    exact = correct == reveal.claim_correct
    finding, reason = (Finding.ACCEPTED, "") if exact else (Finding.REJECTED, RejectionReason.CLAIM_NOT_EXACT.value)
    return Measurement(candidate, kind, finding, reason, correct, reveal.claim_total)


def assigned(node: Observer, fact: RoundFact, name: str) -> Assignment | None:
    """Return what an auditor is given of a height, as the head's book has it."""
    return assignment(node.parent.bonds, fact, address(name), node.builder.parameters)


def true_start(opening: SegmentOpening, given: Assignment) -> Hash32:
    """Return the state from which an auditor begins a segment: the committed one, or one corrupted by its seed."""
    first = opening.first.digest
    return tagged_hash("builder-corrupted", first, given.seed) if opening.index in given.forced else first


def true_steps(builder: ChainBuilder, opening: SegmentOpening, given: Assignment) -> tuple[Hash32, ...]:
    """Return what replaying comes to: a forced error ends in a state of its own, and so does what nobody trained."""
    start = true_start(opening, given)
    other = opening.index in given.forced or opening.following.digest in builder.untrained
    end = tagged_hash("builder-end", start) if other else opening.following.digest
    return steps_between(start, end)


def opened_segment(builder: ChainBuilder, fact: RoundFact, segment: int) -> SegmentOpening:
    """Return the opening of a segment of a height's winner."""
    return open_segment(builder.traces[fact.training[0].state_root], segment)


def true_witness(builder: ChainBuilder, fact: RoundFact, given: Assignment, segment: int) -> Hash32:
    """Return the state in a segment's middle, which an honest auditor names."""
    return true_steps(builder, opened_segment(builder, fact, segment), given)[INTERVAL_STEPS // 2]


def _is_proven(builder: ChainBuilder, action: MeasureEvidence) -> bool:
    """Return whether steps with which somebody answered are impossible, or no replay of what it reported."""
    evidence = action.evidence
    if evidence.fault not in (Fault.TRACE_FORGED, Fault.AUDIT_FALSE):
        return False
    proof = decode_fraud_proof(evidence.statements[-1])
    if proof.finding is AuditFinding.FAULT_OUT_OF_BOUNDS:
        return proof.answers[0].root in builder.impossible
    if proof.finding is not AuditFinding.FAULT_STEP_CHAIN:
        return False
    steps, opening = builder.steps[proof.answers[0].root], proof.segments[0]
    if evidence.fault is Fault.TRACE_FORGED:
        return (steps[0], steps[-1]) != (opening.first.digest, opening.following.digest)
    report, _ = audit_proof(evidence, action.fact, action.book)
    given = assignment(action.book, action.fact, report.auditor, builder.parameters)
    if given is None:
        return False
    line = next(each for each in report.lines if each.segment == opening.index)
    return not agrees(line, opening, true_start(opening, given), steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """Say who competes with which model at a height, who claims something else, and who keeps silent.

    `posted` are the tasks that the winner's payload posts.
    """

    correct: dict[str, int] = field(default_factory=lambda: {"miner-1": 95})
    claims: dict[str, int] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    posted: tuple[PostedTask, ...] = ()


def candidates(node: Observer, plan: Plan) -> tuple[Candidate, ...]:
    """Return the plan's candidates on the node's present head."""
    return tuple(
        node.builder.candidate(node.parent, miner, correct, posted=plan.posted)
        for miner, correct in plan.correct.items()
    )


def open_height(node: Observer, plan: Plan) -> tuple[Candidate, ...]:
    """Play a height through key, commitments and release; return the candidates."""
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleased(node.builder.key_release(parent), schedule.start_milliseconds))
    found = candidates(node, plan)
    for each in found:
        last = schedule.time_limit_milliseconds or schedule.commitment_milliseconds
        node.feed(Committed(each.commitment, last - 1))
    node.feed(ReleaseDue(parent.block_hash, schedule.release_opens_milliseconds))
    node.feed(Released(node.builder.announcement(parent, found), schedule.release_opens_milliseconds))
    return found


def reveal_models(node: Observer, plan: Plan, found: tuple[Candidate, ...]) -> tuple[Action, ...]:
    """Play the reveals and close them; return the actions, among them the proposal if somebody won."""
    schedule, parent = node.round.selection.schedule, node.parent
    released = schedule.release_opens_milliseconds
    actions: tuple[Action, ...] = ()
    for each in found:
        if each.miner not in plan.silent:
            reveal = node.builder.reveal(parent, each, plan.claims.get(each.miner))
            actions = (*actions, *node.feed(Revealed(reveal, released + 1)))
    closed = schedule.deadline(Deadline.REVEAL, released)
    return (*actions, *node.feed(RevealsClosed(parent.block_hash, closed)))


def play_height(node: Observer, plan: Plan | None = None) -> Block:
    """Play one trained height from the key release to the accepted block; return the block."""
    chosen = plan or Plan()
    found = open_height(node, chosen)
    proposals = [each for each in reveal_models(node, chosen, found) if isinstance(each, ProposeBlock)]
    block = proposed(node.builder, proposals[0], found)
    node.receive(block)
    return block


def proposed(builder: ChainBuilder, proposal: ProposeBlock, found: tuple[Candidate, ...]) -> Block:
    """Return the block that the winner of a verdict signs."""
    winner = next(each for each in found if each.key == proposal.verdict.winner)
    return builder.from_verdict(proposal, winner)


def play_empty(node: Observer, missed: Deadline, proposer: str = "node-1") -> EmptyBlock:
    """End the present height with an empty block, as soon as the missed deadline allows it; return the block."""
    schedule, parent = node.round.selection.schedule, node.parent
    at = schedule.deadline(missed) + node.builder.parameters.empty_window_milliseconds
    offers = node.feed(DeadlineMissed(parent.block_hash, missed, at))
    offer = next((each for each in offers if isinstance(each, ProposeEmptyBlock)), None)
    if offer is None:
        raise AssertionError(f"no empty block is offered although {missed} was missed")
    draft = node.builder.empty_block(parent, missed, proposer)
    draft = replace(draft, commitments=offer.commitments)
    beside = {"evidence": offer.evidence, "accusations": offer.accusations, "answers": offer.answers}
    block: EmptyBlock = node.builder.resealed(parent, draft, **beside)
    node.receive(block)
    return block
