"""One noun has one encoding: round trips, and every other way to write the same thing is refused."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import Bound, Hash32, decode, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.messages import Block, EmptyBlock, ReleaseAnnouncement, Reveal
from learnchain.protocol.task_specification import TaskSpecification, decode_specification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import build_sample_specification
from learnchain.simulation.scenario import start_from_genesis
from learnchain_conformance.bad_inputs import prepare


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    name: Annotated[str, Bound(8)]
    colour: Colour


@dataclass(frozen=True, slots=True)
class One:
    value: int


@dataclass(frozen=True, slots=True)
class Everything:
    number: int
    flag: bool
    digest: Hash32
    raw: Annotated[bytes, Bound(300)]
    inner: Inner
    several: Annotated[tuple[Inner, ...], Bound(3)]
    shape: tuple[int, ...]
    either: Inner | One


def _fits(text: str) -> bool:
    try:
        return len(text.encode()) <= 8
    except UnicodeEncodeError:
        return False


INNER = st.builds(Inner, st.text(max_size=8).filter(_fits), st.sampled_from(Colour))
EVERYTHING = st.builds(
    Everything,
    st.integers(0, 2**256 - 1),
    st.booleans(),
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=300),
    INNER,
    st.lists(INNER, max_size=3).map(tuple),
    st.lists(st.integers(0, 2**64), max_size=20).map(tuple),
    st.one_of(INNER, st.builds(One, st.integers(0, 300))),
)


@dataclass(frozen=True, slots=True)
class Either:
    value: "One | Flag"


@dataclass(frozen=True, slots=True)
class Flag:
    value: bool


@dataclass(frozen=True, slots=True)
class Raw:
    value: Annotated[bytes, Bound(100)]


@dataclass(frozen=True, slots=True)
class Text:
    value: Annotated[str, Bound(4)]


@dataclass(frozen=True, slots=True)
class Digest:
    value: Hash32


@dataclass(frozen=True, slots=True)
class Choice:
    value: Colour


@dataclass(frozen=True, slots=True)
class Several:
    value: Annotated[tuple[int, ...], Bound(2)]


@given(EVERYTHING)
def test_nouns_come_back(noun: Everything) -> None:
    assert decode(Everything, encode(noun)) == noun


@given(EVERYTHING, EVERYTHING)
def test_different_nouns_have_different_bytes(left: Everything, right: Everything) -> None:
    assert (encode(left) == encode(right)) == (left == right)


@given(EVERYTHING, st.data())
def test_what_decodes_is_the_one_encoding(noun: Everything, data: st.DataObject) -> None:
    """Change, drop or add bytes: either it is refused, or it is the canonical form of another noun."""
    raw = bytearray(encode(noun))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(("set", "drop", "insert")))
        byte = data.draw(st.integers(0, 255))
        if kind == "set":
            raw[place] = byte
        elif kind == "insert":
            raw.insert(place, byte)
        elif len(raw) > 1:
            del raw[place]
    _refused_or_canonical(Everything, bytes(raw))


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_or_canonical(raw: bytes) -> None:
    for kind in (Everything, Block, EmptyBlock, ReleaseAnnouncement, Reveal, TaskSpecification):
        _refused_or_canonical(kind, raw)


def _refused_or_canonical(kind: type, raw: bytes) -> None:
    try:
        noun = decode(kind, raw)
    except Rejected as error:
        assert error.reason in (RejectionReason.MALFORMED, RejectionReason.TOO_LARGE)
    else:
        assert encode(noun) == raw


MALFORMED = RejectionReason.MALFORMED
TOO_LARGE = RejectionReason.TOO_LARGE


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        (One, "", MALFORMED),
        (One, "00", MALFORMED),  # bytes where a list belongs
        (One, "c0", MALFORMED),  # a field is missing
        (One, "c101c0", MALFORMED),  # bytes follow
        (One, "c20101", MALFORMED),  # too many fields
        (One, "c100", MALFORMED),  # zero is the empty string
        (One, "c3820001", MALFORMED),  # leading zero
        (One, "c28105", MALFORMED),  # a single byte in the long form
        (One, "c1c0", MALFORMED),  # a list where bytes belong
        (One, "c281", MALFORMED),  # runs past the end
        (One, "f80105", MALFORMED),  # a short list in the long form
        (One, "f90001" + "05", MALFORMED),  # a length with a leading zero
        (One, "ff" + "ff" * 8, MALFORMED),  # a length beyond all memory
        (One, "c3b80105", MALFORMED),  # a short string in the long form
        (One, "e2a1" + "01" * 33, TOO_LARGE),  # wider than a word
        (One, "cabf" + "ff" * 8 + "01", TOO_LARGE),  # a string beyond all memory
        (Flag, "c102", MALFORMED),
        (Flag, "c100", MALFORMED),
        (Digest, "c180", MALFORMED),
        (Digest, "e09f" + "01" * 31, MALFORMED),
        (Digest, "e2a1" + "01" * 33, TOO_LARGE),
        (Raw, "f867b865" + "01" * 101, TOO_LARGE),
        (Text, "c281ff", MALFORMED),  # not UTF-8
        (Text, "c68568656c6c6f", TOO_LARGE),
        (Choice, "c685677265656e", MALFORMED),
        (Several, "c4c3010203", TOO_LARGE),
        (Several, "c101", MALFORMED),
        (Either, "c7c68354776fc105", MALFORMED),  # a message that is none of the two
        (Either, "c8c7834f6e65c10501", MALFORMED),  # something follows the message
    ],
)
def test_every_other_form_is_refused(kind: type, data: str, reason: RejectionReason) -> None:
    with pytest.raises(Rejected) as refusal:
        decode(kind, bytes.fromhex(data))
    assert refusal.value.reason is reason


@pytest.mark.parametrize(
    "noun",
    [One(-1), One(2**256), Raw(b"\0" * 101), Text("hello"), Several((1, 2, 3))],
    ids=lambda each: repr(each)[:20],
)
def test_what_is_out_of_bounds_cannot_be_written(noun: object) -> None:
    with pytest.raises(Rejected) as refusal:
        encode(noun)
    assert refusal.value.reason is TOO_LARGE


def test_a_digest_of_the_wrong_length_cannot_be_written() -> None:
    with pytest.raises(Rejected) as refusal:
        encode(Digest(b"\0" * 31))
    assert refusal.value.reason is MALFORMED


def test_bytes_by_hand() -> None:
    assert encode(Either(One(5))).hex() == "c7c6834f6e65c105"
    assert encode(One(0)).hex() == "c180"
    assert encode(One(127)).hex() == "c17f"
    assert encode(One(1024)).hex() == "c3820400"
    assert encode(Several((1, 2))).hex() == "c3c20102"
    assert encode(Choice(Colour.RED)).hex() == "c483726564"


def test_messages_come_back_and_have_different_hashes() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc()))
    found = prepare(node, "begun")
    block, announcement = (
        node.builder.build_block(node.parent, found),
        node.builder.build_announcement(node.parent, found),
    )
    nouns = (block, announcement, found[0].commitment, block.reveal, block.verdict, block.release)
    for noun in nouns:
        assert decode(type(noun), encode(noun)) == noun
    assert len({message_hash(noun) for noun in nouns}) == len(nouns)


def test_a_specification_is_bounded_before_it_is_read() -> None:
    with pytest.raises(Rejected) as refusal:
        decode_specification(b"\0" * 16_385)
    assert refusal.value.reason is TOO_LARGE
    specification = build_sample_specification("round trip")
    assert decode_specification(encode(specification)) == specification
