"""Disputes in any order, on blocks of both kinds: value is conserved, who shows true steps is safe, nothing hangs."""

from random import Random

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from learnchain.consensus.audits import STEP_FAULTS, AuditFinding
from learnchain.consensus.disputes import bound_commitment
from learnchain.encoding.cryptography import UNSIGNED
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.audit_messages import AuditedSegment, AuditReport, ChallengeResponse, report_digest
from learnchain.protocol.events import (
    AuditMessageReceived,
    BlockReceived,
    DisputeMessageReceived,
    Event,
    EvidenceReported,
)
from learnchain.protocol.messages import AnyBlock, Deadline, Fault, fault_id
from learnchain.protocol.state import BondChange, BondMove, Dispute, DisputeOutcome, HeightRecord
from learnchain.rejection import Rejected, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.dispute_cases import (
    build_audit_commitment,
    build_challenge,
    build_false_report_evidence,
    build_forgery_evidence,
    build_response,
    forge_steps,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    find_assignment,
    run_empty_height,
    run_height,
    start_from_genesis,
    true_middle_state_hash,
)
from learnchain_conformance.evidence_cases import build_forged_trace

MINERS = ("miner-1", "miner-2", "miner-3")
AUDITORS = ("node-1", "node-2")
ACCUSERS = ("node-3", "node-4", "miner-2")
NUMBERS = st.integers(0, 1_000)
HAPPENS = (
    "heights",
    "empty",
    "stake",
    *["audit"] * 3,
    *["ask"] * 3,
    *["response"] * 4,
    *["prove"] * 2,
    "report",
    "again",
)
HOW = ("honest", "honest", "honest", "forged", "elsewhere", "withheld")
TRAINING_FAULTS = (Fault.TRACE_FORGED, Fault.AUDIT_FALSE)
LIMITS = {"response_blocks": 5, "proof_blocks": 3, "audit_window_blocks": 24, "finality_depth": 64}


class Disputes(RuleBasedStateMachine):
    """Drive one node that proposes all it is offered; whatever it is told may be false, late or said before."""

    def __init__(self) -> None:
        super().__init__()
        self.node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**LIMITS)))
        stake_challenger(self.node, "node-3", "node-4")
        self.blocks: list[AnyBlock] = []
        self.said: list[Event] = []
        self.reports: list[AuditReport] = []
        self.answers: list[ChallengeResponse] = []
        self.liars: set[tuple[int, bytes, bytes]] = set()
        self.heights(4, "miner-1")

    def offer(self, event: Event) -> None:
        """Feed an event; what is refused leaves the round as it was."""
        before = self.node.round
        self.said.append(event)
        try:
            self.node.feed(event)
        except (Rejected, Unavailable):
            assert self.node.round == before

    @rule(what=st.sampled_from(HAPPENS), which=NUMBERS, other=NUMBERS)
    def happen(self, what: str, which: int, other: int) -> None:
        """One rule for all: what Hypothesis leaves out of a whole run would leave disputes without their next step."""
        accuser, miner = ACCUSERS[other % 3], MINERS[which % 3]
        if what == "heights":
            self.heights(1 + other % 2, miner)
        elif what == "empty":
            self.empty((Deadline.KEY, Deadline.COMMITMENT)[which % 2])
        elif what == "stake":
            self.stake(accuser, tuple(BondMove)[which % 3], 10**15 * other)
        elif what == "audit":
            self.audit(which, AUDITORS[other % 2], which % 5 != 0)
        elif what == "ask":
            self.ask(which, other % 4, accuser, which % 3 != 0)
        elif what == "response":
            self.answer(which, HOW[other % len(HOW)])
        elif what == "prove":
            self.prove(which, sorted(STEP_FAULTS)[which % 2], accuser)
        elif what == "report":
            self.report(which % 2 == 0)
        elif self.said:
            self.offer(self.said[which % len(self.said)])

    def heights(self, count: int, miner: str) -> None:
        for _ in range(count):
            for report in self.reports:
                self.offer(AuditMessageReceived(report, self.node.parent.end_milliseconds))
            rival = MINERS[MINERS.index(miner) - 1]
            self.blocks.append(run_height(self.node, HeightPlan({miner: 95, rival: 90})))

    def empty(self, missed: Deadline) -> None:
        self.blocks.append(run_empty_height(self.node, missed))

    def stake(self, accuser: str, move: BondMove, amount: int) -> None:
        staked, height = self.node.builder.bond_moves_by_height, self.node.parent.height + 1
        staked[height] = (*staked.get(height, ()), BondChange(address(accuser), move, amount))

    def audit(self, which: int, name: str, honest: bool) -> None:
        """Commit to a report on a recent height."""
        traced = [each for each in self.node.parent.bonds.height_records if each.training_records]
        fact = traced[-min(len(traced), 4 + which % 3)]
        given = find_assignment(self.node, fact, name)
        if given is None or any((each.height, each.auditor) == (fact.height, address(name)) for each in self.reports):
            return
        lines = tuple(
            AuditedSegment(
                each,
                each not in given.forced,
                true_middle_state_hash(self.node.builder, fact, given, each) if honest else b"\1" * 32,
            )
            for each in given.sample.indices
        )
        place = (self.node.builder.parameters.chain_id, fact.height, fact.parent, address(name))
        report = alter(AuditReport(*place, lines, b"\2" * 32, UNSIGNED), name)
        if not honest:
            self.liars.add((fact.height, fact.parent, address(name)))
        self.reports.append(report)
        self.offer(AuditMessageReceived(build_audit_commitment(report, name), self.node.parent.end_milliseconds))

    def ask(self, which: int, segment: int, accuser: str, auditor: bool) -> None:
        """Ask whoever trained something at a recent height for its steps, rightly or not; a block asks on."""
        book = self.node.parent.bonds
        trained = [(each, each.winner) for each in book.height_records if each.training_records]
        opened = [each for each in book.audits if each.opened_height]
        audited = [(fact, each.auditor) for each in opened if (fact := book.height_record(each.height, each.parent))]
        found = audited if auditor and audited else trained
        fact, accused = found[-1 - which % len(found)]
        accusation = build_challenge(fact, segment, accuser, respondent=accused)
        self.offer(DisputeMessageReceived(accusation, self.node.parent.end_milliseconds))
        self.heights(1, MINERS[which % 3])

    def answer(self, which: int, how: str) -> None:
        """Show the steps that somebody is asked for: true ones, made up ones, or ones that nobody can fetch."""
        book = self.node.parent.bonds
        asked = [each for each in book.disputes if bound_commitment(book, self.fact_of(each), each.respondent)]
        asked = [each for each in asked if each.outcome is DisputeOutcome.CHALLENGED] or asked
        if not asked:
            return
        dispute, steps = asked[which % len(asked)], ()
        if how in ("forged", "elsewhere"):
            self.liars.add((dispute.height, dispute.parent, dispute.respondent))
            steps = forge_steps(self.node, dispute) if how == "forged" else (b"\x09" * 32,) * 7
        message = build_response(self.node, dispute, steps)
        withheld = self.node.builder.withheld
        (withheld.add if how == "withheld" else withheld.discard)(message.disclosure.root)
        self.answers.append(message)
        self.offer(DisputeMessageReceived(message, self.node.parent.end_milliseconds))
        self.empty(Deadline.KEY)

    def prove(self, which: int, finding: AuditFinding, reporter: str) -> None:
        """Bring a proof against steps that somebody showed, rightly or not."""
        if not self.answers:
            return
        message = self.answers[-1 - which % min(4, len(self.answers))]
        fact = self.node.parent.bonds.height_record(message.height, message.parent)
        if fact is None:
            return
        if message.respondent == fact.winner:
            found = [build_forgery_evidence(self.node, message, finding, reporter)]
        else:
            own = [each for each in self.reports if report_digest(each) == message.disclosure.commitment]
            found = [build_false_report_evidence(self.node, each, message, finding, reporter) for each in own]
        for evidence in found:
            self.offer(EvidenceReported(evidence, self.node.parent.end_milliseconds))

    def report(self, holds: bool) -> None:
        """Bring evidence that needs no answer against the last winner."""
        if not self.node.parent.bonds.height_records[-1].training_records:
            return
        evidence = build_forged_trace(self.node)
        if holds:
            self.node.builder.forged.add(evidence.fault_id)
        self.offer(EvidenceReported(evidence, self.node.parent.end_milliseconds))

    def fact_of(self, dispute: Dispute) -> HeightRecord:
        fact = self.node.parent.bonds.height_record(dispute.height, dispute.parent)
        assert fact is not None, "a dispute outlives the height that it is about"
        return fact

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def value_is_conserved(self) -> None:
        ledger, book = self.node.parent.ledger, self.node.parent.bonds
        held = sum(each.total_wei for each in book.deposits)
        assert held == ledger.bonded_wei - ledger.unbonded_wei - ledger.slashed_wei
        assert all(min(each.active_wei, each.leaving_wei) >= 0 for each in book.deposits)
        assert len({each.fault_id for each in book.penalties}) == len(book.penalties)
        trained = sum(each.height <= self.node.parent.height and not _is_empty(each) for each in self.blocks)
        earned = trained * self.node.builder.parameters.block_reward_gwei + ledger.audited_gwei
        kept = sum(each.amount_gwei for each in book.withheld)
        assert earned == ledger.minted_gwei + kept + ledger.forfeited_gwei

    @invariant()
    def no_dispute_hangs(self) -> None:
        """Every dispute is answered or decided by the clock of heights, and no segment is disputed twice."""
        height, disputes = self.node.parent.height, self.node.parent.bonds.disputes
        assert len({(each.height, each.parent, each.respondent, each.segment) for each in disputes}) == len(disputes)
        for each in disputes:
            if each.outcome is DisputeOutcome.CHALLENGED:
                assert height <= each.challenged_height + LIMITS["response_blocks"]
            if each.outcome is DisputeOutcome.RESPONDED:
                assert height <= each.responded_height + LIMITS["proof_blocks"]
            assert each.is_open or each.decided_height

    @invariant()
    def whoever_shows_true_steps_is_not_punished(self) -> None:
        """Training is punished for silence, for forged words, or for what the world says was forged, and only then."""
        book = self.node.parent.bonds
        places = {(each.height, each.parent, each.respondent) for each in book.disputes}
        ended = {
            (each.height, each.parent, each.respondent)
            for each in book.disputes
            if each.outcome is DisputeOutcome.TIMED_OUT
        }
        for height, parent, accused in places - ended - self.liars:
            faults = {fault_id(each, accused, height, parent) for each in TRAINING_FAULTS}
            punished = {each.fault_id for each in book.penalties} - self.node.builder.forged
            assert not faults & punished

    def teardown(self) -> None:
        heads = set()
        for seed in range(2):
            order = list(self.blocks)
            Random(seed).shuffle(order)
            heads.add(_head_after(start_from_genesis(self.node.builder), order))
        assert heads == {self.node.round.head.block}


def _is_empty(block: AnyBlock) -> bool:
    return not hasattr(block, "reveal")


def _head_after(newcomer: ScenarioNode, blocks: list[AnyBlock]) -> bytes:
    """Deliver blocks in this order, those without a parent again later; nothing else is ever seen."""
    newcomer.builder.withheld.clear()
    waiting = blocks
    while waiting:
        early: list[AnyBlock] = []
        for block in waiting:
            try:
                newcomer.feed(BlockReceived(block, block.end_milliseconds))
            except Unavailable:
                early.append(block)
        assert len(early) < len(waiting), "a block's parent never comes"
        waiting = early
    return newcomer.round.head.block


Disputes.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestDisputes = Disputes.TestCase
