"""Virtual time: an event loop that jumps to its next timer as soon as nothing else is left to do.

Everything that runs on it (`asyncio.sleep`, `asyncio.timeout`, `wait_for`) takes virtual time only, so hours pass in
milliseconds and two runs with one seed are equal. Work that is given to an executor runs at once, in order.
"""

import asyncio
import selectors
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

Result = TypeVar("Result")

START_MILLISECONDS = 1_800_000_000_000
"""Wall time at which simulations start unless they say otherwise."""


class Deadlock(RuntimeError):
    """Say that every task of a simulation waits and no timer will ever wake one: a bug in what was simulated."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Run callbacks as asyncio does, but let `time()` stand still while they run and jump while nobody does."""

    def __init__(self) -> None:
        self._jump = _JumpingSelector()
        super().__init__(self._jump)

    @override
    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jump.seconds

    @override
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Call the function now: threads would make the order of events depend on the machine."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - carried to whoever awaits the future
            future.set_exception(error)
        return future


class SimulatedClock:
    """Read virtual time from the running simulated loop; a `Clock`."""

    __slots__ = ("_start_milliseconds",)

    def __init__(self, start_milliseconds: int = START_MILLISECONDS) -> None:
        self._start_milliseconds = start_milliseconds

    def now_milliseconds(self) -> int:
        """Return the wall time of the simulation."""
        return self._start_milliseconds + round(self.monotonic_seconds() * 1000)

    def monotonic_seconds(self) -> float:
        """Return the loop's virtual seconds."""
        return asyncio.get_running_loop().time()

    async def sleep_until(self, milliseconds: int) -> None:
        """Wait in virtual time."""
        while (left := milliseconds - self.now_milliseconds()) > 0:
            await asyncio.sleep(left / 1000)


def run_simulated(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time to its end; what it left running is cancelled, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(coroutine)


class _JumpingSelector(selectors.DefaultSelector):
    """Answer `select` at once, moving virtual time on by as long as the loop was ready to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return real events that are there already; else jump, or name the deadlock."""
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self.seconds += timeout
        return events
