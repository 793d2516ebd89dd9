"""Speak the contract ABI: call data in, return values out; both of our contracts are spoken with through this."""

from typing import Any

from eth_abi import decode as abi_decode
from eth_abi import encode as abi_encode
from eth_abi.exceptions import DecodingError, EncodingError

from learnchain.primitives.codec import Address
from learnchain.primitives.hashing import keccak256
from learnchain.primitives.rejection import Rejected, RejectionReason


def selector(signature: str) -> bytes:
    """Return the four bytes that name a function or an error."""
    return keccak256(signature.encode())[:4]


def call_data(signature: str, types: tuple[str, ...], values: tuple[Any, ...]) -> bytes:
    """Encode a call; refuse values that its types cannot hold (ARGUMENT_INVALID)."""
    try:
        return selector(signature) + abi_encode(types, values)
    except EncodingError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{signature}: {error}") from error


def decoded(types: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    """Decode what a contract returned or logged; refuse what is no such encoding (MALFORMED)."""
    try:
        return abi_decode(types, data)
    except (DecodingError, OverflowError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"not the ABI encoding of {', '.join(types)}") from error


def address_text(address: Address) -> str:
    """Return an address as the ABI takes it."""
    return "0x" + address.hex()


def address_bytes(text: str) -> Address:
    """Return the bytes of an address that the ABI gave."""
    return bytes.fromhex(text.removeprefix("0x"))
