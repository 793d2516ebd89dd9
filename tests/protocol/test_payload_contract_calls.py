"""The ABI of contract calls, against known encodings and against what is no encoding."""

import pytest

from learnchain.protocol.payload import address_bytes, address_text, decode_values, encode_call, selector
from learnchain.rejection import Rejected, RejectionReason

OWNER = bytes(range(20))


def test_a_call_is_its_selector_and_its_words() -> None:
    assert selector("transfer(address,uint256)").hex() == "a9059cbb"
    data = encode_call("transfer(address,uint256)", ("address", "uint256"), (address_text(OWNER), 7))
    assert data == bytes.fromhex("a9059cbb") + bytes(12) + OWNER + (7).to_bytes(32)
    owner, amount = decode_values(("address", "uint256"), data[4:])
    assert (address_bytes(owner), amount) == (OWNER, 7)


def test_a_value_that_its_type_cannot_hold_is_an_argument() -> None:
    with pytest.raises(Rejected) as refusal:
        encode_call("f(uint8)", ("uint8",), (256,))
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize("data", [b"", b"\xff" * 31, b"\x02".rjust(32, b"\0")])
def test_what_is_no_encoding_is_malformed(data: bytes) -> None:
    with pytest.raises(Rejected) as refusal:
        decode_values(("bool",), data)
    assert refusal.value.reason is RejectionReason.MALFORMED
