"""Make traces and steps of training that never took place, for chains that are played without a model."""

from learnchain.primitives.codec import Hash32, encode
from learnchain.primitives.dispute_messages import StateLeaf
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.merkle import list_root
from learnchain.primitives.messages import TrainingRecord
from learnchain.primitives.training_terms import HyperParameters

CLASS: Hash32 = tagged_hash("builder-class")
"""The reproducibility class of everybody in a made-up world."""
HYPER_PARAMETERS = HyperParameters(10_000, 900_000, 0, 32, 3)
STATES, INTERVAL_STEPS = 4, 6


def trace_of(seed: Hash32) -> tuple[StateLeaf, ...]:
    """Return the committed states of a run: `STATES` of them, `INTERVAL_STEPS` apart."""
    return tuple(
        StateLeaf(place * INTERVAL_STEPS, seed, *(tagged_hash(what, seed, bytes([place])) for what in _PARTS))
        for place in range(STATES)
    )


def record_of(seed: Hash32) -> TrainingRecord:
    """Return what a miner reveals of such a run."""
    root = list_root(tuple(encode(leaf) for leaf in trace_of(seed)))
    return TrainingRecord(root, STATES, b"\x01\x71" + seed, HYPER_PARAMETERS, machine_class=CLASS)


def steps_between(first: Hash32, following: Hash32, variant: bytes = b"") -> tuple[Hash32, ...]:
    """Return the digests of every step of a segment, ends included; `variant` makes another chain."""
    between = (tagged_hash("step", first, bytes([place]), variant) for place in range(1, INTERVAL_STEPS))
    return (first, *between, following)


_PARTS = ("builder-order", "builder-points", "builder-state")
