"""What an engine may ask of training, as data: nothing outside the engines learns which chain it serves.

All terms answer the same questions, so that a reader asks them and never of which kind they are: `weight_bits` of the
committed model, the `watermark` that it must carry, the `mapping` layer in front of it, the `puzzle` that replaces
training (then there is no model, no trace and no count), and what the training `loop` itself obeys.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from learnchain.encoding.codec import Bound

LEAK_BUDGET_DIVISOR = 4
"""Encrypted data may give away inner products up to a quarter of their dimension: a half already shows digits."""

FULL_BITS, QUANTISED_BITS = 32, 8
"""What a weight of a committed model may take: a float, or a small integer with a scale for each tensor."""


@dataclass(frozen=True, slots=True)
class FreeTraining:
    """Leave training unconstrained (PoDL III-B: train freely until phase one ends).

    With `weight_bits` 8 the model that is committed to holds eight-bit weights (PoDL III-C).
    """

    weight_bits: int = FULL_BITS
    watermark: ClassVar[None] = None
    mapping: ClassVar[None] = None
    puzzle: ClassVar[None] = None

    @property
    def loop(self) -> "FreeTraining":
        """Return these terms."""
        return self


@dataclass(frozen=True, slots=True)
class Watermark:
    """Embed these bits by the regulariser of DLBC Eq. 7; every element must pass the confidence threshold (IV-C2).

    `strength_millionths` is the paper's lambda; `threshold_millionths` its 0.9999 (reading DLBC-R14).
    """

    bits: Annotated[bytes, Bound(64)]
    strength_millionths: int
    threshold_millionths: int
    weight_bits: ClassVar[int] = FULL_BITS
    mapping: ClassVar[None] = None
    puzzle: ClassVar[None] = None

    @property
    def watermark(self) -> "Watermark":
        """Return this mark."""
        return self

    @property
    def loop(self) -> "Watermark":
        """Return this mark."""
        return self


@dataclass(frozen=True, slots=True)
class SecureMapping:
    """Fix the first layer to these query vectors (PoLe 3.4); one row per output, signed weights offset by 2**15.

    `kernel` 0 maps whole samples; else each row is a filter of kernel x kernel over every channel (CSML). `identity`
    names what the rows were drawn from; a training record carries it.
    """

    rows: Annotated[tuple[Annotated[bytes, Bound(65_536)], ...], Bound(4_096)]
    kernel: int = 0
    identity: Annotated[bytes, Bound(32)] = b""
    weight_bits: ClassVar[int] = FULL_BITS
    watermark: ClassVar[None] = None
    puzzle: ClassVar[None] = None
    loop: ClassVar[FreeTraining] = FreeTraining()

    @property
    def mapping(self) -> "SecureMapping":
        """Return this layer."""
        return self


@dataclass(frozen=True, slots=True)
class HashPuzzle:
    """Train nothing; search a commitment whose SHA-256 digest, read as a number, lies below the target."""

    target: int
    weight_bits: ClassVar[int] = FULL_BITS
    watermark: ClassVar[None] = None
    mapping: ClassVar[None] = None
    loop: ClassVar[FreeTraining] = FreeTraining()

    @property
    def puzzle(self) -> "HashPuzzle":
        """Return this puzzle."""
        return self


LoopTerms = FreeTraining | Watermark
TrainingTerms = FreeTraining | Watermark | SecureMapping | HashPuzzle


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """Hold what the miner chose inside the task's ranges; with the seeds they determine a declared run bit by bit."""

    learning_rate_millionths: int
    momentum_millionths: int
    weight_decay_millionths: int
    batch_size: int
    epochs: int
