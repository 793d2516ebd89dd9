"""A sealed key opens for its recipient and its purpose alone."""

import pytest

from learnchain.encoding.cryptography import address_of, keccak256
from learnchain.market.package import derive_public_key, open_key, seal_key, seal_purpose
from learnchain.rejection import Rejected, RejectionReason

OWN, OTHER, EPHEMERAL, KEY = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32, b"\x04" * 32
PURPOSE = seal_purpose(b"\x05" * 32, 1)


def test_the_registered_key_is_the_account_s():
    assert keccak256(derive_public_key(OWN))[-20:] == address_of(OWN)


def test_the_recipient_opens_it():
    assert open_key(seal_key(KEY, derive_public_key(OWN), PURPOSE, EPHEMERAL), OWN, PURPOSE) == KEY


@pytest.mark.parametrize(("key", "purpose"), [(OTHER, PURPOSE), (OWN, seal_purpose(b"\x05" * 32, 2))])
def test_nobody_and_nothing_else_does(key: bytes, purpose: bytes):
    sealed = seal_key(KEY, derive_public_key(OWN), PURPOSE, EPHEMERAL)
    with pytest.raises(Rejected) as caught:
        open_key(sealed, key, purpose)
    assert caught.value.reason is RejectionReason.KEY_MISMATCH


@pytest.mark.parametrize("index", [0, 5, 33, 80])
def test_a_changed_box_is_refused(index: int):
    sealed = bytearray(seal_key(KEY, derive_public_key(OWN), PURPOSE, EPHEMERAL))
    sealed[index] ^= 0x40
    with pytest.raises(Rejected) as caught:
        open_key(bytes(sealed), OWN, PURPOSE)
    assert caught.value.reason is RejectionReason.KEY_MISMATCH


def test_wrong_sizes_and_points_are_refused():
    with pytest.raises(Rejected) as caught:
        open_key(b"short", OWN, PURPOSE)
    assert caught.value.reason is RejectionReason.MALFORMED
    with pytest.raises(Rejected) as caught:
        seal_key(KEY, b"\x07" * 64, PURPOSE, EPHEMERAL)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
    with pytest.raises(Rejected) as caught:
        seal_key(b"short", derive_public_key(OWN), PURPOSE, EPHEMERAL)
    assert caught.value.reason is RejectionReason.KEY_MISMATCH
