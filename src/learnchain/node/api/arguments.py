"""Read the arguments of `learn_*` calls: whatever strangers send becomes a checked value or a refusal."""

from typing import Any

from learnchain.primitives.codec import Hash32
from learnchain.primitives.rejection import Rejected, RejectionReason

_MAXIMUM_DIGITS = 20


def read_height(value: Any, what: str = "height") -> int:
    """Return a whole number, written as a number, in decimal or as 0x-hex."""
    try:
        if isinstance(value, str) and len(value) <= _MAXIMUM_DIGITS:
            return int(value, 16 if value.startswith("0x") else 10)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64:
            return value
    except ValueError:
        pass
    raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the {what} is a whole number")


def is_hash(value: Any) -> bool:
    """Say whether a value is written as 32 bytes are, with or without 0x."""
    return isinstance(value, str) and len(value.removeprefix("0x")) == 64


def read_hash(value: Any, what: str = "hash") -> Hash32:
    """Return 32 bytes written in hex, with or without 0x."""
    try:
        if is_hash(value):
            return bytes.fromhex(value.removeprefix("0x"))
    except ValueError:
        pass
    raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the {what} is 32 bytes in hex")
