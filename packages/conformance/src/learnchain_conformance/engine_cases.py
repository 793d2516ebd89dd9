"""The vectors of every engine; `learnchain new engine` adds one line."""

from learnchain.testing import dlbc_cases, podl_cases, pole_cases, proof_of_work_cases
from learnchain.testing.vectors import Vector


def engine_vectors() -> tuple[Vector, ...]:
    """Return the vectors of all engines."""
    return (
        *dlbc_cases.dlbc_vectors(),
        *pole_cases.pole_vectors(),
        *proof_of_work_cases.proof_of_work_vectors(),
        *podl_cases.podl_vectors(),
        # new engines above this line
    )
