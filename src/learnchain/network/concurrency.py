"""Background tasks under supervision: the one place of the network where an unknown exception is caught and logged."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from learnchain.primitives.rejection import Rejected, Unavailable

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
        task = asyncio.create_task(_supervised(what, coroutine), name=what)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _supervised(what: str, coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        await coroutine
    except (Rejected, Unavailable) as outcome:
        _log.debug("%s: %s", what, outcome)
    except Exception:  # noqa: BLE001 - the supervisor: the bug is logged, the node goes on
        _log.exception("%s failed: this is a bug", what)
