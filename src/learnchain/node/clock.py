"""Tell the time: handed to everything that waits, so that a simulation can hand out another one."""

import asyncio
import time
from typing import Protocol

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
