"""Step 10: what a block pays and takes beside its engine's answer: bonds withheld, returned, slashed and compensated.

Engines answer for their papers alone (`payouts`); what follows from bonds and evidence is the same for all of them.
A slashed bond goes a quarter to the reporter and half to those who were harmed in equal parts; the rest is burned,
so that nobody gains by harming and reporting itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from learnchain.primitives.bonds import AuditEntry, BondBook, Punished, RoundFact, Withheld, withheld_gwei
from learnchain.primitives.codec import Address, decode
from learnchain.primitives.messages import (
    PUBLISHER_FAULTS,
    AnyBlock,
    Block,
    Commitment,
    Deadline,
    EmptyBlock,
    Evidence,
    Fault,
    Payout,
)
from learnchain.primitives.numbers import WEI_PER_GWEI
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.selection import Selection
from learnchain.primitives.settlement import Outcome, Settlement, bond_pot

REPORTER_PART = 4
HARMED_PART = 2
"""One part in so many of what is taken; what is left over is burned."""
FALSE_AUDIT_FEES = 4
"""Fees that a false report costs: more than the one it would have earned, so that guessing does not pay."""
BURN: Address = b"\0" * 20


@dataclass(frozen=True, slots=True)
class Justice:
    """Hold what a block pays, settles and leaves in the book; `burned_gwei` was kept back and is never minted."""

    payouts: tuple[Payout, ...]
    settlements: tuple[Settlement, ...]
    book: BondBook
    burned_gwei: int = 0
    withheld_gwei: int = 0
    audited_gwei: int = 0


def justice(
    book: BondBook,
    selection: Selection,
    block: AnyBlock,
    answer: tuple[tuple[Payout, ...], tuple[Settlement, ...]],
    parameters: ChainParameters,
) -> Justice:
    """Return what a checked block comes to, from the book of its parent and its engine's payouts and settlements."""
    payouts, settlements = answer
    result = _kept_back(Justice(payouts, _struck(selection, block, settlements), book), block)
    result = _returned(result, block.height - parameters.audit_window_blocks)
    if isinstance(block, Block):
        result = _audited(result, block, parameters)
    for evidence in block.evidence:
        result = _punished(result, evidence, block.height, parameters)
    return _bond_leaves(result, selection, settlements)


def with_fact(book: BondBook, fact: RoundFact, parameters: ChainParameters) -> BondBook:
    """Return the book with one more height, without those that no evidence reaches any more."""
    oldest = fact.height + 1 - parameters.audit_window_blocks
    facts = tuple(each for each in book.facts if each.height >= oldest)
    punished = tuple(each for each in book.punished if each.height >= oldest)
    audits = tuple(each for each in book.audits if each.height >= oldest)
    return replace(book, facts=(*facts, fact), punished=punished, audits=audits)


def demanded_wei(evidence: Evidence, fact: RoundFact, parameters: ChainParameters) -> int:
    """Return the bond that an offence costs: the task's, the one that a miner promised, or some audits' fees."""
    if evidence.fault in PUBLISHER_FAULTS:
        return fact.task_bond_wei
    if evidence.fault is Fault.DOUBLE_COMMITMENT:
        return max(decode(Commitment, each).bond_wei for each in evidence.statements)
    if evidence.fault is Fault.AUDIT_FALSE:
        return FALSE_AUDIT_FEES * parameters.audit_reward_gwei * WEI_PER_GWEI
    return fact.bond_wei if evidence.offender == fact.winner else 0


def _struck(selection: Selection, block: AnyBlock, settlements: tuple[Settlement, ...]) -> tuple[Settlement, ...]:
    """Compensate the miners whom a publisher left without a test set out of its struck bond."""
    if not isinstance(block, EmptyBlock) or block.missed is not Deadline.RELEASE:
        return settlements
    result: list[Settlement] = []
    for each in settlements:
        if each.outcome is not Outcome.STRUCK or each.task_id != selection.task.task_id:
            result.append(each)
            continue
        harmed = [commitment.miner for commitment in block.commitments if commitment.miner != selection.task.publisher]
        share = selection.task.bond_wei // HARMED_PART // max(1, len(harmed))
        shares = [Settlement(each.task_id, block.height, miner, Outcome.SLASHED, share) for miner in harmed if share]
        result += [replace(each, amount_wei=share * len(shares)), *shares]
    return tuple(result)


def _returned(result: Justice, before_height: int) -> Justice:
    """Pay what was kept back of winners' rewards once no evidence reaches their blocks any more."""
    due = [each for each in result.book.withheld if each.height < before_height]
    if not due:
        return result
    rest = tuple(each for each in result.book.withheld if each.height >= before_height)
    paid = tuple(Payout(each.miner, each.amount_gwei, "bond returned") for each in due)
    return replace(result, payouts=(*result.payouts, *paid), book=replace(result.book, withheld=rest))


def _audited(result: Justice, block: Block, parameters: ChainParameters) -> Justice:
    """Take down who audits what; pay for opened reports, but keep the pay back as long as evidence against them counts.

    So whoever has no coins earns its first ones here, and has something to lose.
    """
    entries = [AuditEntry(each.height, each.parent, each.auditor, each.digest, block.height) for each in block.audits]
    opened = {(each.height, each.parent, each.auditor) for each in block.audit_reports}
    known = [
        replace(each, opened_height=block.height) if (each.height, each.parent, each.auditor) in opened else each
        for each in result.book.audits
    ]
    fee = parameters.audit_reward_gwei
    pay = tuple(Withheld(each.auditor, fee, block.height) for each in block.audit_reports)
    book = replace(result.book, audits=(*known, *entries), withheld=(*result.book.withheld, *pay))
    return replace(result, book=book, audited_gwei=fee * len(pay))


def _punished(result: Justice, evidence: Evidence, height: int, parameters: ChainParameters) -> Justice:
    """Take the offender's bond, deposited or kept back, and share it out."""
    book = result.book
    fact = book.fact(evidence.height, evidence.parent)
    if fact is None:
        raise AssertionError("evidence was not checked before it was judged")
    wanted_wei = demanded_wei(evidence, fact, parameters)
    taken_wei = min(wanted_wei, book.deposit(evidence.offender).total_wei)
    forfeited, withheld = _forfeited(book.withheld, evidence.offender, -(-(wanted_wei - taken_wei) // WEI_PER_GWEI))
    # Other auditors are not paid for a false report: two that guess would share each other's fines.
    competitors = () if evidence.fault is Fault.AUDIT_FALSE else fact.committed
    harmed = [each for each in competitors if each != evidence.offender]
    source = bond_pot(evidence.offender)
    slashed = [
        Settlement(source, height, recipient, Outcome.SLASHED, amount)
        for recipient, amount in _shares(taken_wei, evidence.reporter, harmed)
    ]
    shares = [(who, amount) for who, amount in _shares(forfeited, evidence.reporter, harmed) if who != BURN]
    payouts = [Payout(recipient, amount, "slashed bond") for recipient, amount in shares]
    book = replace(
        book.taken(evidence.offender, taken_wei),
        withheld=withheld,
        punished=(*book.punished, Punished(evidence.fault_id, evidence.height)),
    )
    return replace(
        result,
        payouts=(*result.payouts, *payouts),
        settlements=(*result.settlements, *slashed),
        book=book,
        burned_gwei=result.burned_gwei + forfeited - sum(amount for _, amount in shares),
    )


def _shares(amount: int, reporter: Address, harmed: list[Address]) -> Iterable[tuple[Address, int]]:
    """Yield who gets how much, the burned rest last; parts of nothing are left out."""
    parts = [(reporter, amount // REPORTER_PART)]
    parts += [(each, amount // HARMED_PART // len(harmed)) for each in harmed]
    parts.append((BURN, amount - sum(part for _, part in parts)))
    return ((recipient, part) for recipient, part in parts if part)


def _forfeited(withheld: tuple[Withheld, ...], offender: Address, wanted_gwei: int) -> tuple[int, tuple[Withheld, ...]]:
    """Take from what is kept back of an offender's rewards, the oldest first."""
    taken = 0
    left: list[Withheld] = []
    for each in withheld:
        part = min(each.amount_gwei, wanted_gwei - taken) if each.miner == offender else 0
        taken += part
        if part < each.amount_gwei:
            left.append(replace(each, amount_gwei=each.amount_gwei - part))
    return taken, tuple(left)


def _bond_leaves(result: Justice, selection: Selection, settlements: tuple[Settlement, ...]) -> Justice:
    """Let the publisher's bond leave when its task is over: it can be slashed until the contract pays it out."""
    task = selection.task
    over = any(
        each.task_id == task.task_id and each.outcome in (Outcome.PAID, Outcome.REFUNDED) for each in settlements
    )
    if not over or not task.bond_wei:
        return result
    held = result.book.deposit(task.publisher)
    changed = replace(held, leaving_wei=held.leaving_wei + task.bond_wei)
    return replace(result, book=result.book.with_deposit(changed))


def _kept_back(result: Justice, block: AnyBlock) -> Justice:
    """Keep back the bond that the winner promised and did not deposit, out of what the block pays it."""
    if not isinstance(block, Block):
        return result
    place = next((at for at, each in enumerate(result.payouts) if each.recipient == block.proposer), None)
    if place is None:
        return result
    payout = result.payouts[place]
    amount = withheld_gwei(result.book, block, payout.amount_gwei)
    if not amount:
        return result
    rest = replace(payout, amount_gwei=payout.amount_gwei - amount)
    paid = (*result.payouts[:place], *((rest,) if rest.amount_gwei else ()), *result.payouts[place + 1 :])
    held = (*result.book.withheld, Withheld(block.proposer, amount, block.height))
    return replace(result, payouts=paid, book=replace(result.book, withheld=held), withheld_gwei=amount)
