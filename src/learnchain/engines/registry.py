"""The consensus engines by the name that `--consensus` takes; a fifth protocol is one more line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.encoding.codec import decode
from learnchain.engines import dlbc, podl, pole, proof_of_work
from learnchain.engines.contract import LocalDurations, Rules
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class Engine:
    """Join an engine's class with what builds it for so many miners on one machine, whose tasks need these phases.

    `tasks` are what a local network trains where nobody names another, and posts too unless the engine takes no
    commissions. A `variant` is an engine under other parameters; comparisons leave it out. An engine whose work is no
    training needs other parameters on `simulated` machines, which try so many hashes a second together.
    """

    kind: type[Any]
    build_local: Callable[[LocalDurations, int], Rules]
    tasks: tuple[str, ...] = ("digits",)
    is_variant: bool = False
    accepts_posted_tasks: bool = True
    build_simulated: Callable[[LocalDurations, int], Rules] | None = None

    @property
    def about(self) -> str:
        """Return what the engine is, as the first line of its class says."""
        return (self.kind.__doc__ or "").partition("\n")[0]


ENGINES: dict[str, Engine] = {
    "dlbc": Engine(dlbc.Dlbc, dlbc.build_local_engine),
    "pole": Engine(pole.Pole, pole.build_local_engine),
    "pole-paper": Engine(pole.Pole, pole.build_printed_engine, is_variant=True),
    "podl": Engine(podl.Podl, podl.build_local_engine, ("digits-in-blocks",)),
    "podl-quantised": Engine(podl.Podl, podl.build_quantised_engine, ("digits-in-blocks",), is_variant=True),
    "proof_of_work": Engine(
        proof_of_work.ProofOfWork,
        proof_of_work.build_local_engine,
        accepts_posted_tasks=False,
        build_simulated=proof_of_work.build_simulated_engine,
    ),
    # new engines above this line
}


def find_engine(name: str) -> Engine:
    """Return the engine of a name; refuse any other name."""
    found = ENGINES.get(name)
    if found is None:
        known = ", ".join(sorted(ENGINES))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no consensus {name!r}; choose one of: {known}")
    return found


def decode_engine(name: str, canonical: bytes) -> Rules:
    """Return the engine with the parameters that a genesis file carries."""
    kind = find_engine(name).kind
    prefix = name.encode()
    if not canonical.startswith(prefix):
        raise Rejected(RejectionReason.MALFORMED, f"the engine parameters are not those of {name}")
    rules: Rules = decode(kind, canonical[len(prefix) :])
    return rules
