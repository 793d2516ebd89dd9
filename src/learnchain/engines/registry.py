"""Find engines by the name that `--consensus` takes: those shipped, and plug-ins by their entry point.

Any package adds an engine with an entry point of the group `learnchain.engines` that names an `Engine`. A module is
loaded when its engine is asked for, not before. The shipped names are found in a bare checkout too, where no
installed metadata say so; no plug-in takes one of them.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from learnchain.encoding.codec import decode
from learnchain.engines.contract import Engine, Rules
from learnchain.rejection import Rejected, RejectionReason

GROUP = "learnchain.engines"

SHIPPED = {
    "dlbc": "learnchain.engines.dlbc:ENGINE",
    "pole": "learnchain.engines.pole:ENGINE",
    "pole-paper": "learnchain.engines.pole:PRINTED_ENGINE",
    "proof_of_work": "learnchain.engines.proof_of_work:ENGINE",
    "podl": "learnchain.engines.podl:ENGINE",
    "podl-quantised": "learnchain.engines.podl:QUANTISED_ENGINE",
}
"""The project's own entry points, as `pyproject.toml` names them."""


@cache
def _declared_engines() -> dict[str, tuple[EntryPoint, ...]]:
    """Return what declares each name; more than one declaration is a clash."""
    declared: dict[str, tuple[EntryPoint, ...]] = {
        name: (EntryPoint(name, value, GROUP),) for name, value in SHIPPED.items()
    }
    for plug_in in entry_points(group=GROUP):
        # What the project declares of itself is the table above, whatever an older installation says.
        if plug_in.dist is None or plug_in.dist.name != "learnchain":
            declared[plug_in.name] = (*declared.get(plug_in.name, ()), plug_in)
    return declared


def engine_names() -> tuple[str, ...]:
    """Return every name that an engine is declared under, the shipped ones first; nothing is loaded."""
    return tuple(_declared_engines())


def list_compared_engines() -> tuple[str, ...]:
    """Return the names of all engines but variants: those that a comparison runs, each with a scenario of its own."""
    return tuple(name for name in engine_names() if not find_engine(name).is_variant)


@cache
def find_engine(name: str) -> Engine:
    """Return the engine of a name; refuse any other name, one declared twice, and a plug-in that does not load."""
    declared = _declared_engines().get(name, ())
    if not declared:
        known = ", ".join(sorted(engine_names()))
        detail = f"there is no consensus {name!r}; choose one of: {known}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    described = " and ".join(_describe(each) for each in declared)
    if len(declared) > 1:
        detail = f"consensus {name!r} is declared more than once: {described}; uninstall or rename the plug-in"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    try:
        engine = declared[0].load()
    except Exception as error:
        detail = f"consensus {name!r} cannot be loaded: {described}: {error!r}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
    if not isinstance(engine, Engine):
        detail = f"consensus {name!r} names no engine: {described} is a {type(engine).__name__}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    return engine


def _describe(declared: EntryPoint) -> str:
    package = "learnchain" if declared.dist is None else declared.dist.name
    return f"{declared.value} of {package}"


def decode_engine(name: str, canonical: bytes) -> Rules:
    """Return the engine with the parameters that a genesis file carries."""
    kind = find_engine(name).kind
    prefix = name.encode()
    if not canonical.startswith(prefix):
        raise Rejected(RejectionReason.MALFORMED, f"the engine parameters are not those of {name}")
    rules: Rules = decode(kind, canonical[len(prefix) :])
    return rules
