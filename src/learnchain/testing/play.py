"""Play heights through the spine as one node lives them: events in, actions out, measurements answered at once."""

from dataclasses import dataclass, field

from learnchain.primitives.actions import Action, MeasureCandidate, MeasureEvidence, ProposeBlock, ProposeEmptyBlock
from learnchain.primitives.audit_messages import AuditReport
from learnchain.primitives.audit_rules import Assignment, assignment
from learnchain.primitives.bonds import RoundFact
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.codec import Hash32, decode
from learnchain.primitives.events import (
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
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.measurement import Finding, MeasureKind, Measurement
from learnchain.primitives.messages import AnyBlock, Block, Deadline, EmptyBlock, Fault
from learnchain.primitives.rejection import RejectionReason
from learnchain.primitives.selection import PostedTask
from learnchain.spine import Round, advance, begin
from learnchain.testing.chain_builder import Candidate, ChainBuilder


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
            if isinstance(action, MeasureCandidate | MeasureEvidence):
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


def measure(builder: ChainBuilder, action: MeasureCandidate | MeasureEvidence) -> Measurement:
    """Answer a measurement from the builder's world, as an honest full node would."""
    if isinstance(action, MeasureEvidence):
        held = action.evidence.fault_id in builder.forged or _is_false_report(builder, action)
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


def true_witness(fact: RoundFact, given: Assignment, segment: int) -> Hash32:
    """Return what replaying a segment of made-up training comes to; a forced error comes to something of its own."""
    forced = given.seed if segment in given.forced else b""
    return tagged_hash("builder-witness", fact.block, segment.to_bytes(8, "big"), forced)


def _is_false_report(builder: ChainBuilder, action: MeasureEvidence) -> bool:
    """Return whether an auditor's witnesses are not those of the builder's world."""
    if action.evidence.fault is not Fault.AUDIT_FALSE:
        return False
    report = decode(AuditReport, action.evidence.statements[0])
    given = assignment(action.book, action.fact, report.auditor, builder.parameters)
    if given is None:
        return False
    return any(each.witness != true_witness(action.fact, given, each.segment) for each in report.lines)


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
        node.feed(Committed(each.commitment, schedule.commitment_milliseconds - 1))
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
    if not any(isinstance(each, ProposeEmptyBlock) for each in offers):
        raise AssertionError(f"no empty block is offered although {missed} was missed")
    block = node.builder.empty_block(parent, missed, proposer)
    node.receive(block)
    return block
