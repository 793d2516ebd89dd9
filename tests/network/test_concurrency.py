import asyncio
import time

import pytest

from learnchain.network.concurrency import LONGEST_PAUSE_SECONDS, SystemClock, Tasks, retry
from learnchain.rejection import Rejected, RejectionReason, Unavailable


def test_system_clock_waits_until_the_time_and_not_longer() -> None:
    async def scenario() -> None:
        clock = SystemClock()
        start = clock.monotonic_seconds()
        target = clock.now_milliseconds() + 120
        await clock.sleep_until(target)
        assert clock.now_milliseconds() >= target
        assert 0.1 < clock.monotonic_seconds() - start < 5
        before = clock.monotonic_seconds()
        await clock.sleep_until(target - 60_000)
        assert clock.monotonic_seconds() - before < 1

    asyncio.run(scenario())


def test_system_clock_reads_utc() -> None:
    assert abs(SystemClock().now_milliseconds() - time.time() * 1000) < 1_000


def retried(failures: int, gives_up_at_seconds: float = float("inf")) -> tuple[list[float], int]:
    """Return the pauses of work that fails so often, and at which attempt it succeeded."""
    pauses: list[float] = []
    attempts = iter(range(1, failures + 2))

    async def work() -> int:
        attempt = next(attempts)
        if attempt <= failures:
            raise Unavailable("a file")
        return attempt

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    return pauses, asyncio.run(retry("a test", work, lambda pause: pause >= gives_up_at_seconds, sleep))


def test_retry_pauses_longer_and_longer_up_to_a_limit() -> None:
    pauses, attempt = retried(7)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    assert attempt == 8
    assert retried(0) == ([], 1)


def test_retry_gives_up_before_the_pause_that_is_too_long_and_hands_on_what_is_missing() -> None:
    with pytest.raises(Unavailable, match="a file"):
        retried(4, gives_up_at_seconds=4.0)
    assert retried(3, gives_up_at_seconds=4.0) == ([0.5, 1.0, 2.0], 4)


def test_retry_repeats_no_refusal() -> None:
    async def refuse() -> None:
        raise Rejected(RejectionReason.MALFORMED, "never right")

    with pytest.raises(Rejected):
        asyncio.run(retry("a test", refuse))


def test_tasks_outlive_a_failure_of_one_and_nothing_runs_after_they_are_closed() -> None:
    async def scenario() -> list[str]:
        tasks, done = Tasks(), list[str]()

        async def work(name: str) -> None:
            done.append(name)
            if name == "fails":
                raise ZeroDivisionError

        async def wait() -> None:
            await asyncio.Event().wait()

        tasks.start("fails", work("fails"))
        waiting = tasks.start("waits", wait())
        await tasks.start("goes on", work("goes on"))
        await tasks.close()
        assert waiting.cancelled()
        late = tasks.start("late", work("late"))
        await asyncio.gather(late, return_exceptions=True)
        assert late.cancelled()
        return done

    assert asyncio.run(scenario()) == ["fails", "goes on"]
