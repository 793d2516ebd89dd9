"""Any order of events, valid or not, late, doubled or of rival branches: what must hold holds."""

from dataclasses import fields, replace
from random import Random
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from learnchain.consensus import Round, advance
from learnchain.consensus.audits import assign_segments
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.cryptography import UNSIGNED, message_hash
from learnchain.engines.contract import Rules
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl.scenario import PODL
from learnchain.engines.pole.scenario import POLE
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK
from learnchain.protocol.actions import MeasureCandidate, MeasureEvidence, ProposeBlock, ProposeEmptyBlock
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITS,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
    report_digest,
)
from learnchain.protocol.events import (
    AuditMessageReceived,
    BlockReceived,
    CommitmentReceived,
    DeadlineMissed,
    Event,
    EvidenceReported,
    KeyReleaseReceived,
    MeasurementFinished,
    ReleaseReceived,
    RevealReceived,
    RevealsClosed,
)
from learnchain.protocol.messages import (
    MAXIMUM_EVIDENCE,
    AnyBlock,
    Block,
    CandidateOutcome,
    Deadline,
    TrainedModel,
    commitment_digest,
    release_root,
    work_id,
)
from learnchain.protocol.state import BondChange, BondMove, ChainState
from learnchain.rejection import Rejected, Unavailable
from learnchain.simulation.chain_builder import MACHINE_CLASS, Candidate, ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import address, build_sample_specification, build_sample_task
from learnchain.simulation.scenario import ScenarioNode, measure, start_from_genesis, true_middle_state_hash
from learnchain_conformance.bad_inputs import BAD_INPUTS
from learnchain_conformance.evidence_cases import (
    build_changed_data,
    build_double_commitment,
    build_double_release,
    build_double_reveal,
    build_forged_trace,
)

MINERS = ("miner-1", "miner-2", "miner-3")
NUMBERS = st.integers(0, 1_000)


def snapshot(state: Round) -> Round:
    """A copy that shares no mutable part, so that a handler that writes into its argument is caught."""
    copied = {each.name: dict(value) for each in fields(state) if isinstance(value := getattr(state, each.name), dict)}
    tree = replace(state.tree, records=dict(state.tree.records), children=dict(state.tree.children))
    return replace(state, tree=tree, **copied)


class Spine(RuleBasedStateMachine):
    """Drive one node with whatever may arrive."""

    engine: ClassVar[Rules] = Dlbc()
    parameters: ClassVar[dict[str, Any]] = {"finality_depth": 64}

    def __init__(self) -> None:
        super().__init__()
        self.node = start_from_genesis(ChainBuilder(self.engine, build_sample_parameters(**self.parameters)))
        self.offered: list[Event] = []
        self.proposals: list[ProposeBlock] = []
        self.tasks = 0

    # --- what happens ---------------------------------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Feed an event and what it asks to be measured; refused events must leave the round as it was."""
        before = snapshot(self.node.round)
        self.offered.append(event)
        try:
            self.node.round, actions = advance(self.node.round, event)
        except (Rejected, Unavailable):
            assert snapshot(self.node.round) == before
            return
        for action in actions:
            if isinstance(action, ProposeBlock):
                self.proposals.append(action)
            if isinstance(action, MeasureCandidate | MeasureEvidence):
                self.offer(MeasurementFinished(measure(self.node.builder, action), self.now))

    @property
    def now(self) -> int:
        return self.node.round.selection.schedule.commitment_milliseconds

    def candidate(self, miner: str, correct: int, parent: ChainState | None = None) -> Candidate:
        exact = correct % 101
        return self.node.builder.build_candidate(parent or self.node.parent, miner, exact, variant=str(exact))

    @initialize(seed=NUMBERS)
    def first_task(self, seed: int) -> None:
        self.rival(0, 0, 90 + seed % 10, 1)

    @rule()
    def key(self) -> None:
        self.offer(KeyReleaseReceived(self.node.builder.build_key_release(self.node.parent), self.now - 600_000))

    @rule(miner=st.sampled_from(MINERS), correct=NUMBERS)
    def commit(self, miner: str, correct: int) -> None:
        self.offer(CommitmentReceived(self.candidate(miner, correct).commitment, self.now))

    @rule(corrects=st.lists(NUMBERS, min_size=0, max_size=3))
    def release(self, corrects: list[int]) -> None:
        found = tuple(self.candidate(miner, each) for miner, each in zip(MINERS, corrects, strict=False))
        announcement = self.node.builder.build_announcement(self.node.parent, found)
        self.offer(ReleaseReceived(announcement, announcement.release.released_milliseconds))

    @rule(miner=st.sampled_from(MINERS), correct=NUMBERS, lie=st.integers(-3, 3))
    def reveal(self, miner: str, correct: int, lie: int) -> None:
        candidate = self.candidate(miner, correct)
        claim = max(0, min(100, candidate.correct + lie))
        self.offer(RevealReceived(self.node.builder.build_reveal(self.node.parent, candidate, claim), self.now + 1))

    @rule()
    def close(self) -> None:
        self.offer(RevealsClosed(self.node.parent.block_hash, self.now + 35_000))

    @rule(which=NUMBERS)
    def propose(self, which: int) -> None:
        if not self.proposals:
            return
        proposal = self.proposals[which % len(self.proposals)]
        if proposal.parent.block_hash not in self.node.round.tree:
            return
        for miner in MINERS:
            candidate = self.candidate(miner, proposal.reveal.claim_correct, proposal.parent)
            if candidate.key == proposal.verdict.winner:
                self.arrive(self.node.builder.build_proposed_block(proposal, candidate))

    @rule(which=NUMBERS, miner=st.integers(0, 2), correct=NUMBERS, tasks=st.integers(0, 2))
    def rival(self, which: int, miner: int, correct: int, tasks: int) -> None:
        """A trained block on any known parent; its payload posts tasks, some of which nobody may admit."""
        parent = self.any_parent(which)
        posted = tuple(self.new_task() for _ in range(tasks))
        builder = self.node.builder
        found = tuple(
            builder.build_candidate(parent, each, (correct + index) % 101, variant=f"{correct + index}", posted=posted)
            for index, each in enumerate((MINERS[miner], MINERS[miner - 1]))
        )
        hidden = found[1:] if correct % 3 == 0 else ()
        self.arrive(builder.build_block(parent, found, hidden=hidden))

    @rule(miner=st.sampled_from(MINERS), move=st.sampled_from(BondMove), amount=st.integers(1, 3 * 10**15))
    def stake(self, miner: str, move: BondMove, amount: int) -> None:
        """Every payload on top of the head logs this too."""
        staked, height = self.node.builder.bond_moves_by_height, self.node.parent.height + 1
        staked[height] = (*staked.get(height, ()), BondChange(address(miner), move, amount))

    @rule(which=st.integers(0, 4), miner=st.sampled_from(MINERS), holds=st.booleans())
    def accuse(self, which: int, miner: str, holds: bool) -> None:
        """Report a fault of the head's height, true or not."""
        if not self.node.parent.bonds.height_records or self.node.parent.parent not in self.node.round.tree:
            return
        makers = (
            build_double_commitment,
            build_double_reveal,
            build_double_release,
            build_changed_data,
            build_forged_trace,
        )
        make = makers[which]
        evidence = make(self.node, miner) if which < 2 else make(self.node)  # type: ignore[operator]
        if holds:
            self.node.builder.forged.add(evidence.fault_id)
        self.offer(EvidenceReported(evidence, self.now))

    @rule(which=NUMBERS, name=st.sampled_from(("node-1", "node-2", "miner-2")), honest=st.booleans())
    def audit(self, which: int, name: str, honest: bool) -> None:
        """Commit to a report on a recent height, or open it; `test_dispute_properties` goes on from there."""
        book, builder = self.node.parent.bonds, self.node.builder
        facts = [each for each in book.height_records if each.training_records]
        if not facts:
            return
        fact = facts[which % len(facts)]
        given = assign_segments(book, fact, address(name), builder.parameters)
        if given is None:
            return
        lines = tuple(
            AuditedSegment(
                each,
                each not in given.forced,
                true_middle_state_hash(self.node.builder, fact, given, each) if honest else b"\1" * 32,
            )
            for each in given.sample.indices
        )
        place = (builder.parameters.chain_id, fact.height, fact.parent, address(name))
        report = alter(AuditReport(*place, lines, b"\2" * 32, UNSIGNED), name)
        commitment = alter(AuditCommitment(*place, report_digest(report), MACHINE_CLASS, UNSIGNED), name)
        for message in (commitment, report):
            self.offer(AuditMessageReceived(message, self.now))

    @rule(which=NUMBERS, missed=st.sampled_from(Deadline), miner=st.integers(0, 2))
    def punish(self, which: int, missed: Deadline, miner: int) -> None:
        """A block that carries what was reported and lists commitments, on any known parent."""
        parent, builder = self.any_parent(which), self.node.builder
        found = tuple(
            builder.build_candidate(parent, each, 90, variant="90") for each in (MINERS[miner], MINERS[miner - 1])
        )
        evidence = tuple(self.node.round.evidence.values())[:MAXIMUM_EVIDENCE]
        try:
            if which % 2:
                said = tuple(self.node.round.audits.values())
                commitments = tuple(each for each in said if isinstance(each, AuditCommitment))
                reports = tuple(each for each in said if isinstance(each, AuditReport))
                draft = builder.build_block(parent, found)
                listed = {"audits": commitments[:MAXIMUM_AUDITS], "audit_reports": reports[:MAXIMUM_AUDITS]}
                block = builder.reseal(parent, draft, evidence=evidence, **listed)
            else:
                listed = tuple(sorted((each.commitment for each in found), key=message_hash))
                empty = builder.build_empty_block(parent, missed)
                block = builder.reseal(parent, empty, evidence=evidence, commitments=listed)
        except AssertionError:
            # Nobody can compute the root of a block whose evidence its parent does not remember.
            return
        self.arrive(block)

    @rule(which=NUMBERS, missed=st.sampled_from(Deadline), proposer=st.integers(1, 3), windows=st.integers(0, 2))
    def empty(self, which: int, missed: Deadline, proposer: int, windows: int) -> None:
        parent = self.any_parent(which)
        posted = (self.new_task(),) if windows == 1 else ()
        self.arrive(self.node.builder.build_empty_block(parent, missed, f"node-{proposer}", windows, posted))

    @rule(missed=st.sampled_from(Deadline))
    def miss(self, missed: Deadline) -> None:
        at = self.node.round.selection.schedule.deadline(missed) + 1_000
        self.offer(DeadlineMissed(self.node.parent.block_hash, missed, at))

    @rule(which=NUMBERS)
    def again(self, which: int) -> None:
        self.offer(self.offered[which % len(self.offered)])

    @rule(wrong=st.sampled_from([each for each in BAD_INPUTS if each.stage != "begun"]))
    def wrong(self, wrong: object) -> None:
        found = (self.candidate("miner-1", 95), self.candidate("miner-2", 93))
        self.offer(wrong.make(self.node, found))  # type: ignore[attr-defined]

    def any_parent(self, which: int) -> ChainState:
        records = sorted(
            self.node.round.tree.records.values(), key=lambda each: (each.state.height, each.state.block_hash)
        )
        return records[-1 - which % min(4, len(records))].state

    def new_task(self) -> object:
        self.tasks += 1
        reward = 1 if self.tasks % 5 == 0 else WEI_PER_ETHER * self.tasks
        deadline = 1_800_000_000 + (2_000 if self.tasks % 4 == 0 else 10_000_000)
        return build_sample_task(f"task {self.tasks}", reward, deadline_seconds=deadline)

    def arrive(self, block: AnyBlock) -> None:
        self.offer(BlockReceived(block, block.end_milliseconds))

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def value_is_conserved(self) -> None:
        tree = self.node.round.tree
        for tip in tree.leaves():
            minted = 0
            for record in tree.branch(tip):
                state, ledger = record.state, record.state.ledger
                minted += sum(each.amount_gwei for each in state.reward.payouts)
                assert ledger.minted_gwei == minted
                waiting = (each.task for each in (*state.queued_tasks, *state.posted_tasks, *state.ongoing_task))
                assert ledger.locked_wei == sum(each.reward_wei + each.bond_wei for each in waiting)
                spent = ledger.paid_wei + ledger.refunded_wei + ledger.burned_wei + ledger.compensated_wei
                assert ledger.escrowed_wei == spent + ledger.locked_wei
                assert min(ledger.paid_wei, ledger.refunded_wei, ledger.burned_wei, ledger.compensated_wei) >= 0
                self.bonds_are_conserved(state)

    def bonds_are_conserved(self, state: ChainState) -> None:
        """Nothing is taken twice, from nobody, or from nothing; what is kept back is paid, shared out or forfeited."""
        ledger, book = state.ledger, state.bonds
        held = sum(each.total_wei for each in book.deposits)
        assert held == ledger.bonded_wei - ledger.unbonded_wei - ledger.slashed_wei
        assert all(min(each.active_wei, each.leaving_wei) >= 0 for each in book.deposits)
        assert len({each.fault_id for each in book.penalties}) == len(book.penalties)
        assert all(each.amount_gwei > 0 for each in book.withheld)

    @invariant()
    def what_engines_pay_is_minted_kept_back_or_forfeited(self) -> None:
        tree, builder = self.node.round.tree, self.node.builder
        for tip in tree.leaves():
            paid = 0
            for record in tree.branch(tip):
                if record.block is not None:
                    selection = builder.select_task(tree.state(record.block.parent))
                    answer = builder.rules.compute_reward(selection, record.block, builder.parameters)
                    paid += sum(each.amount_gwei for each in answer.payouts)
                ledger = record.state.ledger
                kept = sum(each.amount_gwei for each in record.state.bonds.withheld)
                assert paid + ledger.audited_gwei == ledger.minted_gwei + kept + ledger.forfeited_gwei

    @invariant()
    def no_uncommitted_model_wins(self) -> None:
        for record in self.node.round.tree.records.values():
            block = record.block
            if not isinstance(block, Block):
                continue
            assert release_root(block.commitments) == block.release.root
            won = next(each for each in block.commitments if message_hash(each) == block.verdict.winner)
            work = work_id(block.chain_id, block.parent, block.release.task_id, won.miner)
            opened = block.reveal
            model = TrainedModel(opened.model_cid, opened.training)
            digest = commitment_digest(work, model, opened.payload_hash, opened.payload_cid, opened.salt)
            assert digest == won.digest
            assert self.node.builder.counts[opened.model_cid] == block.verdict.correct
            assert [each.outcome for each in block.verdict.entries].count(CandidateOutcome.WINNER) == 1

    @invariant()
    def the_head_is_the_tip_of_its_branch(self) -> None:
        state = self.node.round
        assert state.selection.parent == state.head.block
        assert state.head.weight == state.root_weight + state.tree.weight(state.head.block, state.rules.weigh)

    def teardown(self) -> None:
        self.no_height_hangs()
        self.order_of_arrival_does_not_matter()

    def no_height_hangs(self) -> None:
        schedule, parent = self.node.round.selection.schedule, self.node.parent
        offers = []
        for missed in Deadline:
            at = schedule.deadline(missed) + 1_000
            offers += advance(self.node.round, DeadlineMissed(parent.block_hash, missed, at))[1]
        assert any(isinstance(each, ProposeEmptyBlock) for each in offers)

    def order_of_arrival_does_not_matter(self) -> None:
        blocks = [each.block for each in self.offered if isinstance(each, BlockReceived)]
        heads = set()
        for seed in range(3):
            order = list(blocks)
            if seed:
                Random(seed).shuffle(order)
            heads.add(head_after(start_from_genesis(self.node.builder), order))
        assert len(heads) == 1


def head_after(newcomer: ScenarioNode, blocks: list[AnyBlock]) -> tuple[bytes, int]:
    """Deliver blocks in this order, those without a parent again later; nothing else is ever seen."""
    waiting = blocks
    while waiting:
        early: list[AnyBlock] = []
        for block in waiting:
            try:
                newcomer.feed(BlockReceived(block, block.end_milliseconds))
            except Unavailable:
                early.append(block)
            except Rejected:
                continue
        if len(early) == len(waiting):
            break
        waiting = early
    return newcomer.round.head.block, newcomer.round.head.weight


Spine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    # Shrinking forty steps takes minutes; a failure is fixed by its seed and can be shrunk by hand.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestSpine = Spine.TestCase


class SpineUnderProofOfWork(Spine):
    """Drive a node of a chain that hashes: nothing is due at a fixed time."""

    engine = PROOF_OF_WORK

    @property
    def now(self) -> int:
        return self.node.round.selection.schedule.start_milliseconds + 100_000


SpineUnderProofOfWork.TestCase.settings = settings(Spine.TestCase.settings, max_examples=40)
TestSpineUnderProofOfWork = SpineUnderProofOfWork.TestCase


class SpineUnderPole(SpineUnderProofOfWork):
    """Drive a node of a chain whose rounds end by events and whose blocks cite losers."""

    engine = POLE

    @rule(which=NUMBERS, correct=NUMBERS)
    def cite(self, which: int, correct: int) -> None:
        """A block that cites whatever loser this node knows, on any parent."""
        losers = sorted(self.node.round.losers.items())
        parent = self.any_parent(which)
        won = self.node.builder.build_candidate(parent, MINERS[0], correct % 101, variant=str(correct % 101))
        cited = (losers[which % len(losers)][1],) if losers else ()
        self.arrive(self.node.builder.build_block(parent, (won,), cited=cited))

    @invariant()
    def a_height_mints_no_more_than_its_block_reward(self) -> None:
        tree = self.node.round.tree
        for tip in tree.leaves():
            trained = sum(isinstance(record.block, Block) for record in tree.branch(tip))
            assert tree.state(tip).ledger.minted_gwei <= trained * self.node.builder.parameters.block_reward_gwei


SpineUnderPole.TestCase.settings = settings(Spine.TestCase.settings, max_examples=40)
TestSpineUnderPole = SpineUnderPole.TestCase


class SpineUnderPodl(Spine):
    """Drive a node of a chain whose tasks span several blocks, each with a fresh test set and a champion to beat."""

    engine = PODL
    parameters: ClassVar[dict[str, Any]] = {
        "finality_depth": 64,
        "standing_specifications": (build_sample_specification("standing", tests=3),),
    }

    def new_task(self) -> object:
        posted = super().new_task()
        name = posted.specification.name  # type: ignore[attr-defined]
        several = build_sample_specification(name, tests=1 + self.tasks % 3)
        return build_sample_task(
            name,
            posted.task.reward_wei,  # type: ignore[attr-defined]
            specification=several,
            deadline_seconds=posted.task.deadline_seconds,  # type: ignore[attr-defined]
        )

    @invariant()
    def a_task_goes_on_or_is_settled(self) -> None:
        for record in self.node.round.tree.records.values():
            state, block = record.state, record.block
            if block is None:
                continue
            settled = {each.task_id for each in state.reward.settlements}
            for each in state.ongoing_task:
                assert each.task.task_id not in settled
                assert isinstance(block, Block)
                assert block.release.task_id == each.task.task_id

    @invariant()
    def no_task_uses_a_test_set_twice(self) -> None:
        tree = self.node.round.tree
        for tip in tree.leaves():
            used = [
                (record.block.release.task_id, record.block.release.key)
                for record in tree.branch(tip)
                if isinstance(record.block, Block) and not self.is_standing(record.block)
            ]
            assert len(set(used)) == len(used)

    def is_standing(self, block: Block) -> bool:
        """Standing tasks begin again: their data are public anyway."""
        standing = {task.task_id for task, _ in self.node.builder.parameters.standing_tasks()}
        return block.release.task_id in standing


SpineUnderPodl.TestCase.settings = settings(Spine.TestCase.settings, max_examples=40)
TestSpineUnderPodl = SpineUnderPodl.TestCase
