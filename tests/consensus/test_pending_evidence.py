"""Evidence, bonds and honest publishers as the spine sees them: who pays, who is paid, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from learnchain.consensus.audits import AuditFinding, audit_seed
from learnchain.consensus.evidence import build_evidence
from learnchain.encoding.codec import WEI_PER_GWEI, encode
from learnchain.encoding.cryptography import message_hash, sign
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.actions import MeasureEvidence, ProposeBlock, ProposeEmptyBlock, RefuseBlock
from learnchain.protocol.events import (
    BlockReceived,
    CommitmentReceived,
    DeadlineMissed,
    EvidenceReported,
    KeyReleaseReceived,
)
from learnchain.protocol.messages import MAXIMUM_EVIDENCE, MAXIMUM_STATEMENT_BYTES, Block, Deadline, Evidence, Fault
from learnchain.protocol.payload import SettlementOutcome, bond_pot
from learnchain.protocol.state import BondChange, BondMove, ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, build_sample_parameters
from learnchain.simulation.sample_tasks import address, build_sample_task, private_key_of
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    open_height,
    reveal_models,
    run_empty_height,
    run_height,
    start_from_genesis,
)
from learnchain_conformance.evidence_cases import (
    REPORTER,
    build_changed_data,
    build_double_commitment,
    build_double_release,
    build_double_reveal,
    build_forged_trace,
    build_repetition,
    last_height_record,
    sign_again,
    sign_evidence,
)

BOND = 10**15
TWO = HeightPlan({"miner-1": 95, "miner-2": 90})


def chain_of(**changes: int) -> ScenarioNode:
    return start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**changes)))


def staked(*changes: BondChange, **parameters: int) -> ScenarioNode:
    """A chain whose first payload moved these bonds, and whose second height is played by two miners."""
    node = chain_of(**parameters)
    node.builder.bond_moves_by_height[1] = changes
    run_height(node)
    run_height(node, TWO)
    return node


def deposit(name: str, amount_wei: int = 3 * BOND) -> BondChange:
    return BondChange(address(name), BondMove.DEPOSITED, amount_wei)


def report(node: ScenarioNode, evidence: Evidence) -> None:
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))


def conserved(state: ChainState) -> None:
    ledger, book = state.ledger, state.bonds
    spent = ledger.paid_wei + ledger.refunded_wei + ledger.burned_wei + ledger.compensated_wei
    assert ledger.escrowed_wei == spent + ledger.locked_wei
    held = sum(each.total_wei for each in book.deposits)
    assert held == ledger.bonded_wei - ledger.unbonded_wei - ledger.slashed_wei


# --- bonds -------------------------------------------------------------------------------------------------------


def test_a_deposit_in_a_payload_covers_commitments_and_leaves_the_reward_whole() -> None:
    node = chain_of()
    node.builder.bond_moves_by_height[1] = (deposit("miner-1"),)
    run_height(node)
    assert node.parent.bonds.withheld[0].miner == address("miner-1"), "the first block came before the deposit counted"
    assert node.parent.bonds.deposit(address("miner-1")).active_wei == 3 * BOND
    run_height(node)
    assert len(node.parent.bonds.withheld) == 1
    assert sum(each.amount_gwei for each in node.parent.reward.payouts) == 2_000_000_000
    conserved(node.parent)


def test_what_leaves_covers_nothing_and_what_is_withdrawn_is_gone() -> None:
    moves = (BondChange(address("miner-1"), BondMove.LEAVING, 9 * BOND),)
    node = staked(deposit("miner-1"), *moves, BondChange(address("miner-1"), BondMove.WITHDRAWN, BOND))
    held = node.parent.bonds.deposit(address("miner-1"))
    assert (held.active_wei, held.leaving_wei) == (0, 2 * BOND)
    assert [each.height for each in node.parent.bonds.withheld] == [1, 2]
    conserved(node.parent)


def test_a_bond_that_was_kept_back_comes_back_when_no_evidence_reaches_it() -> None:
    node = chain_of(audit_window_blocks=4)
    for _ in range(5):
        run_height(node)
    kinds = [each.kind for each in node.parent.reward.payouts]
    assert "bond returned" not in kinds
    run_height(node)
    returned = [each for each in node.parent.reward.payouts if each.kind == "bond returned"]
    assert [(each.recipient, each.amount_gwei) for each in returned] == [(address("miner-1"), BOND // WEI_PER_GWEI)]
    assert [each.height for each in node.parent.bonds.withheld] == [2, 3, 4, 5, 6]


def test_a_chain_may_demand_deposits() -> None:
    node = chain_of(bond_from_reward=False)
    node.builder.bond_moves_by_height[1] = (deposit("miner-1"),)
    open_to = node.round.selection.schedule.start_milliseconds
    node.feed(KeyReleaseReceived(node.builder.build_key_release(node.parent), open_to))
    found = node.builder.build_candidate(node.parent, "miner-1", 95)
    with pytest.raises(Rejected) as refused:
        node.feed(CommitmentReceived(found.commitment, open_to + 1))
    assert refused.value.reason is RejectionReason.BOND_NOT_DEPOSITED
    block = node.builder.build_block(node.parent, (found,))
    with pytest.raises(Rejected) as refused:
        node.receive(block)
    assert refused.value.reason is RejectionReason.BOND_NOT_DEPOSITED
    run_empty_height(node, Deadline.COMMITMENT)
    assert isinstance(run_height(node), Block)
    assert node.parent.bonds.withheld == ()


# --- evidence in blocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [build_double_commitment, build_double_reveal])
def test_a_contradiction_costs_the_bond_of_a_miner(make: Callable[[ScenarioNode], Evidence]) -> None:
    node = staked(deposit("miner-1"))
    report(node, make(node))
    block = run_height(node)
    assert len(block.evidence) == 1
    pot, height = bond_pot(address("miner-1")), block.height
    slashed = [each for each in node.parent.reward.settlements if each.outcome is SettlementOutcome.SLASHED]
    assert [(each.task_id, each.height, each.recipient, each.amount_wei) for each in slashed] == [
        (pot, height, address(REPORTER), BOND // 4),
        (pot, height, address("miner-2"), BOND // 2),
        (pot, height, b"\0" * 20, BOND - BOND // 4 - BOND // 2),
    ]
    assert node.parent.bonds.deposit(address("miner-1")).total_wei == 2 * BOND
    assert node.parent.ledger.slashed_wei == BOND
    assert node.parent.history.count == 3
    conserved(node.parent)


def test_a_miner_without_coins_loses_what_was_kept_back_of_its_rewards() -> None:
    node = staked()
    report(node, build_double_commitment(node))
    run_height(node, HeightPlan({"miner-3": 95}))
    gwei = BOND // WEI_PER_GWEI
    paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
    assert paid == {address(REPORTER): gwei // 4, address("miner-2"): gwei // 2}
    assert node.parent.ledger.forfeited_gwei == gwei - gwei // 4 - gwei // 2
    assert [each.height for each in node.parent.bonds.withheld] == [2, 3], "the oldest is taken first"


def test_a_fault_is_punished_once_and_forgotten_with_its_height() -> None:
    node = staked(deposit("miner-1"), audit_window_blocks=4)
    evidence = build_double_commitment(node)
    again = build_double_commitment(node, reporter="miner-3")
    report(node, evidence)
    with pytest.raises(Rejected) as refused:
        report(node, again)
    assert refused.value.reason is RejectionReason.EVIDENCE_DOUBLE
    run_height(node)
    assert node.round.evidence == {}
    for each in (evidence, again):
        with pytest.raises(Rejected) as refused:
            report(node, each)
        assert refused.value.reason is RejectionReason.EVIDENCE_DOUBLE
    twice = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, "miner-1", 95),))
    with pytest.raises(Rejected) as refused:
        node.receive(sealed(replace(twice, evidence=(again,))))
    assert refused.value.reason is RejectionReason.EVIDENCE_DOUBLE
    for _ in range(4):
        run_height(node)
    with pytest.raises(Rejected) as refused:
        report(node, again)
    assert refused.value.reason is RejectionReason.EVIDENCE_STALE
    assert node.parent.bonds.penalties == ()


def test_one_block_punishes_at_most_two_and_the_rest_waits() -> None:
    node = staked(deposit("miner-1"), deposit("miner-2"), deposit("miner-3"))
    for miner in ("miner-1", "miner-2", "miner-3"):
        report(node, build_double_commitment(node, miner))
    first = run_height(node)
    assert len(first.evidence) == MAXIMUM_EVIDENCE
    assert len(run_height(node).evidence) == 1


def test_evidence_is_carried_by_empty_blocks_too() -> None:
    node = staked(deposit("miner-1"))
    report(node, build_double_commitment(node))
    at = node.round.selection.schedule.deadline(Deadline.KEY) + 1_000
    offers = node.feed(DeadlineMissed(node.parent.block_hash, Deadline.KEY, at))
    proposal = next(each for each in offers if isinstance(each, ProposeEmptyBlock))
    draft = node.builder.build_empty_block(node.parent, Deadline.KEY)
    block = node.builder.reseal(node.parent, draft, evidence=proposal.evidence)
    node.receive(block)
    assert node.parent.ledger.slashed_wei == BOND


WRONG: list[tuple[str, Callable[[ScenarioNode], Evidence], RejectionReason]] = [
    ("same twice", build_repetition, RejectionReason.EVIDENCE_INVALID),
    ("of itself", lambda node: build_double_commitment(node, reporter="miner-1"), RejectionReason.EVIDENCE_INVALID),
    (
        "stranger",
        lambda node: sign_again(build_double_commitment(node), offender=address("miner-3")),
        RejectionReason.EVIDENCE_INVALID,
    ),
    ("other chain", lambda node: sign_again(build_double_commitment(node), chain_id=1), RejectionReason.WRONG_CHAIN),
    ("unsigned", lambda node: replace(build_double_commitment(node), height=1), RejectionReason.WRONG_SIGNATURE),
    (
        "branch",
        lambda node: sign_again(build_double_commitment(node), parent=b"\x07" * 32),
        RejectionReason.EVIDENCE_STALE,
    ),
    ("height", lambda node: sign_again(build_double_commitment(node), height=1), RejectionReason.EVIDENCE_STALE),
    ("alone", lambda node: sign_again(build_double_commitment(node), statements=()), RejectionReason.EVIDENCE_INVALID),
    ("turned", lambda node: turned(build_double_commitment(node)), RejectionReason.EVIDENCE_INVALID),
    (
        "mixed",
        lambda node: sign_again(build_double_commitment(node), fault=Fault.DOUBLE_RELEASE),
        RejectionReason.EVIDENCE_INVALID,
    ),
    (
        "bytes",
        lambda node: sign_again(build_double_commitment(node), statements=(b"x", b"y")),
        RejectionReason.MALFORMED,
    ),
    (
        "loser",
        lambda node: sign_again(build_forged_trace(node), offender=address("miner-2")),
        RejectionReason.EVIDENCE_INVALID,
    ),
    (
        "no fault",
        lambda node: build_forged_trace(node, AuditFinding.NUMERIC_MISMATCH),
        RejectionReason.FRAUD_PROOF_INVALID,
    ),
    (
        "no opening",
        lambda node: build_forged_trace(node, AuditFinding.FAULT_BATCH_ORDER),
        RejectionReason.FRAUD_PROOF_INVALID,
    ),
    ("stolen", lambda node: resigned_by(build_forged_trace(node), "miner-3"), RejectionReason.EVIDENCE_INVALID),
]


def turned(evidence: Evidence) -> Evidence:
    return sign_again(evidence, statements=evidence.statements[::-1])


def resigned_by(evidence: Evidence, reporter: str) -> Evidence:
    return sign_evidence(replace(evidence, reporter=address(reporter)), reporter)


@pytest.mark.parametrize(("make", "reason"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_bad_evidence_is_refused_alone_and_in_a_block(
    make: Callable[[ScenarioNode], Evidence], reason: RejectionReason
) -> None:
    node = staked(deposit("miner-1"))
    evidence = make(node)
    before = node.round
    with pytest.raises(Rejected) as refused:
        report(node, evidence)
    assert refused.value.reason is reason
    draft = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, "miner-1", 95),))
    block = replace(draft, evidence=(evidence,))
    with pytest.raises(Rejected) as refused:
        node.receive(sealed(block))
    assert refused.value.reason is reason
    assert node.round == before


def sealed(block: Block) -> Block:
    """Sign a block whose evidence no state follows from; the root is not reached."""
    return sign(block, private_key_of(block.proposer))


def test_evidence_of_a_height_that_is_not_here_yet_waits() -> None:
    ahead, behind = staked(deposit("miner-1")), chain_of()
    with pytest.raises(Unavailable):
        report(behind, build_double_commitment(ahead))


# --- what is measured --------------------------------------------------------------------------------------------


def test_forged_training_costs_the_winner_its_bond_once_it_is_measured() -> None:
    node = staked(deposit("miner-1"))
    evidence = build_forged_trace(node)
    node.builder.forged.add(evidence.fault_id)
    report(node, evidence)
    assert sum(isinstance(each, MeasureEvidence) for each in node.actions) == 1
    assert run_height(node).evidence == (evidence,)
    assert node.parent.bonds.deposit(address("miner-1")).total_wei == 2 * BOND


def test_an_accusation_that_does_not_hold_is_dropped_and_its_block_refused() -> None:
    node = staked(deposit("miner-1"))
    evidence = build_forged_trace(node)
    report(node, evidence)
    assert node.round.evidence == {}
    draft = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, "miner-3", 95),))
    block = node.builder.reseal(node.parent, draft, evidence=(evidence,))
    actions = node.receive(block)
    refusals = [each.reason for each in actions if isinstance(each, RefuseBlock)]
    assert refusals == [RejectionReason.EVIDENCE_INVALID.value]
    assert node.parent.bonds.deposit(address("miner-1")).total_wei == 3 * BOND


# --- publishers --------------------------------------------------------------------------------------------------


def commissioned() -> ScenarioNode:
    """Two blocks, after which a publisher's task is selected; its bond is a hundredth of a coin."""
    node = chain_of()
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted"),)))
    run_height(node)
    assert not node.round.selection.task.is_standing
    return node


TASK_BOND = build_sample_task("wanted").task.bond_wei


def test_a_publisher_that_keeps_the_test_set_back_compensates_the_miners_that_committed() -> None:
    node = commissioned()
    start = node.round.selection.schedule.start_milliseconds
    node.feed(KeyReleaseReceived(node.builder.build_key_release(node.parent), start))
    found = tuple(node.builder.build_candidate(node.parent, each, 95) for each in ("miner-1", "miner-2"))
    for each in found:
        node.feed(CommitmentReceived(each.commitment, start + 1))
    at = node.round.selection.schedule.deadline(Deadline.RELEASE) + 1_000
    actions = node.feed(DeadlineMissed(node.parent.block_hash, Deadline.RELEASE, at))
    proposal = next(each for each in actions if isinstance(each, ProposeEmptyBlock))
    assert proposal.commitments == tuple(sorted((each.commitment for each in found), key=message_hash))
    task = node.round.selection.task
    draft = node.builder.build_empty_block(node.parent, Deadline.RELEASE)
    node.receive(node.builder.reseal(node.parent, draft, commitments=proposal.commitments))
    share = TASK_BOND // 2 // 2
    settled = [(each.task_id, each.recipient, each.outcome, each.amount_wei) for each in node.parent.reward.settlements]
    assert settled[0] == (task.task_id, b"\0" * 20, SettlementOutcome.STRUCK, 2 * share)
    paid = {(task.task_id, address(each), SettlementOutcome.SLASHED, share) for each in ("miner-1", "miner-2")}
    assert set(settled[1:]) == paid
    ledger = node.parent.ledger
    assert (ledger.compensated_wei, ledger.burned_wei) == (2 * share, TASK_BOND - 2 * share)
    assert ledger.locked_wei == 0
    conserved(node.parent)


def test_a_publisher_that_keeps_the_data_key_back_loses_its_bond_to_nobody() -> None:
    node = commissioned()
    run_empty_height(node, Deadline.KEY)
    assert node.parent.ledger.burned_wei == TASK_BOND
    conserved(node.parent)


def test_empty_blocks_list_only_signed_commitments_of_the_height() -> None:
    node = commissioned()
    one = node.builder.build_candidate(node.parent, "miner-1", 95)
    other = node.builder.build_candidate(node.parent, "miner-1", 95, variant="other")
    foreign = node.builder.build_candidate(node.round.tree.state(node.parent.parent), "miner-2", 95)
    draft = node.builder.build_empty_block(node.parent, Deadline.RELEASE)
    pair = tuple(sorted((one.commitment, other.commitment), key=message_hash))
    cases = (
        (pair, RejectionReason.COMMITMENT_DOUBLE),
        ((replace(one.commitment, bond_wei=1),), RejectionReason.WRONG_SIGNATURE),
        ((foreign.commitment,), RejectionReason.WRONG_HEIGHT),
    )
    for listed, reason in cases:
        with pytest.raises(Rejected) as refused:
            node.receive(node.builder.reseal(node.parent, draft, commitments=listed))
        assert refused.value.reason is reason


@pytest.mark.parametrize(("make", "measured"), [(build_double_release, False), (build_changed_data, True)])
def test_a_publisher_is_slashed_after_its_task_was_paid(
    make: Callable[[ScenarioNode], Evidence], measured: bool
) -> None:
    node = commissioned()
    run_height(node, TWO)
    publisher = address("publisher-1")
    assert node.parent.reward.settlements[0].outcome is SettlementOutcome.PAID
    held = node.parent.bonds.deposit(publisher)
    assert (held.active_wei, held.leaving_wei) == (0, TASK_BOND)
    evidence = make(node)
    if measured:
        node.builder.forged.add(evidence.fault_id)
    report(node, evidence)
    run_height(node, HeightPlan({"miner-3": 95}))
    slashed = {each.recipient: each.amount_wei for each in node.parent.reward.settlements}
    share = TASK_BOND // 2 // 2
    assert slashed == {
        address(REPORTER): TASK_BOND // 4,
        address("miner-1"): share,
        address("miner-2"): share,
        b"\0" * 20: TASK_BOND - TASK_BOND // 4 - 2 * share,
    }
    assert node.parent.bonds.deposit(publisher).total_wei == 0
    conserved(node.parent)


def test_two_releases_that_differ_only_in_their_date_are_two_releases() -> None:
    node = commissioned()
    run_height(node, TWO)
    fact = last_height_record(node)
    below = node.round.tree.state(fact.parent)
    found = (node.builder.build_candidate(below, "miner-1", 95),)
    pair = tuple(node.builder.build_announcement(below, found, late).release for late in (0, 1))
    evidence = build_evidence(Fault.DOUBLE_RELEASE, fact.publisher, address(REPORTER), pair)
    report(node, sign_evidence(evidence))
    assert len(node.round.evidence) == 1


# --- challenges --------------------------------------------------------------------------------------------------


def test_a_challenge_waits_for_three_trained_blocks_and_empty_ones_add_nothing() -> None:
    node = chain_of()
    run_height(node)
    chain_id = node.builder.parameters.chain_id
    seeds = []
    for plan in (HeightPlan(), None, HeightPlan({"miner-2": 91}), None, HeightPlan({"miner-3": 92})):
        facts = node.parent.bonds.height_records
        assert audit_seed(chain_id, facts[0], facts) is None
        if plan is None:
            run_empty_height(node, Deadline.KEY)
        else:
            run_height(node, plan)
    facts = node.parent.bonds.height_records
    seeds.append(audit_seed(chain_id, facts[0], facts))
    run_height(node)
    facts = node.parent.bonds.height_records
    seeds.append(audit_seed(chain_id, facts[0], facts))
    trained = tuple(each for each in facts if each.training_records)
    seeds.append(audit_seed(chain_id, facts[0], trained))
    assert len(set(seeds)) == 1
    assert seeds[0] is not None
    assert audit_seed(chain_id, facts[1], facts) != seeds[0]
    assert audit_seed(chain_id + 1, facts[0], facts) != seeds[0]
    moved = (*facts[:1], replace(facts[1], release_key=b"\x09" * 32), *facts[2:])
    assert audit_seed(chain_id, facts[0], moved) != seeds[0]
    empty = next(each for each in facts if not each.training_records)
    assert audit_seed(chain_id, empty, facts) is None, "nobody trained for an empty block"


def test_the_largest_block_with_evidence_fits_into_a_gossip_message() -> None:
    node = staked(deposit("miner-1"))
    evidence = build_double_release(node)
    full = replace(evidence, statements=(b"x" * MAXIMUM_STATEMENT_BYTES,))
    assert MAXIMUM_EVIDENCE * len(encode(full)) < 20_000


def test_a_proposal_made_before_the_evidence_came_still_stands() -> None:
    node = staked(deposit("miner-1"))
    found = open_height(node, HeightPlan())
    proposals = [each for each in reveal_models(node, HeightPlan(), found) if isinstance(each, ProposeBlock)]
    report(node, build_double_commitment(node))
    block = node.builder.build_proposed_block(proposals[0], found[0])
    node.feed(BlockReceived(block, block.end_milliseconds))
    assert node.parent.block_hash != block.parent
    assert len(node.round.evidence) == 1, "it waits for the next block"
