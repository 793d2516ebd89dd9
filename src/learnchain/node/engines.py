"""The consensus engines by the name that `--consensus` takes; a fifth protocol is one more line."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from learnchain.primitives.codec import decode
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import QUANTISED_BITS
from learnchain.rules import podl, proof_of_work
from learnchain.rules.contract import Rules
from learnchain.rules.dlbc import Dlbc
from learnchain.rules.dlbc.schedule import Phases
from learnchain.rules.pole import Pole
from learnchain.rules.pole.equations import OmmerFormula, OmmerFunding, OmmerRules
from learnchain.rules.pole.layer import MappingLayer, MappingMode
from learnchain.rules.pole.schedule import Times


@dataclass(frozen=True, slots=True)
class Engine:
    """Join an engine's class with what builds it for so many miners on one machine, whose tasks need these phases.

    `tasks` are what a local network trains where nobody names another, and posts too unless the engine takes no
    commissions. A `variant` is an engine under other parameters; comparisons leave it out.
    """

    kind: type[Any]
    local: Callable[[Phases, int], Rules]
    tasks: tuple[str, ...] = ("digits",)
    variant: bool = False
    posted: bool = True

    @property
    def about(self) -> str:
        """Return what the engine is, as the first line of its class says."""
        return (self.kind.__doc__ or "").partition("\n")[0]


ENGINES: dict[str, Engine] = {
    "dlbc": Engine(Dlbc, lambda phases, _miners: Dlbc(phases=phases)),
    "pole": Engine(Pole, lambda phases, miners: Pole(times=_event_driven(phases, miners))),
    "pole-paper": Engine(Pole, lambda phases, miners: _as_printed(_event_driven(phases, miners)), variant=True),
    "podl": Engine(podl.Podl, lambda phases, _miners: podl.local(phases), ("digits-in-blocks",)),
    "podl-quantised": Engine(
        podl.Podl, lambda phases, _miners: _quantised(phases), ("digits-in-blocks",), variant=True
    ),
    "proof_of_work": Engine(proof_of_work.ProofOfWork, lambda phases, _miners: _hashing(phases), posted=False),
    # new engines above this line
}


def _as_printed(times: Times) -> Pole:
    """Return PoLe as its paper prints it: Algorithm 3, models shown at once, Equation 2 in new coins (POLE-R3, R7)."""
    ommers = OmmerRules(OmmerFormula.LITERAL, OmmerFunding.MINTED)
    return Pole(times, MappingLayer(MappingMode.PAPER), ommers, open_broadcast=True)


def _quantised(phases: Phases) -> podl.Podl:
    """Return PoDL whose miners commit to weights of eight bits: models of a quarter of the size (III-C, PODL-R9)."""
    return replace(podl.local(phases), model_bits=QUANTISED_BITS)


def _event_driven(phases: Phases, miners: int) -> Times:
    """Return what bounds an event-driven height whose tasks need these phases.

    Two solutions usually end it, so bounds may be wide: only what is missed is waited for.
    """
    return Times(
        key_milliseconds=3 * phases.one_milliseconds,
        minimum_milliseconds=min(1_000, phases.two_milliseconds),
        longest_milliseconds=4 * (phases.one_milliseconds + phases.two_milliseconds),
        grace_milliseconds=2 * phases.one_milliseconds,
        release_milliseconds=phases.release_milliseconds,
        reveal_milliseconds=phases.reveal_milliseconds,
        block_milliseconds=phases.three_milliseconds,
        solutions=min(2, miners),
    )


def _hashing(phases: Phases) -> Rules:
    """Return proof of work whose blocks have as much time to spread as those of the tasks' own engines."""
    local = proof_of_work.LOCAL
    return replace(local, block_milliseconds=max(local.block_milliseconds, phases.three_milliseconds))


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
