"""Step 8, beside the block itself: losers of earlier heights are kept, verified, offered where an engine cites them.

Which of them a block may cite, where it cites them and what that pays, the engine answers. A loser is judged as it
would have been at its own height, but its payload is never executed.
"""

from dataclasses import dataclass

from learnchain.consensus.round import Round, Transition, data_keys_of, request_candidate_measurement
from learnchain.consensus.validity import check_opening
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import JudgementCase
from learnchain.protocol.actions import Action
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import AnyBlock, Block, CandidateOutcome, Commitment, Reveal
from learnchain.protocol.state import Selection
from learnchain.rejection import Rejected, RejectionReason, Unavailable


@dataclass(frozen=True, slots=True)
class LosingCandidate:
    """Join a loser's opening with the height it lost: the selection, the block that won, its own commitment."""

    reveal: Reveal
    selection: Selection
    block: Block
    commitment: Commitment

    @property
    def key(self) -> Hash32:
        """Name the loser's measurements."""
        return message_hash(self.reveal)


def check_ommers(state: Round, selection: Selection, block: Block) -> None:
    """Refuse a block that cites a loser which its selection does not name, or an opening that is not that loser's."""
    for reveal in state.rules.parts.list_cited_losers(block):
        find_loser(state, selection, reveal)


def find_loser(state: Round, selection: Selection, reveal: Reveal) -> LosingCandidate:
    """Return the height that a loser lost, on the branch of the selection that would cite it."""
    citable = state.rules.parts.list_citable_commitments(selection)
    if not citable or reveal.height >= selection.height:
        raise Rejected(RejectionReason.OMMER_NOT_CITABLE, "no loser of that height may be cited here")
    block = _find_block(state, selection.parent, reveal)
    found = [each for each in block.commitments if each.miner == reveal.miner]
    if not found or message_hash(found[0]) not in citable:
        raise Rejected(RejectionReason.OMMER_NOT_CITABLE, f"0x{reveal.miner.hex()} lost, but may not be cited here")
    entry = next(each for each in block.verdict.entries if each.miner == reveal.miner)
    claim = (reveal.claim_correct, reveal.claim_total)
    if entry.outcome is not CandidateOutcome.LOWER_CLAIM or claim != (entry.claim_correct, entry.claim_total):
        raise Rejected(RejectionReason.OMMER_NOT_CITABLE, "the verdict of its height names another claim")
    earlier = state.rules.select_task(state.tree.state(block.parent), state.parameters)
    check_opening(found[0], reveal, earlier, state.parameters)
    state.rules.parts.check(earlier, reveal.training)
    state.rules.check_reveal(earlier, found[0], reveal)
    return LosingCandidate(reveal, earlier, block, found[0])


def judge_loser(state: Round, lost: LosingCandidate) -> MeasurementRequest | str | None:
    """Return what to measure next of a loser, why it does not stand, or None: it would have won alone."""
    here = {key: found for key, found in state.measurements.items() if found.finding is not Finding.UNAVAILABLE}
    skipped = Measurement(lost.key, MeasurementKind.PAYLOAD, Finding.ACCEPTED)
    case = JudgementCase(
        lost.selection,
        ((lost.key, lost.commitment),),
        {lost.key: lost.reveal},
        {**here, (lost.key, MeasurementKind.PAYLOAD): skipped},
        True,
        lost.block.release.released_milliseconds,
    )
    answer = state.rules.judge(case)
    if isinstance(answer, MeasurementRequest):
        return answer
    if answer is None or answer.winner != lost.key:
        reason = answer.entries[0].reason if answer is not None else ""
        return reason or RejectionReason.VERDICT_WRONG.value
    return None


def request_measurement(state: Round, lost: LosingCandidate, measure: MeasurementRequest) -> Transition:
    """Have a loser measured, once, with the keys that its height released."""
    return request_candidate_measurement(
        state, measure, lost.selection, lost.reveal, data_keys_of(state.rules, lost.block)
    )


def examine_cited(state: Round, selection: Selection, block: Block) -> Transition | str | None:
    """Return what the losers that a block cites still need, why one does not stand, or None."""
    for reveal in state.rules.parts.list_cited_losers(block):
        lost = find_loser(state, selection, reveal)
        answer = judge_loser(state, lost)
        if isinstance(answer, MeasurementRequest):
            return request_measurement(state, lost, answer)
        if answer is not None:
            return answer
    return None


def retain_citable(state: Round, reveals: tuple[Reveal, ...]) -> dict[Hash32, Reveal]:
    """Return the losers among these openings that the next block on the head may cite."""
    found: dict[Hash32, Reveal] = {}
    for reveal in reveals if state.rules.parts.list_citable_commitments(state.selection) else ():
        try:
            found[find_loser(state, state.selection, reveal).key] = reveal
        except (Rejected, Unavailable):
            continue
    return found


def request_all(state: Round) -> Transition:
    """Have every loser that may be cited measured, so that whoever wins can cite one that is known to stand."""
    actions: tuple[Action, ...] = ()
    for reveal in state.losers.values():
        lost = find_loser(state, state.selection, reveal)
        answer = judge_loser(state, lost)
        if isinstance(answer, MeasurementRequest):
            state, more, _ = request_measurement(state, lost, answer)
            actions = (*actions, *more)
    return state, actions, ()


def select_for_block(state: Round) -> tuple[Reveal, ...]:
    """Return the losers that a block on the head may cite, the preferred first: only those measured that stand."""
    standing: dict[Hash32, Reveal] = {}
    for reveal in state.losers.values():
        lost = find_loser(state, state.selection, reveal)
        if judge_loser(state, lost) is None:
            standing[message_hash(lost.commitment)] = reveal
    citable = state.rules.parts.list_citable_commitments(state.selection)
    return tuple(standing[key] for key in citable if key in standing)


def measurement_keys(state: Round, block: AnyBlock) -> frozenset[Hash32]:
    """Return the keys under which the losers that a block cites are measured."""
    return frozenset(message_hash(each) for each in state.rules.parts.list_cited_losers(block))


def _find_block(state: Round, tip: Hash32, reveal: Reveal) -> Block:
    """Return the winning block of a loser's height on the branch below `tip`."""
    here = tip
    while here in state.tree:
        block = state.tree.records[here].block
        if block is None or block.height <= reveal.height:
            break
        here = block.parent
    else:
        block = None
    if block is None or block.parent not in state.tree:
        raise Unavailable("the height of a cited loser: it lies below the final block")
    if not isinstance(block, Block) or (block.height, block.parent) != (reveal.height, reveal.parent):
        raise Rejected(RejectionReason.OMMER_NOT_CITABLE, "the cited loser lost on another branch")
    return block
