"""The vectors of every engine; `learnchain new engine` adds one line."""

from learnchain.engines.dlbc import cases as dlbc_cases
from learnchain.engines.podl import cases as podl_cases
from learnchain.engines.pole import cases as pole_cases
from learnchain.engines.proof_of_work import cases as proof_of_work_cases
from learnchain_conformance.vectors import Vector


def engine_vectors() -> tuple[Vector, ...]:
    """Return the vectors of all engines."""
    return (
        *dlbc_cases.dlbc_vectors(),
        *pole_cases.pole_vectors(),
        *proof_of_work_cases.proof_of_work_vectors(),
        *podl_cases.podl_vectors(),
        # new engines above this line
    )
