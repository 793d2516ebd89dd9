"""The consensus engines by the name that `--consensus` takes; a fifth protocol is one more line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.primitives.codec import decode
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.rules import proof_of_work
from learnchain.rules.contract import Rules
from learnchain.rules.dlbc import Dlbc
from learnchain.rules.dlbc.schedule import Phases


@dataclass(frozen=True, slots=True)
class Engine:
    """Join an engine's class with what builds it for several nodes on one machine, whose tasks need these phases."""

    kind: type[Any]
    local: Callable[[Phases], Rules]


ENGINES: dict[str, Engine] = {
    "dlbc": Engine(Dlbc, lambda phases: Dlbc(phases=phases)),
    "proof_of_work": Engine(proof_of_work.ProofOfWork, lambda _phases: proof_of_work.LOCAL),
}


def engine_named(name: str) -> Engine:
    """Return the engine of a name; refuse any other name."""
    found = ENGINES.get(name)
    if found is None:
        known = ", ".join(sorted(ENGINES))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no consensus {name!r}; choose one of: {known}")
    return found


def engine_from(name: str, canonical: bytes) -> Rules:
    """Return the engine with the parameters that a genesis file carries."""
    kind = engine_named(name).kind
    prefix = name.encode()
    if not canonical.startswith(prefix):
        raise Rejected(RejectionReason.MALFORMED, f"the engine parameters are not those of {name}")
    rules: Rules = decode(kind, canonical[len(prefix) :])
    return rules
