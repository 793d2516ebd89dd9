"""A reading: what we do where a paper contradicts itself, is silent, or printed what cannot be carried out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """Quote the paper, say what we do and why, and name the vector that shows it."""

    identifier: str
    paper_says: str
    we_do: str
    because: str
    vector: str
