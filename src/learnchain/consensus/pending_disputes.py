"""Step 8, beside the block: accusations and the steps that answer them; each waits for a proposer in its turn."""

from dataclasses import replace

from learnchain.consensus.disputes import check_accusation, check_answer, dispute_of, with_accusation
from learnchain.consensus.round import Round, Step, has_finding, is_unmeasured, still_carried
from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.hashing import noun_hash
from learnchain.protocol.actions import Action, MeasureAnswer
from learnchain.protocol.dispute_messages import (
    MAXIMUM_ACCUSATIONS,
    MAXIMUM_ANSWERS,
    Accusation,
    DisputeAnswer,
    DisputeMessage,
)
from learnchain.protocol.events import Disputed
from learnchain.protocol.measurement import Finding, Measure, MeasureKind
from learnchain.protocol.messages import AnyBlock
from learnchain.protocol.state import BondBook, ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_WAITING = 64
"""Messages of each kind that wait for a block; more are refused until some of them are in."""


def on_dispute(state: Round, event: Disputed) -> Step:
    """Keep a message for the next proposer if the next block may carry it; have an answer's files fetched (AUDIT-6)."""
    message, key = event.message, noun_hash(event.message)
    if key in state.disputes:
        return state, (), ()
    if message.height > state.parent.height:
        raise Unavailable(f"a head at height {message.height}")
    check(state, state.parent, message)
    waiting = [each for each in state.disputes.values() if type(each) is type(message)]
    if any(_segment_key(each) == _segment_key(message) for each in waiting):
        reason = RejectionReason.ACCUSATION_DOUBLE if isinstance(message, Accusation) else RejectionReason.ANSWER_CLOSED
        raise Rejected(reason, "the same was said of that segment before")
    if len(waiting) >= MAXIMUM_WAITING:
        raise Rejected(RejectionReason.RATE_LIMITED, "enough disputes wait for a block")
    state = replace(state, disputes={**state.disputes, key: message})
    return asked(state, state.parent, message) if isinstance(message, DisputeAnswer) else (state, (), ())


def check(state: Round, parent: ChainState, message: DisputeMessage) -> None:
    """Refuse a message that the block after `parent` may not carry."""
    if isinstance(message, Accusation):
        check_accusation(parent.bonds, message, parent.height + 1, state.parameters)
    else:
        check_answer(parent.bonds, message, parent.height + 1, state.parameters)


def offered(state: Round) -> tuple[tuple[Accusation, ...], tuple[DisputeAnswer, ...]]:
    """Return what the next block on the head should carry: answers by their deadline, who accuses least before others.

    An answer waits until its files are here: a block with steps that nobody can fetch would be admitted by nobody.
    """
    parent, known = state.parent, kept(state, state.parent)
    answers = [each for each in known.values() if isinstance(each, DisputeAnswer) and _is_fetched(state, each)]
    answers.sort(key=lambda each: (_challenged_height(parent.bonds, each), noun_hash(each)))
    waiting = [each for each in known.values() if isinstance(each, Accusation)]
    waiting.sort(key=lambda each: (_count_open_challenges(parent.bonds, each.accuser), each.height, noun_hash(each)))
    book, accusations = parent.bonds, list[Accusation]()
    for each in waiting:
        try:
            check_accusation(book, each, parent.height + 1, state.parameters)
        except Rejected:
            continue
        if len(accusations) < MAXIMUM_ACCUSATIONS:
            accusations.append(each)
            book = with_accusation(book, each, parent.height + 1)
    return tuple(accusations), tuple(answers[:MAXIMUM_ANSWERS])


def unmeasured(state: Round, listed: tuple[DisputeAnswer, ...]) -> DisputeAnswer | None:
    """Return the first answer of a block whose files were not looked for, or were not here."""
    return next((each for each in listed if is_unmeasured(state, noun_hash(each), MeasureKind.ANSWER)), None)


def refused(state: Round, block: AnyBlock) -> str | None:
    """Return why the files of a block's answers do not stand, or None."""
    failed = any(has_finding(state, key, MeasureKind.ANSWER, Finding.REJECTED) for key in keys_of(block))
    return RejectionReason.ANSWER_WRONG.value if failed else None


def asked(state: Round, parent: ChainState, message: DisputeAnswer) -> Step:
    """Have the files of an answer fetched and compared with its digests, once."""
    key = noun_hash(message)
    if (key, MeasureKind.ANSWER) in state.asked:
        return state, (), ()
    fact = parent.bonds.fact(message.height, message.parent)
    if fact is None:
        raise AssertionError("an answer was not checked before it was measured")
    action: Action = MeasureAnswer(Measure(key, MeasureKind.ANSWER), message, fact)
    return replace(state, asked=state.asked | {(key, MeasureKind.ANSWER)}), (action,), ()


def ask_all(state: Round) -> Step:
    """Ask again for the files of every answer that waits: what was not here may have come with the last block."""
    actions: tuple[Action, ...] = ()
    for each in state.disputes.values():
        if isinstance(each, DisputeAnswer) and unmeasured(state, (each,)) is not None:
            state, more, _ = asked(state, state.parent, each)
            actions = (*actions, *more)
    return state, actions, ()


def kept(state: Round, parent: ChainState) -> dict[Hash32, DisputeMessage]:
    """Return the messages that a block on this head may still carry."""
    return still_carried(state.disputes, lambda message: check(state, parent, message))


def keys_of(block: AnyBlock) -> frozenset[Hash32]:
    """Return the keys under which a block's answers are measured."""
    return frozenset(noun_hash(each) for each in block.answers)


def _segment_key(message: DisputeMessage) -> tuple[int, Hash32, Address, int]:
    segment = message.segment if isinstance(message, Accusation) else message.answer.segment
    return message.height, message.parent, message.accused, segment


def _is_fetched(state: Round, message: DisputeAnswer) -> bool:
    return has_finding(state, noun_hash(message), MeasureKind.ANSWER, Finding.ACCEPTED)


def _challenged_height(book: BondBook, message: DisputeAnswer) -> int:
    dispute = dispute_of(book, *_segment_key(message))
    return 0 if dispute is None else dispute.asked_height


def _count_open_challenges(book: BondBook, accuser: Address) -> int:
    return sum(each.is_open and each.accuser == accuser for each in book.disputes)
