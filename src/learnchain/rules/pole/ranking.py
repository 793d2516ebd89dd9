"""The value of a task is its reward per unit of time; the highest value is trained (PoLe 3.2, Algorithm 1 line 1)."""

from dataclasses import dataclass
from fractions import Fraction

from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.codec import Hash32
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.selection import PostedTask


@dataclass(frozen=True, slots=True)
class Ranked:
    """Name the task of a height with its value, and all that were ranked; a standing task has no value."""

    posted: PostedTask
    value: Fraction | None
    waiting: int
    ranking: tuple[tuple[str, Hash32], ...]


def task_value(posted: PostedTask) -> Fraction:
    """Return the reward in wei for each second of the task's time limit: an overestimated limit lowers it (3.5)."""
    return Fraction(posted.task.reward_wei, posted.specification.time_limit_seconds)


def most_valuable(parent: ChainState, in_time: tuple[PostedTask, ...], chain: ChainParameters) -> Ranked:
    """Return the most valuable recorded task, ties by task id; a standing task, in turn, when none waits (1, 3.2)."""
    scored = sorted((-task_value(each), each.task.task_id) for each in in_time)
    by_id = {each.task.task_id: each for each in in_time}
    ranking: tuple[tuple[str, Hash32], ...] = tuple((value_text(-value), task_id) for value, task_id in scored)
    if not scored:
        standing = chain.standing_tasks()
        return Ranked(PostedTask(*standing[(parent.height + 1) % len(standing)]), None, 0, ranking)
    return Ranked(by_id[scored[0][1]], -scored[0][0], len(in_time), ranking)


def value_text(value: Fraction | None) -> str:
    """Return a value for people: whole wei a second."""
    return "" if value is None else str(value.numerator // value.denominator)
