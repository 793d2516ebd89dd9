"""What consensus knows of bonds: who staked what, whose reward waits, what recent heights rested on, who was punished.

Bonds lie in the escrow contract; this book follows its events and runs ahead of it where consensus has decided and
nobody has claimed yet. A miner without coins starts all the same: its first bond is kept back from its block reward.

Step 10: what a block pays and takes beside its engine's answer: bonds withheld, returned, slashed and compensated.

Engines answer for their papers alone (`payouts`); what follows from bonds and evidence is the same for all of them.
A slashed bond goes a quarter to the reporter and half to those who were harmed in equal parts; the rest is burned,
so that nobody gains by harming and reporting itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from learnchain.consensus.disputes import add_challenge, add_response, determine_fault, has_been_penalised
from learnchain.encoding.codec import WEI_PER_GWEI, Address, decode
from learnchain.protocol import messages, state
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome, bond_pot
from learnchain.rejection import Rejected, RejectionReason


def check_bond_cover(book: state.BondRegistry, commitment: messages.Commitment, bond_from_reward: bool) -> None:
    """Refuse a commitment whose bond is neither deposited nor, where the chain allows it, kept back (BOND-1)."""
    if not bond_from_reward and not book.has_cover_for(commitment):
        detail = f"0x{commitment.miner.hex()} staked less than the {commitment.bond_wei} wei it commits"
        raise Rejected(RejectionReason.BOND_NOT_DEPOSITED, detail)


def compute_withheld_gwei(book: state.BondRegistry, block: messages.Block, payout_gwei: int) -> int:
    """Return what is kept back of the winner's payout: the bond it did not deposit, at most all of it."""
    commitment = state.winning_commitment(block)
    missing_wei = 0 if commitment is None or book.has_cover_for(commitment) else commitment.bond_wei
    return min(payout_gwei, -(-missing_wei // WEI_PER_GWEI))


REPORTER_PART = 4

HARMED_PART = 2
"""One part in so many of what is taken; what is left over is burned."""

FALSE_AUDIT_FEES = 4
"""Fees that a false report costs: more than the one it would have earned, so that guessing does not pay."""

BURNED_PART = 4
"""One part in so many of what a failed accusation costs; the rest goes to the accused."""

BURN_ADDRESS: Address = b"\0" * 20


@dataclass(frozen=True, slots=True)
class PenaltyResult:
    """Hold what a block pays, settles and leaves in the book; `burned_gwei` was kept back and is never minted."""

    payouts: tuple[messages.Payout, ...]
    settlements: tuple[Settlement, ...]
    registry: state.BondRegistry
    burned_gwei: int = 0
    withheld_gwei: int = 0
    audited_gwei: int = 0


@dataclass(frozen=True, slots=True)
class Penalty:
    """Name who pays for which fault, to whose credit, and how much if it can."""

    fault: messages.Fault
    offender: Address
    reporter: Address
    amount_wei: int


def apply_penalties(
    book: state.BondRegistry,
    selection: state.Selection,
    block: messages.AnyBlock,
    answer: tuple[tuple[messages.Payout, ...], tuple[Settlement, ...]],
    parameters: ChainParameters,
) -> PenaltyResult:
    """Return what a checked block comes to, from the book of its parent and its engine's payouts and settlements."""
    payouts, settlements = answer
    result = _withhold_bond(PenaltyResult(payouts, _compensate_miners(selection, block, settlements), book), block)
    result = _return_withheld(result, block.height - parameters.audit_window_blocks)
    if isinstance(block, messages.Block):
        result = _pay_audits(result, block, parameters)
    for shown in block.responses:
        result = replace(result, registry=add_response(result.registry, shown, block.height))
    for evidence in block.evidence:
        result = _penalise_offenders(result, evidence, block.height, parameters)
    result = _close_overdue_disputes(result, block.height, parameters)
    for accusation in block.challenges:
        result = replace(result, registry=add_challenge(result.registry, accusation, block.height))
    return _release_publisher_bond(result, selection, settlements)


def add_height_record(
    book: state.BondRegistry, fact: state.HeightRecord, parameters: ChainParameters
) -> state.BondRegistry:
    """Return the book with one more height, without those that no evidence reaches any more."""
    oldest = fact.height + 1 - parameters.audit_window_blocks
    facts = tuple(each for each in book.height_records if each.height >= oldest)
    punished = tuple(each for each in book.penalties if each.height >= oldest)
    audits = tuple(each for each in book.audits if each.height >= oldest)
    disputes = tuple(each for each in book.disputes if each.height >= oldest)
    return replace(book, height_records=(*facts, fact), penalties=punished, audits=audits, disputes=disputes)


def penalty_wei(evidence: messages.Evidence, fact: state.HeightRecord, parameters: ChainParameters) -> int:
    """Return the bond that an offence costs: the task's, the one a miner promised, or audit fees (BOND-5)."""
    if evidence.fault in messages.PUBLISHER_FAULTS:
        return fact.task_bond_wei
    if evidence.fault is messages.Fault.DOUBLE_COMMITMENT:
        return max(decode(messages.Commitment, each).bond_wei for each in evidence.statements)
    return training_penalty_wei(fact, evidence.offender, parameters)


def training_penalty_wei(fact: state.HeightRecord, trainer: Address, parameters: ChainParameters) -> int:
    """Return what it costs not to have trained as one said: the winner its bond, an auditor some fees."""
    if trainer == fact.winner:
        return fact.bond_wei
    return FALSE_AUDIT_FEES * parameters.audit_reward_gwei * WEI_PER_GWEI


def _compensate_miners(
    selection: state.Selection, block: messages.AnyBlock, settlements: tuple[Settlement, ...]
) -> tuple[Settlement, ...]:
    """Compensate the miners whom a publisher left without a test set out of its struck bond (BOND-7)."""
    if not isinstance(block, messages.EmptyBlock) or block.missed is not messages.Deadline.RELEASE:
        return settlements
    result: list[Settlement] = []
    for each in settlements:
        if each.outcome is not SettlementOutcome.STRUCK:
            result.append(each)
            continue
        task = selection.tasks[each.task_id].task
        of_task = (commitment.miner for commitment in block.commitments if commitment.task_id == task.task_id)
        harmed = [miner for miner in of_task if miner != task.publisher]
        share = task.bond_wei // HARMED_PART // max(1, len(harmed))
        shares = [
            Settlement(each.task_id, block.height, miner, SettlementOutcome.SLASHED, share) for miner in harmed if share
        ]
        result += [replace(each, amount_wei=share * len(shares)), *shares]
    return tuple(result)


def _return_withheld(result: PenaltyResult, before_height: int) -> PenaltyResult:
    """Pay what was kept back of winners' rewards once no evidence reaches their blocks any more."""
    due = [each for each in result.registry.withheld if each.height < before_height]
    if not due:
        return result
    rest = tuple(each for each in result.registry.withheld if each.height >= before_height)
    paid = tuple(messages.Payout(each.miner, each.amount_gwei, "bond returned") for each in due)
    return replace(result, payouts=(*result.payouts, *paid), registry=replace(result.registry, withheld=rest))


def _pay_audits(result: PenaltyResult, block: messages.Block, parameters: ChainParameters) -> PenaltyResult:
    """Take down who audits what; pay for opened reports, but keep the pay back as long as evidence counts (AUDIT-4).

    So whoever has no coins earns its first ones here, and has something to lose.
    """
    entries = [
        state.AuditEntry(each.height, each.parent, each.auditor, each.digest, block.height) for each in block.audits
    ]
    opened = {(each.height, each.parent, each.auditor) for each in block.audit_reports}
    known = [
        replace(each, opened_height=block.height) if (each.height, each.parent, each.auditor) in opened else each
        for each in result.registry.audits
    ]
    fee = parameters.audit_reward_gwei
    pay = tuple(state.WithheldReward(each.auditor, fee, block.height) for each in block.audit_reports)
    book = replace(result.registry, audits=(*known, *entries), withheld=(*result.registry.withheld, *pay))
    return replace(result, registry=book, audited_gwei=fee * len(pay))


def _penalise_offenders(
    result: PenaltyResult, evidence: messages.Evidence, height: int, parameters: ChainParameters
) -> PenaltyResult:
    """Take the bond of whoever evidence is about."""
    fact = result.registry.height_record(evidence.height, evidence.parent)
    if fact is None:
        raise AssertionError("evidence was not checked before it was judged")
    wanted_wei = penalty_wei(evidence, fact, parameters)
    return _slash_offender(
        result, fact, Penalty(evidence.fault, evidence.offender, evidence.reporter, wanted_wei), height
    )


def _slash_offender(result: PenaltyResult, fact: state.HeightRecord, conviction: Penalty, height: int) -> PenaltyResult:
    """Take an offender's bond, deposited or kept back, and share it out (BOND-6)."""
    book, offender = result.registry, conviction.offender
    taken_wei = min(conviction.amount_wei, book.deposit(offender).total_wei)
    forfeited, withheld = _forfeit_withheld(
        book.withheld, offender, -(-(conviction.amount_wei - taken_wei) // WEI_PER_GWEI)
    )
    # Other auditors are not paid for a false report: two that guess would share each other's fines.
    competitors = () if conviction.fault is messages.Fault.AUDIT_FALSE else fact.committed_miners
    harmed = [each for each in competitors if each != offender]
    slashed = [
        Settlement(bond_pot(offender), height, recipient, SettlementOutcome.SLASHED, amount)
        for recipient, amount in _split_shares(taken_wei, conviction.reporter, harmed)
    ]
    shares = [
        (who, amount) for who, amount in _split_shares(forfeited, conviction.reporter, harmed) if who != BURN_ADDRESS
    ]
    fault = state.PenaltyRecord(messages.fault_id(conviction.fault, offender, fact.height, fact.parent), fact.height)
    return replace(
        result,
        payouts=(
            *result.payouts,
            *(messages.Payout(recipient, amount, "slashed bond") for recipient, amount in shares),
        ),
        settlements=(*result.settlements, *slashed),
        registry=replace(book.slash(offender, taken_wei), withheld=withheld, penalties=(*book.penalties, fault)),
        burned_gwei=result.burned_gwei + forfeited - sum(amount for _, amount in shares),
    )


def _close_overdue_disputes(result: PenaltyResult, height: int, parameters: ChainParameters) -> PenaltyResult:
    """End the disputes whose time is over: silence costs the bond, a vain accusation its cost (AUDIT-7)."""
    disputes: list[state.Dispute] = []
    for dispute in result.registry.disputes:
        outcome = dispute.outcome
        if dispute.is_open:
            result, outcome = _decide_dispute(result, dispute, height, parameters)
        ended = outcome is not dispute.outcome
        disputes.append(replace(dispute, outcome=outcome, decided_height=height) if ended else dispute)
    return replace(result, registry=replace(result.registry, disputes=tuple(disputes)))


def _decide_dispute(
    result: PenaltyResult, dispute: state.Dispute, height: int, parameters: ChainParameters
) -> tuple[PenaltyResult, state.DisputeOutcome]:
    """Return what a block of this height makes of an open dispute."""
    fact = result.registry.height_record(dispute.height, dispute.parent)
    if fact is None:
        raise AssertionError("a dispute outlives the height that it is about")
    if has_been_penalised(result.registry, fact, dispute.respondent):
        return result, state.DisputeOutcome.FRAUD_PROVEN
    answered = dispute.outcome is state.DisputeOutcome.RESPONDED
    if not answered and height > dispute.challenged_height + parameters.response_blocks:
        wanted_wei = training_penalty_wei(fact, dispute.respondent, parameters)
        fault = determine_fault(fact, dispute.respondent)
        conviction = Penalty(fault, dispute.respondent, dispute.challenger, wanted_wei)
        return _slash_offender(result, fact, conviction, height), state.DisputeOutcome.TIMED_OUT
    if answered and height > dispute.responded_height + parameters.proof_blocks:
        return _charge_challenger(result, dispute, height, parameters), state.DisputeOutcome.DEFENDED
    return result, dispute.outcome


def _charge_challenger(
    result: PenaltyResult, dispute: state.Dispute, height: int, parameters: ChainParameters
) -> PenaltyResult:
    """Let the accuser pay the accused for training a segment again; a part is burned, so that friends pay as well.

    Else a forger would have a friend dispute all that others could, and lose nothing by it.
    """
    cost_wei = parameters.challenge_cost_gwei * WEI_PER_GWEI
    taken_wei = min(cost_wei, result.registry.deposit(dispute.challenger).total_wei)
    burned_wei = taken_wei // BURNED_PART
    slashed = [
        Settlement(bond_pot(dispute.challenger), height, recipient, SettlementOutcome.SLASHED, amount_wei)
        for recipient, amount_wei in ((dispute.respondent, taken_wei - burned_wei), (BURN_ADDRESS, burned_wei))
        if amount_wei
    ]
    book = result.registry.slash(dispute.challenger, taken_wei)
    return replace(result, settlements=(*result.settlements, *slashed), registry=book)


def _split_shares(amount: int, reporter: Address, harmed: list[Address]) -> Iterable[tuple[Address, int]]:
    """Yield who gets how much, the burned rest last; parts of nothing are left out."""
    parts = [(reporter, amount // REPORTER_PART)]
    parts += [(each, amount // HARMED_PART // len(harmed)) for each in harmed]
    parts.append((BURN_ADDRESS, amount - sum(part for _, part in parts)))
    return ((recipient, part) for recipient, part in parts if part)


def _forfeit_withheld(
    withheld: tuple[state.WithheldReward, ...], offender: Address, wanted_gwei: int
) -> tuple[int, tuple[state.WithheldReward, ...]]:
    """Take from what is kept back of an offender's rewards, the oldest first."""
    taken = 0
    left: list[state.WithheldReward] = []
    for each in withheld:
        part = min(each.amount_gwei, wanted_gwei - taken) if each.miner == offender else 0
        taken += part
        if part < each.amount_gwei:
            left.append(replace(each, amount_gwei=each.amount_gwei - part))
    return taken, tuple(left)


def _release_publisher_bond(
    result: PenaltyResult, selection: state.Selection, settlements: tuple[Settlement, ...]
) -> PenaltyResult:
    """Let the publisher's bond leave when its task is over: it can be slashed until the contract pays it out."""
    for each in settlements:
        posted = selection.tasks.get(each.task_id)
        over = each.outcome in (SettlementOutcome.PAID, SettlementOutcome.REFUNDED)
        if posted is None or not over or not posted.task.bond_wei:
            continue
        held = result.registry.deposit(posted.task.publisher)
        changed = replace(held, leaving_wei=held.leaving_wei + posted.task.bond_wei)
        result = replace(result, registry=result.registry.with_deposit(changed))
    return result


def _withhold_bond(result: PenaltyResult, block: messages.AnyBlock) -> PenaltyResult:
    """Keep back the bond that the winner promised and did not deposit, out of what the block pays it."""
    if not isinstance(block, messages.Block):
        return result
    place = next((at for at, each in enumerate(result.payouts) if each.recipient == block.proposer), None)
    if place is None:
        return result
    payout = result.payouts[place]
    amount = compute_withheld_gwei(result.registry, block, payout.amount_gwei)
    if not amount:
        return result
    rest = replace(payout, amount_gwei=payout.amount_gwei - amount)
    paid = (*result.payouts[:place], *((rest,) if rest.amount_gwei else ()), *result.payouts[place + 1 :])
    held = (*result.registry.withheld, state.WithheldReward(block.proposer, amount, block.height))
    return replace(result, payouts=paid, registry=replace(result.registry, withheld=held), withheld_gwei=amount)
