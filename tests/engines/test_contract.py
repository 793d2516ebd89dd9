"""What an engine alone adds to messages: refused by name when malformed, too long, or not the engine's (ROUND-23)."""

from dataclasses import fields, make_dataclass, replace
from typing import Annotated, get_type_hints

import pytest

from learnchain.encoding.codec import Bound, decode, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import EngineParts
from learnchain.engines.dlbc.scenario import start_dlbc_node
from learnchain.engines.podl.parts import BaselineCount
from learnchain.engines.podl.scenario import start_podl_node
from learnchain.engines.pole.parts import CitedLosers, FunctionalKey, MappedTraining, Waiver
from learnchain.engines.pole.scenario import OPEN_BROADCAST, start_pole_node
from learnchain.engines.proof_of_work.scenario import start_proof_of_work_node
from learnchain.protocol.events import (
    BlockReceived,
    CommitmentReceived,
    KeyReleaseReceived,
    ReleaseReceived,
    RevealReceived,
)
from learnchain.protocol.messages import (
    Block,
    Commitment,
    KeyRelease,
    TrainingRecord,
    Verdict,
    commitment_digest,
    work_id,
)
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import Candidate, alter
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, open_height

START = {
    "dlbc": start_dlbc_node,
    "pole": start_pole_node,
    "podl": start_podl_node,
    "proof_of_work": start_proof_of_work_node,
}
NO_PART = b"\1" * 36
"""Bytes that no engine reads."""


MESSAGES = ("key release", "commitment", "listed commitment", "training record", "verdict", "block")


def rebind(candidate: Candidate, part: bytes) -> Candidate:
    """Return a candidate whose commitment binds a training record with this part in it."""
    model, old = replace(candidate.model, training=replace(candidate.model.training, engine=part)), candidate.commitment
    work = work_id(old.chain_id, old.parent, old.task_id, old.miner)
    payload = (candidate.payload_hash, b"\x01\x55" + candidate.payload_hash)
    digest = commitment_digest(work, model, *payload, candidate.salt)
    return replace(candidate, model=model, commitment=alter(old, digest=digest))


def send_reveal(node: ScenarioNode, part: bytes) -> None:
    """Release and open a commitment to a record with this part; a hash puzzle is not solved again for it."""
    parent, opens = node.parent, node.round.selection.schedule.release_opens_milliseconds
    own = rebind(node.builder.build_candidate(parent, "miner-1", 95), part)
    node.feed(ReleaseReceived(node.builder.build_announcement(parent, (own,)), opens))
    node.feed(RevealReceived(node.builder.build_reveal(parent, own), opens + 1))


def send(node: ScenarioNode, message: str, part: bytes) -> None:
    """Bring a height to where a message belongs, and send that message with this part in it."""
    builder, parent, schedule = node.builder, node.parent, node.round.selection.schedule
    if message == "key release":
        key = alter(builder.build_key_release(parent), "steward", engine=part)
        node.feed(KeyReleaseReceived(key, schedule.start_milliseconds))
    elif message == "commitment":
        own = alter(builder.build_candidate(parent, "miner-1", 95).commitment, engine=part)
        node.feed(CommitmentReceived(own, schedule.start_milliseconds + 1))
    elif message == "listed commitment":
        own = builder.build_candidate(parent, "miner-1", 95)
        listed = builder.build_announcement(parent, (replace(own, commitment=alter(own.commitment, engine=part)),))
        node.feed(ReleaseReceived(listed, listed.release.released_milliseconds))
    elif message == "training record":
        send_reveal(node, part)
    else:
        block = builder.build_block(parent, open_height(node, HeightPlan({"miner-1": 95})))
        changes = {"engine": part} if message == "block" else {"verdict": replace(block.verdict, engine=part)}
        node.feed(BlockReceived(alter(block, **changes), block.end_milliseconds))


def refusal_of(node: ScenarioNode, message: str, part: bytes) -> RejectionReason:
    with pytest.raises(Rejected) as refusal:
        send(node, message, part)
    return refusal.value.reason


@pytest.mark.parametrize("engine", START)
@pytest.mark.parametrize("message", MESSAGES)
def test_a_malformed_part_is_refused_by_every_engine(engine: str, message: str) -> None:
    assert refusal_of(START[engine](), message, NO_PART) is RejectionReason.MALFORMED


@pytest.mark.parametrize("engine", ["dlbc", "proof_of_work"])
@pytest.mark.parametrize("message", MESSAGES)
def test_parts_of_other_engines_are_refused_where_an_engine_has_none(engine: str, message: str) -> None:
    foreign = {
        "key release": encode(FunctionalKey(b"\1" * 36)),
        "commitment": encode(START[engine]().builder.build_candidate(START[engine]().parent, "miner-1", 95).model),
        "training record": encode(MappedTraining(b"\1" * 32, 1, 2)),
        "verdict": encode(Waiver()),
        "block": encode(CitedLosers(())),
    }
    part = foreign[message.removeprefix("listed ")]
    assert refusal_of(START[engine](), message, part) is RejectionReason.MALFORMED


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("verdict", encode(Waiver()) + b"\0"),
        ("block", encode(CitedLosers(()))),
        ("verdict", encode(BaselineCount(1, 2))),
    ],
)
def test_pole_has_one_way_to_write_each_part(message: str, part: bytes) -> None:
    assert refusal_of(start_pole_node(), message, part) is RejectionReason.MALFORMED


def test_pole_asks_for_mapping_and_count_in_every_training_record() -> None:
    assert refusal_of(start_pole_node(), "training record", b"") is RejectionReason.MALFORMED


def test_podl_has_one_way_to_say_that_nothing_was_counted() -> None:
    assert refusal_of(start_podl_node(), "verdict", encode(BaselineCount(0, 0))) is RejectionReason.MALFORMED


@pytest.mark.parametrize("message", ["commitment", "listed commitment"])
def test_a_model_that_must_be_shown_and_is_not_is_refused(message: str) -> None:
    assert refusal_of(start_pole_node(OPEN_BROADCAST), message, b"") is RejectionReason.SHOWN_MODEL_WRONG


@pytest.mark.parametrize("kind", [KeyRelease, TrainingRecord, Commitment, Verdict, Block])
def test_a_part_beyond_its_bound_is_refused_before_it_is_read(kind: type) -> None:
    """A lookalike with a wider bound encodes what the message's own codec refuses to read and to write."""
    node = start_dlbc_node()
    block = node.builder.build_block(node.parent, open_height(node, HeightPlan({"miner-1": 95})))
    messages = {
        Block: block,
        Verdict: block.verdict,
        KeyRelease: block.key_release,
        TrainingRecord: block.reveal.training,
        Commitment: block.commitments[0],
    }
    hints = get_type_hints(kind, include_extras=True)
    wider = [
        (each.name, Annotated[bytes, Bound(4_096)] if each.name == "engine" else hints[each.name])
        for each in fields(kind)
    ]
    values = {each.name: getattr(messages[kind], each.name) for each in fields(kind)}
    data = encode(make_dataclass("Wider", wider)(**{**values, "engine": b"\1" * 2_049}))
    for attempt in (lambda: decode(kind, data), lambda: encode(replace(messages[kind], engine=b"\1" * 2_049))):
        with pytest.raises(Rejected) as refusal:
            attempt()
        assert refusal.value.reason is RejectionReason.TOO_LARGE


def test_a_part_is_hashed_and_signed_with_its_message() -> None:
    node = start_pole_node()
    commitment = node.builder.build_candidate(node.parent, "miner-1", 95).commitment
    changed = replace(commitment, engine=NO_PART)
    assert message_hash(changed) != message_hash(commitment)
    with pytest.raises(Rejected) as refusal:
        node.feed(CommitmentReceived(changed, node.round.selection.schedule.start_milliseconds + 1))
    assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE


@pytest.mark.parametrize("engine", ["dlbc", "proof_of_work"])
def test_an_engine_without_parts_answers_every_question_with_nothing(engine: str) -> None:
    node = START[engine]()
    block = node.builder.build_block(node.parent, open_height(node, HeightPlan({"miner-1": 95})))
    parts, selection = node.builder.rules.parts, node.round.selection
    assert type(parts) is EngineParts
    assert (parts.list_citable_commitments(selection), parts.list_cited_losers(block)) == ((), ())
    assert (parts.baseline_count(block.verdict), parts.is_waived(block.verdict)) == ((0, 0), False)
    assert parts.lookahead(node.parent, selection, node.builder.parameters) is None
