"""Play heights through the spine as one node lives them: events in, actions out, measurements answered at once."""

from dataclasses import dataclass, field, replace

from learnchain.consensus import Round, advance, audits, begin
from learnchain.consensus.evidence import read_audit_proof
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import tagged_hash
from learnchain.protocol.actions import (
    Action,
    MeasureCandidate,
    MeasureEvidence,
    MeasureResponse,
    ProposeBlock,
    ProposeEmptyBlock,
)
from learnchain.protocol.audit_messages import SegmentOpening
from learnchain.protocol.events import (
    BlockReceived,
    CommitmentReceived,
    DeadlineMissed,
    Event,
    KeyReleaseReceived,
    MeasurementFinished,
    ReleaseDue,
    ReleaseReceived,
    RevealReceived,
    RevealsClosed,
)
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, Fault
from learnchain.protocol.state import ChainState, HeightRecord, PostedTask
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import INTERVAL_STEPS, Candidate, ChainBuilder, build_steps
from learnchain.simulation.sample_tasks import address


@dataclass(slots=True)
class ScenarioNode:
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
            if isinstance(action, MeasureCandidate | MeasureEvidence | MeasureResponse):
                at = getattr(event, "at_milliseconds", self.round.parent.end_milliseconds)
                actions = (*actions, *self.feed(MeasurementFinished(measure(self.builder, action), at)))
        return actions

    def receive(self, block: AnyBlock) -> tuple[Action, ...]:
        """Feed a block at the moment at which its height ends."""
        return self.feed(BlockReceived(block, block.end_milliseconds))


def start_from_genesis(builder: ChainBuilder) -> ScenarioNode:
    """Return a node that has just started from genesis."""
    state, actions = begin(builder.rules, builder.parameters, builder.build_genesis())
    return ScenarioNode(builder, state, [], list(actions))


def measure(builder: ChainBuilder, action: MeasureCandidate | MeasureEvidence | MeasureResponse) -> Measurement:
    """Answer a measurement from the builder's world, as an honest full node would."""
    if isinstance(action, MeasureResponse):
        here = action.response.disclosure.root not in builder.withheld
        finding = Finding.ACCEPTED if here else Finding.UNAVAILABLE
        return Measurement(action.request.candidate, action.request.kind, finding)
    if isinstance(action, MeasureEvidence):
        held = action.evidence.fault_id in builder.forged or _is_proven(builder, action)
        finding = Finding.ACCEPTED if held else Finding.REJECTED
        reason = "" if held else RejectionReason.EVIDENCE_INVALID.value
        return Measurement(action.request.candidate, action.request.kind, finding, reason)
    candidate, kind = action.request.candidate, action.request.kind
    if kind is MeasurementKind.PAYLOAD:
        facts = builder.payloads.get(action.payload_hash)
        finding = Finding.ACCEPTED if facts is not None else Finding.UNAVAILABLE
        return Measurement(candidate, kind, finding, facts=facts)
    reveal = action.reveal
    if reveal is None or reveal.model_cid not in builder.counts:
        return Measurement(candidate, kind, Finding.UNAVAILABLE)
    if kind is MeasurementKind.BASELINE:
        baseline = builder.counts.get(builder.rules.parts.baseline_model(action.selection))
        if baseline is None:
            return Measurement(candidate, kind, Finding.UNAVAILABLE)
        return Measurement(candidate, kind, Finding.ACCEPTED, "", baseline, action.selection.test_set.rows)
    if kind is MeasurementKind.WATERMARK:
        if reveal.model_cid in builder.unwatermarked_models:
            return Measurement(candidate, kind, Finding.REJECTED, RejectionReason.WATERMARK_MISSING.value)
        return Measurement(candidate, kind, Finding.ACCEPTED)
    if kind is MeasurementKind.TRAINING:
        claimed, total = builder.rules.parts.training_count(reveal.training)
        right = builder.trained.get(reveal.model_cid, claimed)
        found = Finding.ACCEPTED if right == claimed else Finding.REJECTED
        reason = "" if right == claimed else RejectionReason.CLAIM_NOT_EXACT.value
        return Measurement(candidate, kind, found, reason, right, total)
    correct = builder.counts[reveal.model_cid]
    exact = correct == reveal.claim_correct
    finding, reason = (Finding.ACCEPTED, "") if exact else (Finding.REJECTED, RejectionReason.CLAIM_NOT_EXACT.value)
    return Measurement(candidate, kind, finding, reason, correct, reveal.claim_total)


def find_assignment(node: ScenarioNode, fact: HeightRecord, name: str) -> audits.AuditAssignment | None:
    """Return what an auditor is given of a height, as the head's book has it."""
    return audits.assign_segments(node.parent.bonds, fact, address(name), node.builder.parameters)


def true_start_hash(opening: SegmentOpening, given: audits.AuditAssignment) -> Hash32:
    """Return the state from which an auditor begins a segment: the committed one, or one corrupted by its seed."""
    first = opening.first.digest
    return tagged_hash("builder-corrupted", first, given.seed) if opening.index in given.forced else first


def replay_true_steps(
    builder: ChainBuilder, opening: SegmentOpening, given: audits.AuditAssignment
) -> tuple[Hash32, ...]:
    """Return what replaying comes to: a forced error ends in a state of its own, and so does what nobody trained."""
    start = true_start_hash(opening, given)
    other = opening.index in given.forced or opening.following.digest in builder.untrained
    end = tagged_hash("builder-end", start) if other else opening.following.digest
    return build_steps(start, end)


def open_winner_segment(builder: ChainBuilder, fact: HeightRecord, segment: int) -> SegmentOpening:
    """Return the opening of a segment of a height's winner."""
    return audits.open_segment(builder.traces[fact.training_records[0].state_root], segment)


def true_middle_state_hash(
    builder: ChainBuilder, fact: HeightRecord, given: audits.AuditAssignment, segment: int
) -> Hash32:
    """Return the state in a segment's middle, which an honest auditor names."""
    return replay_true_steps(builder, open_winner_segment(builder, fact, segment), given)[INTERVAL_STEPS // 2]


def _is_proven(builder: ChainBuilder, action: MeasureEvidence) -> bool:
    """Return whether steps with which somebody answered are impossible, or no replay of what it reported."""
    evidence = action.evidence
    if evidence.fault not in (Fault.TRACE_FORGED, Fault.AUDIT_FALSE):
        return False
    proof = audits.decode_fraud_proof(evidence.statements[-1])
    if proof.finding is audits.AuditFinding.FAULT_OUT_OF_BOUNDS:
        return proof.disclosures[0].root in builder.impossible
    if proof.finding is not audits.AuditFinding.FAULT_STEP_CHAIN:
        return False
    steps, opening = builder.steps[proof.disclosures[0].root], proof.segments[0]
    if evidence.fault is Fault.TRACE_FORGED:
        return (steps[0], steps[-1]) != (opening.first.digest, opening.following.digest)
    report, _ = read_audit_proof(evidence, action.record, action.registry)
    given = audits.assign_segments(action.registry, action.record, report.auditor, builder.parameters)
    if given is None:
        return False
    line = next(each for each in report.segments if each.segment == opening.index)
    return not audits.is_report_supported(line, opening, true_start_hash(opening, given), steps)


@dataclass(frozen=True, slots=True)
class HeightPlan:
    """Say who competes with which model at a height, who claims something else, and who keeps silent.

    `posted` are the tasks that the winner's payload posts.
    """

    correct: dict[str, int] = field(default_factory=lambda: {"miner-1": 95})
    claims: dict[str, int] = field(default_factory=dict)
    silent_miners: frozenset[str] = frozenset()
    posted_tasks: tuple[PostedTask, ...] = ()


def build_candidates(node: ScenarioNode, plan: HeightPlan) -> tuple[Candidate, ...]:
    """Return the plan's candidates on the node's present head."""
    return tuple(
        node.builder.build_candidate(node.parent, miner, correct, posted=plan.posted_tasks)
        for miner, correct in plan.correct.items()
    )


def open_height(node: ScenarioNode, plan: HeightPlan) -> tuple[Candidate, ...]:
    """Play a height through key, commitments and release; return the candidates."""
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    found = build_candidates(node, plan)
    for each in found:
        last = schedule.time_limit_milliseconds or schedule.commitment_milliseconds
        node.feed(CommitmentReceived(each.commitment, last - 1))
    node.feed(ReleaseDue(parent.block_hash, schedule.release_opens_milliseconds))
    node.feed(ReleaseReceived(node.builder.build_announcement(parent, found), schedule.release_opens_milliseconds))
    return found


def reveal_models(node: ScenarioNode, plan: HeightPlan, candidates: tuple[Candidate, ...]) -> tuple[Action, ...]:
    """Play the reveals and close them; return the actions, among them the proposal if somebody won."""
    schedule, parent = node.round.selection.schedule, node.parent
    released = schedule.release_opens_milliseconds
    actions: tuple[Action, ...] = ()
    for each in candidates:
        if each.miner not in plan.silent_miners:
            reveal = node.builder.build_reveal(parent, each, plan.claims.get(each.miner))
            actions = (*actions, *node.feed(RevealReceived(reveal, released + 1)))
    closed = schedule.deadline(Deadline.REVEAL, released)
    return (*actions, *node.feed(RevealsClosed(parent.block_hash, closed)))


def run_height(node: ScenarioNode, plan: HeightPlan | None = None) -> Block:
    """Play one trained height from the key release to the accepted block; return the block."""
    chosen = plan or HeightPlan()
    found = open_height(node, chosen)
    proposals = [each for each in reveal_models(node, chosen, found) if isinstance(each, ProposeBlock)]
    block = build_proposed_block(node.builder, proposals[0], found)
    node.receive(block)
    return block


def build_proposed_block(builder: ChainBuilder, proposal: ProposeBlock, candidates: tuple[Candidate, ...]) -> Block:
    """Return the block that the winner of a verdict signs."""
    winner = next(each for each in candidates if each.key == proposal.verdict.winner)
    return builder.build_proposed_block(proposal, winner)


def run_empty_height(node: ScenarioNode, missed: Deadline, proposer: str = "node-1") -> EmptyBlock:
    """End the present height with an empty block, as soon as the missed deadline allows it; return the block."""
    schedule, parent = node.round.selection.schedule, node.parent
    at = schedule.deadline(missed) + node.builder.parameters.empty_window_milliseconds
    offers = node.feed(DeadlineMissed(parent.block_hash, missed, at))
    offer = next((each for each in offers if isinstance(each, ProposeEmptyBlock)), None)
    if offer is None:
        raise AssertionError(f"no empty block is offered although {missed} was missed")
    draft = node.builder.build_empty_block(parent, missed, proposer)
    draft = replace(draft, commitments=offer.commitments)
    beside = {"evidence": offer.evidence, "challenges": offer.challenges, "responses": offer.responses}
    block: EmptyBlock = node.builder.reseal(parent, draft, **beside)
    node.receive(block)
    return block
