"""The target follows the time that solutions take, and settles at the aim."""

import random

from hypothesis import given
from hypothesis import strategies as st

from learnchain.engines.proof_of_work.rules import Difficulty
from learnchain.protocol.puzzle import LARGEST_TARGET

RULE = Difficulty(60_000, LARGEST_TARGET >> 20, 8)
TARGETS = st.integers(1, LARGEST_TARGET)
TIMES = st.integers(0, 10**9)


def test_genesis_starts_with_the_first_target() -> None:
    assert RULE.decode_target(b"") == LARGEST_TARGET >> 20


@given(TARGETS, TIMES, TIMES)
def test_a_slower_solution_never_makes_the_next_puzzle_harder(target: int, one: int, other: int) -> None:
    memory = target.to_bytes(32, "big")
    quick, slow = (RULE.decode_target(RULE.encode_next_target(memory, each)) for each in sorted((one, other)))
    assert quick <= slow


@given(TARGETS, TIMES)
def test_a_height_moves_the_target_by_at_most_an_eighth_down_and_double_up(target: int, solved: int) -> None:
    following = RULE.decode_target(RULE.encode_next_target(target.to_bytes(32, "big"), solved))
    assert max(1, target - target // 8 - 1) <= following <= min(2 * target, LARGEST_TARGET)


def test_a_solution_in_time_leaves_the_target() -> None:
    memory = (12_345).to_bytes(32, "big")
    assert RULE.encode_next_target(memory, 60_000) == memory


def test_intervals_settle_at_the_aim_when_the_power_grows_tenfold() -> None:
    source, memory, hashes_per_millisecond = random.Random(5), b"", 17.0
    times: list[float] = []
    for height in range(2_000):
        if height == 1_000:
            hashes_per_millisecond *= 10
        mean = (LARGEST_TARGET / RULE.decode_target(memory)) / hashes_per_millisecond
        times.append(source.expovariate(1 / mean))
        memory = RULE.encode_next_target(memory, int(times[-1]))
    for settled in (times[200:1_000], times[1_200:]):
        assert 0.9 < sum(settled) / len(settled) / RULE.aim_milliseconds < 1.1
