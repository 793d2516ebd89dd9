"""Step 8, beside the block: accusations and the steps that answer them; each waits for a proposer in its turn."""

from dataclasses import replace

from learnchain.consensus.disputes import add_challenge, check_challenge, check_response, find_dispute
from learnchain.consensus.round import Round, Transition, filter_valid, has_finding, is_unmeasured
from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.protocol import audit_messages
from learnchain.protocol.actions import Action, MeasureResponse
from learnchain.protocol.events import DisputeMessageReceived
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import AnyBlock
from learnchain.protocol.state import BondRegistry, ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_PENDING = 64
"""Messages of each kind that wait for a block; more are refused until some of them are in."""


def on_dispute(state: Round, event: DisputeMessageReceived) -> Transition:
    """Keep a message for the next proposer if the next block may carry it; have an answer's files fetched (AUDIT-6)."""
    message, key = event.message, message_hash(event.message)
    if key in state.disputes:
        return state, (), ()
    if message.height > state.parent.height:
        raise Unavailable(f"a head at height {message.height}")
    check_for_block(state, state.parent, message)
    waiting = [each for each in state.disputes.values() if type(each) is type(message)]
    if any(_segment_key(each) == _segment_key(message) for each in waiting):
        reason = (
            RejectionReason.CHALLENGE_DOUBLE
            if isinstance(message, audit_messages.Challenge)
            else RejectionReason.RESPONSE_CLOSED
        )
        raise Rejected(reason, "the same was said of that segment before")
    if len(waiting) >= MAXIMUM_PENDING:
        raise Rejected(RejectionReason.RATE_LIMITED, "enough disputes wait for a block")
    state = replace(state, disputes={**state.disputes, key: message})
    return (
        request_measurement(state, state.parent, message)
        if isinstance(message, audit_messages.ChallengeResponse)
        else (state, (), ())
    )


def check_for_block(state: Round, parent: ChainState, message: audit_messages.DisputeMessage) -> None:
    """Refuse a message that the block after `parent` may not carry."""
    if isinstance(message, audit_messages.Challenge):
        check_challenge(parent.bonds, message, parent.height + 1, state.parameters)
    else:
        check_response(parent.bonds, message, parent.height + 1, state.parameters)


def select_for_block(
    state: Round,
) -> tuple[tuple[audit_messages.Challenge, ...], tuple[audit_messages.ChallengeResponse, ...]]:
    """Return what the next block on the head should carry: answers by their deadline, who accuses least before others.

    An answer waits until its files are here: a block with steps that nobody can fetch would be admitted by nobody.
    """
    parent, known = state.parent, retain_valid(state, state.parent)
    answers = [
        each
        for each in known.values()
        if isinstance(each, audit_messages.ChallengeResponse) and _is_fetched(state, each)
    ]
    answers.sort(key=lambda each: (_challenged_height(parent.bonds, each), message_hash(each)))
    waiting = [each for each in known.values() if isinstance(each, audit_messages.Challenge)]
    waiting.sort(
        key=lambda each: (_count_open_challenges(parent.bonds, each.challenger), each.height, message_hash(each))
    )
    book, accusations = parent.bonds, list[audit_messages.Challenge]()
    for each in waiting:
        try:
            check_challenge(book, each, parent.height + 1, state.parameters)
        except Rejected:
            continue
        if len(accusations) < audit_messages.MAXIMUM_CHALLENGES:
            accusations.append(each)
            book = add_challenge(book, each, parent.height + 1)
    return tuple(accusations), tuple(answers[: audit_messages.MAXIMUM_RESPONSES])


def first_unmeasured(
    state: Round, listed: tuple[audit_messages.ChallengeResponse, ...]
) -> audit_messages.ChallengeResponse | None:
    """Return the first answer of a block whose files were not looked for, or were not here."""
    return next((each for each in listed if is_unmeasured(state, message_hash(each), MeasurementKind.RESPONSE)), None)


def rejection_reason(state: Round, block: AnyBlock) -> str | None:
    """Return why the files of a block's answers do not stand, or None."""
    failed = any(has_finding(state, key, MeasurementKind.RESPONSE, Finding.REJECTED) for key in measurement_keys(block))
    return RejectionReason.RESPONSE_INVALID.value if failed else None


def request_measurement(state: Round, parent: ChainState, message: audit_messages.ChallengeResponse) -> Transition:
    """Have the files of an answer fetched and compared with its digests, once."""
    key = message_hash(message)
    if (key, MeasurementKind.RESPONSE) in state.requested_measurements:
        return state, (), ()
    fact = parent.bonds.height_record(message.height, message.parent)
    if fact is None:
        raise AssertionError("an answer was not checked before it was measured")
    action: Action = MeasureResponse(MeasurementRequest(key, MeasurementKind.RESPONSE), message, fact)
    return (
        replace(state, requested_measurements=state.requested_measurements | {(key, MeasurementKind.RESPONSE)}),
        (action,),
        (),
    )


def request_all(state: Round) -> Transition:
    """Ask again for the files of every answer that waits: what was not here may have come with the last block."""
    actions: tuple[Action, ...] = ()
    for each in state.disputes.values():
        if isinstance(each, audit_messages.ChallengeResponse) and first_unmeasured(state, (each,)) is not None:
            state, more, _ = request_measurement(state, state.parent, each)
            actions = (*actions, *more)
    return state, actions, ()


def retain_valid(state: Round, parent: ChainState) -> dict[Hash32, audit_messages.DisputeMessage]:
    """Return the messages that a block on this head may still carry."""
    return filter_valid(state.disputes, lambda message: check_for_block(state, parent, message))


def measurement_keys(block: AnyBlock) -> frozenset[Hash32]:
    """Return the keys under which a block's answers are measured."""
    return frozenset(message_hash(each) for each in block.responses)


def _segment_key(message: audit_messages.DisputeMessage) -> tuple[int, Hash32, Address, int]:
    segment = message.segment if isinstance(message, audit_messages.Challenge) else message.disclosure.segment
    return message.height, message.parent, message.respondent, segment


def _is_fetched(state: Round, message: audit_messages.ChallengeResponse) -> bool:
    return has_finding(state, message_hash(message), MeasurementKind.RESPONSE, Finding.ACCEPTED)


def _challenged_height(book: BondRegistry, message: audit_messages.ChallengeResponse) -> int:
    dispute = find_dispute(book, *_segment_key(message))
    return 0 if dispute is None else dispute.challenged_height


def _count_open_challenges(book: BondRegistry, accuser: Address) -> int:
    return sum(each.is_open and each.challenger == accuser for each in book.disputes)
