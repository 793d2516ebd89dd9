"""The vectors of every engine that has a folder of its own; `new engine` adds one line."""

from learnchain.testing.podl_cases import podl_vectors
from learnchain.testing.vectors import Vector


def engine_vectors() -> tuple[Vector, ...]:
    """Return the vectors of these engines."""
    return (
        *podl_vectors(),
        # new engines above this line
    )
