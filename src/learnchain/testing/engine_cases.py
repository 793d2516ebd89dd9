"""The vectors of every engine that has a folder of its own; `learnchain new engine` adds one line."""

from learnchain.testing import podl_cases
from learnchain.testing.vectors import Vector


def engine_vectors() -> tuple[Vector, ...]:
    """Return the vectors of these engines."""
    return (
        *podl_cases.podl_vectors(),
        # new engines above this line
    )
