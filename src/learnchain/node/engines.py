"""The consensus engines by the name that `--consensus` takes; a fifth protocol is one more line."""

from learnchain.primitives.codec import decode
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.rules.contract import Rules
from learnchain.rules.dlbc import Dlbc

ENGINES: dict[str, type[Dlbc]] = {"dlbc": Dlbc}


def engine_from(name: str, canonical: bytes) -> Rules:
    """Return the engine with the parameters that a genesis file carries."""
    kind = ENGINES.get(name)
    if kind is None:
        known = ", ".join(sorted(ENGINES))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no consensus {name!r}; choose one of: {known}")
    prefix = name.encode()
    if not canonical.startswith(prefix):
        raise Rejected(RejectionReason.MALFORMED, f"the engine parameters are not those of {name}")
    return decode(kind, canonical[len(prefix) :])
