import asyncio
import time

import pytest

from learnchain.simulation.simulated_network import START_MILLISECONDS, Deadlock, SimulatedClock, run_simulated


def test_hours_pass_in_no_time_and_exactly() -> None:
    async def scenario() -> tuple[int, float]:
        clock = SimulatedClock()
        await asyncio.gather(asyncio.sleep(7_200), clock.sleep_until(START_MILLISECONDS + 10_000_000))
        return clock.now_milliseconds(), clock.monotonic_seconds()

    start = time.perf_counter()
    milliseconds, seconds = run_simulated(scenario())
    assert time.perf_counter() - start < 5
    assert milliseconds == START_MILLISECONDS + 10_000_000
    assert seconds == pytest.approx(10_000)


def test_timers_fire_in_order_and_timeouts_are_virtual() -> None:
    events: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        events.append(name)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(25):
                await asyncio.gather(sleeper("late", 30), sleeper("second", 20), sleeper("first", 10))

    run_simulated(scenario())
    assert events == ["first", "second"]


def test_busy_tasks_take_no_virtual_time() -> None:
    async def scenario() -> float:
        for _ in range(1_000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run_simulated(scenario()) == 0.0


def test_past_times_are_reached_at_once() -> None:
    async def scenario() -> float:
        await SimulatedClock(5_000).sleep_until(4_000)
        return asyncio.get_running_loop().time()

    assert run_simulated(scenario()) == 0.0


def test_everybody_waiting_for_ever_is_named() -> None:
    async def scenario() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run_simulated(scenario())


def test_executor_runs_in_order_and_carries_errors() -> None:
    async def scenario() -> list[int]:
        done: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(done.append, number) for number in range(5)))
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return done

    assert run_simulated(scenario()) == list(range(5))
