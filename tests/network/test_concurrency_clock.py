import asyncio
import time

from learnchain.network.concurrency import SystemClock


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
