"""Tell the time: handed to everything that waits, so that a simulation can hand out another one.

Background tasks under supervision: the one place of the network where an unknown exception is caught and logged.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

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


_log = logging.getLogger(__name__)


class TaskSet:
    """Run tasks that nobody awaits; a failure of one is logged and ends only itself."""

    def __init__(self) -> None:
        # A dictionary, not a set: what ends first when all end must not depend on places in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False

    def start(self, what: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a task; `what` names it in the log. After `close` nothing starts any more."""
        if self._closed:
            coroutine.close()
            return
        task = asyncio.create_task(_run_supervised(what, coroutine), name=what)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_supervised(what: str, coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        await coroutine
    except (Rejected, Unavailable) as outcome:
        _log.debug("%s: %s", what, outcome)
    except Exception:  # noqa: BLE001 - the supervisor: the bug is logged, the node goes on
        _log.exception("%s failed: this is a bug", what)


logger = logging.getLogger(__name__)


@dataclass
class Tasks:
    """Supervise what runs beside the event loop's main path: a failure is logged, the node goes on."""

    running: dict[asyncio.Task[None], None] = field(default_factory=dict)
    """In the order of their start: a set of tasks is ordered by places in memory."""

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine under supervision."""
        task = asyncio.create_task(self._run_supervised(coroutine, name), name=name)
        self.running[task] = None
        task.add_done_callback(lambda done: self.running.pop(done, None))
        # A task that is cancelled before its first step never awaits its coroutine.
        task.add_done_callback(lambda _task: coroutine.close())
        return task

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        for task in tuple(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _run_supervised(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except Rejected as error:
            logger.warning("%s is refused: %s", name, error)
        except Unavailable as error:
            logger.info("%s waits for what is not here: %s", name, error)
        except Exception:
            logger.exception("%s failed; this is a bug of ours", name)
