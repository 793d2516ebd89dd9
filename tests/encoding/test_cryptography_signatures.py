"""One message, one signer: forged, malleable and impossible signatures are refused for one reason."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.cryptography import UNSIGNED, address_of, check_signature, recover, sign, sign_digest
from learnchain.protocol.messages import Commitment, TrainedModel, TrainingRecord
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = (1).to_bytes(32, "big")
DIGEST = b"\x11" * 32
COMMITMENT = Commitment(1, 1, b"\1" * 32, b"\2" * 32, address_of(KEY), b"\3" * 32, 0, b"", UNSIGNED)


def refused(digest: bytes, signature: bytes) -> RejectionReason:
    with pytest.raises(Rejected) as refusal:
        recover(digest, signature)
    return refusal.value.reason


def test_address_of_the_smallest_key() -> None:
    assert address_of(KEY).hex() == "7e5f4552091a69125d5dfcb7b8c2659029395bdf"


def test_signatures_are_deterministic_low_and_recover() -> None:
    for number in range(50):
        digest = number.to_bytes(32, "big")
        signature = sign_digest(KEY, digest)
        assert signature == sign_digest(KEY, digest)
        assert int.from_bytes(signature[32:64], "big") <= ORDER // 2
        assert recover(digest, signature) == address_of(KEY)


def test_the_mirrored_signature_is_refused() -> None:
    signature = sign_digest(KEY, DIGEST)
    high = (ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    mirrored = signature[:32] + high + bytes([signature[64] ^ 1])
    assert refused(DIGEST, mirrored) is RejectionReason.WRONG_SIGNATURE


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\0" * 65,
        b"\1" * 64,
        b"\1" * 66,
        b"\xff" * 65,
        ORDER.to_bytes(32, "big") + b"\1" * 32 + b"\0",
        b"\0" * 32 + b"\1" * 32 + b"\0",
        b"\1" * 32 + b"\0" * 32 + b"\0",
        b"\1" * 64 + b"\4",
        b"\1" * 64 + b"\x1b",
    ],
    ids=lambda each: each.hex()[:12],
)
def test_impossible_signatures_are_refused(signature: bytes) -> None:
    assert refused(DIGEST, signature) is RejectionReason.WRONG_SIGNATURE


@given(st.binary(min_size=60, max_size=70))
def test_hostile_signatures_never_recover_to_a_signer(signature: bytes) -> None:
    try:
        assert recover(DIGEST, signature) != address_of(KEY)
    except Rejected as error:
        assert error.reason is RejectionReason.WRONG_SIGNATURE


def test_every_field_is_covered() -> None:
    signed = sign(COMMITMENT, KEY)
    check_signature(signed, address_of(KEY))
    for name, value in (
        ("chain_id", 2),
        ("height", 2),
        ("parent", b"\4" * 32),
        ("digest", b"\4" * 32),
        ("bond_wei", 1),
    ):
        with pytest.raises(Rejected) as refusal:
            check_signature(replace(signed, **{name: value}), address_of(KEY))
        assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE


def test_another_signer_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        check_signature(sign(COMMITMENT, (2).to_bytes(32, "big")), address_of(KEY))
    assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE


def test_what_has_no_signature_cannot_be_signed() -> None:
    record = TrainingRecord(b"\0" * 32, 1, b"", HyperParameters(1, 0, 0, 1, 1))
    with pytest.raises(TypeError):
        sign(TrainedModel(b"", record), KEY)
