"""Mark which function carries out which equation or algorithm of the papers, so that it can be counted and shown.

A reading: what we do where a paper contradicts itself, is silent, or printed what cannot be carried out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Citation:
    """Name one numbered equation or algorithm of a paper and the function that carries it out."""

    paper: str
    kind: str
    number: int
    formula: str
    module: str
    function: str


_REGISTER: dict[tuple[str, str, int], Citation] = {}


def equation(
    paper: str, number: int, formula: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Register the decorated function as the one that carries out an equation; a second one is our bug."""
    return _register(paper, "equation", number, formula)


def algorithm(
    paper: str, number: int, formula: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Register the decorated function as the one that carries out an algorithm."""
    return _register(paper, "algorithm", number, formula)


def citations() -> tuple[Citation, ...]:
    """Return all registered citations in the order of paper, kind and number."""
    return tuple(_REGISTER[key] for key in sorted(_REGISTER))


def _register(
    paper: str, kind: str, number: int, formula: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    def mark(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        key = (paper, kind, number)
        known = _REGISTER.get(key)
        if known is not None and (known.module, known.function) != (function.__module__, function.__qualname__):
            raise RuntimeError(f"{paper} {kind} {number} is carried out by {known.module}.{known.function} already")
        _REGISTER[key] = Citation(paper, kind, number, formula, function.__module__, function.__qualname__)
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Interpretation:
    """Quote the paper, say what we do and why, and name the vector that shows it."""

    identifier: str
    paper_says: str
    we_do: str
    because: str
    vector: str
