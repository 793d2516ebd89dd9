"""Run what strangers ask to compute in a process of its own: a hostile `eth_call` costs the node nothing but a child.

Adversarial code runs at half a megagas a second here, so one call could keep the engine's thread for many seconds.
The child reads the same store, has bounded memory and low priority, and is killed when time is up.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from learnchain.execution.call_worker import MAXIMUM_ANSWER_BYTES
from learnchain.execution.engine import ExecutionEngine, Reverted
from learnchain.rejection import Rejected, RejectionReason, Unavailable

logger = logging.getLogger(__name__)
CALL_SECONDS = 5.0
START_SECONDS = 60.0
MAXIMUM_WAITING = 64

COMPUTING_METHODS = frozenset(
    {"eth_call", "eth_estimateGas", "eth_getLogs", "eth_getProof", "eth_getBlockReceipts", "debug_traceTransaction"}
)


class CallProcess:
    """Stand before an engine: send computing methods to the child, one at a time, and all others to the engine."""

    __slots__ = ("_chain_id", "_child", "_closed", "_engine", "_limit_seconds", "_path", "_turn", "_waiting")

    def __init__(self, engine: ExecutionEngine, path: Path, chain_id: int, limit_seconds: float = CALL_SECONDS) -> None:
        self._engine = engine
        self._path = path
        self._chain_id = chain_id
        self._limit_seconds = limit_seconds
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one call; raise `Rejected` (CALL_ABORTED) for one that takes too long or too much memory."""
        if method not in COMPUTING_METHODS:
            return await self._engine.rpc(method, params)
        if self._waiting >= MAXIMUM_WAITING or self._closed:
            raise Unavailable("too many calls wait to be computed")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._compute(method, params)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the child."""
        self._closed = True
        await self._end()

    async def _compute(self, method: str, params: Sequence[Any]) -> Any:
        if self._closed:
            raise Unavailable("the node stops")
        child = await self._running()
        request = json.dumps({"method": method, "params": list(params)}).encode() + b"\n"
        try:
            async with asyncio.timeout(self._limit_seconds):
                line = await _exchange(child, request)
        except TimeoutError as error:
            await self._end()
            detail = f"the call took longer than {self._limit_seconds:g} s; ask a node of your own for more"
            raise Rejected(RejectionReason.CALL_ABORTED, detail) from error
        except BaseException:
            # Cancelled between question and answer: the next caller must not read this one's answer.
            await self._end()
            raise
        if not line:
            await self._end()
            raise Rejected(RejectionReason.CALL_ABORTED, "the call used more memory than a caller may use")
        return _result(json.loads(line))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "learnchain.execution.call_worker",
            str(self._path),
            str(self._chain_id),
            str(self._limit_seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2 * MAXIMUM_ANSWER_BYTES,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await _exchange(self._child, b"")
        except TimeoutError as error:
            await self._end()
            raise Unavailable("the process for calls did not start in time") from error
        except BaseException:
            await self._end()
            raise
        if not ready:
            await self._end()
            raise Unavailable("the process for calls could not start")
        return self._child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()


async def _exchange(child: asyncio.subprocess.Process, request: bytes) -> bytes:
    """Write a line and return the next one; empty bytes when the child has ended."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the child has no pipes")
    try:
        child.stdin.write(request)
        await child.stdin.drain()
        return await child.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _result(content: dict[str, Any]) -> Any:
    if "result" in content:
        return content["result"]
    if "reverted" in content:
        raise Reverted(bytes.fromhex(content["reverted"]), content["detail"])
    if "rejected" in content:
        raise Rejected(RejectionReason(content["rejected"]), content["detail"])
    raise Unavailable(content["unavailable"])
