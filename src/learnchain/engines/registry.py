"""The consensus engines by the name that `--consensus` takes; a fifth protocol is one more line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.encoding.codec import decode
from learnchain.engines import dlbc, podl, pole, proof_of_work
from learnchain.engines.contract import LocalTimes, Rules
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class Engine:
    """Join an engine's class with what builds it for so many miners on one machine, whose tasks need these phases.

    `tasks` are what a local network trains where nobody names another, and posts too unless the engine takes no
    commissions. A `variant` is an engine under other parameters; comparisons leave it out. An engine whose work is no
    training needs other parameters on `simulated` machines, which try so many hashes a second together.
    """

    kind: type[Any]
    local: Callable[[LocalTimes, int], Rules]
    tasks: tuple[str, ...] = ("digits",)
    variant: bool = False
    posted: bool = True
    simulated: Callable[[LocalTimes, int], Rules] | None = None

    @property
    def about(self) -> str:
        """Return what the engine is, as the first line of its class says."""
        return (self.kind.__doc__ or "").partition("\n")[0]


ENGINES: dict[str, Engine] = {
    "dlbc": Engine(dlbc.Dlbc, dlbc.local),
    "pole": Engine(pole.Pole, pole.local),
    "pole-paper": Engine(pole.Pole, pole.as_printed, variant=True),
    "podl": Engine(podl.Podl, podl.local, ("digits-in-blocks",)),
    "podl-quantised": Engine(podl.Podl, podl.quantised, ("digits-in-blocks",), variant=True),
    "proof_of_work": Engine(
        proof_of_work.ProofOfWork, proof_of_work.local, posted=False, simulated=proof_of_work.simulated
    ),
    # new engines above this line
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
