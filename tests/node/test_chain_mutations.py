"""Spoiled bytes through every decoder: nothing but `Rejected` comes out, in bounded time and memory."""

import random
import resource
import time
from pathlib import Path

import pytest

from learnchain.rejection import Rejected
from tests.node.mutations import Decoder, decoders, mutated

SLOWEST_SECONDS = 0.5
MEMORY_BYTES = 64 * 1024 * 1024


def read_seconds(decoder: Decoder, data: bytes) -> tuple[bool, float]:
    """Read once; return whether it was refused and the seconds of this thread."""
    started = time.thread_time()
    try:
        decoder.read(data)
        refused = False
    except Rejected:
        refused = True
    return refused, time.thread_time() - started


def spoil(name: str, decoder: Decoder, count: int) -> int:
    """Feed mutated messages; return how many were refused."""
    hand = random.Random(name)
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        data = mutated(decoder.seeds, hand)
        try:
            was_refused, seconds = read_seconds(decoder, data)
            if seconds >= SLOWEST_SECONDS:
                # A full garbage collection of a test process that has run thousands of tests can fall into any read.
                _, seconds = read_seconds(decoder, data)
        except Exception as error:
            raise AssertionError(f"{name} fails on {data.hex()}") from error
        refused += was_refused
        assert seconds < SLOWEST_SECONDS, (name, data.hex())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES, name
    return refused


def test_three_thousand_mutations_of_every_message(tmp_path: Path) -> None:
    for name, decoder in decoders(tmp_path).items():
        for seed in decoder.seeds:
            if not name.startswith("noun "):
                decoder.read(seed)
        refused = spoil(name, decoder, 3_000 if name != "json-rpc" else 500)
        assert refused > 0 or name in {"json-rpc", "frames"}, name


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_hundred_thousand_mutations_of_every_message(tmp_path: Path) -> None:
    """Two minutes of one core, of them twenty seconds for json-rpc."""
    for name, decoder in decoders(tmp_path).items():
        spoil(name, decoder, 100_000)
