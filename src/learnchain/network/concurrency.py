"""Tell the time: handed to everything that waits, so that a simulation can hand out another one.

Background tasks under supervision, the one place where an unknown exception is caught and logged; and one way to try
again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from learnchain.rejection import Rejected, Unavailable

MAXIMUM_SLEEP_SECONDS = 3_600.0
"""Sleep in pieces: the wall clock may be set while we sleep."""


class Clock(Protocol):
    """Give wall time to schedules and steady time to durations."""

    def now_milliseconds(self) -> int:
        """Return the milliseconds since 1970 in UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Return a time that never goes backwards and means nothing by itself."""
        ...

    async def sleep_until(self, milliseconds: int) -> None:
        """Return once `now_milliseconds()` has reached the given time; at once when it has already."""
        ...


class SystemClock:
    """Read the clock of the machine."""

    __slots__ = ()

    def now_milliseconds(self) -> int:
        """Return the milliseconds since 1970 in UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        """Return the steady clock of the machine."""
        return time.monotonic()

    async def sleep_until(self, milliseconds: int) -> None:
        """Sleep in pieces of at most an hour, looking at the wall clock after each."""
        while (left := milliseconds - self.now_milliseconds()) > 0:
            await asyncio.sleep(min(left / 1000, MAXIMUM_SLEEP_SECONDS))


logger = logging.getLogger(__name__)
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
Result = TypeVar("Result")


async def retry(
    what: str,
    work: Callable[[], Awaitable[Result]],
    gives_up: Callable[[float], bool] = lambda _pause_seconds: False,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    level: int = logging.INFO,
) -> Result:
    """Return what `work` comes to, tried again with growing pauses while something is `Unavailable`.

    `gives_up` is asked after every failure with the pause that would follow; when it says so the failure is raised.
    """
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except Unavailable as error:
            logger.log(level, "%s waits: %s", what, error)
            if gives_up(pause_seconds):
                raise
        await sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


@dataclass
class Tasks:
    """Supervise what runs beside the event loop's main path: a failure is logged and ends only itself.

    Where strangers cause refusals, as in the network, they are logged for debugging only.
    """

    refusal_level: int = logging.WARNING
    _running: dict[asyncio.Task[None], None] = field(default_factory=dict)
    """In the order of their start: a set of tasks is ordered by places in memory."""
    _is_closed: bool = False

    def start(self, name: str, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Run a coroutine under supervision; after `close` it is cancelled before its first step."""
        task = asyncio.create_task(self._run_supervised(name, coroutine), name=name)
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))
        # A task that is cancelled before its first step never awaits its coroutine.
        task.add_done_callback(lambda _task: coroutine.close())
        if self._is_closed:
            task.cancel()
        return task

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        self._is_closed = True
        tasks = [task for task in self._running if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_supervised(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            await coroutine
        except Rejected as error:
            logger.log(self.refusal_level, "%s is refused: %s", name, error)
        except Unavailable as error:
            logger.log(min(self.refusal_level, logging.INFO), "%s waits for what is not here: %s", name, error)
        except Exception:
            logger.exception("%s failed; this is a bug of ours", name)
