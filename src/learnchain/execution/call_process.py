"""Run what strangers ask to compute in a process of its own: a hostile `eth_call` costs the node nothing but a child.

Adversarial code runs at half a megagas a second here, so one call could keep the engine's thread for many seconds.
The child reads the same store, has bounded memory and low priority, and is killed when time is up.

The child runs `python -m learnchain.execution.call_process DIRECTORY CHAIN SECONDS`: each line of standard input is a
JSON request `{method, params}`, each line of standard output the answer: `{result}`, or the refusal as `_result` reads
it.
"""

import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import lmdb
from eth.vm.interrupt import EVMMissingData
from trie.exceptions import MissingTraversalNode, MissingTrieNode

from learnchain.encoding.codec import Hash32
from learnchain.execution.engine import ExecutionEngine, Reverted
from learnchain.execution.pyevm.queries import Queries
from learnchain.execution.pyevm.records import Records
from learnchain.execution.pyevm.transactions import TransactionPool
from learnchain.rejection import Rejected, RejectionReason, Unavailable

CALL_SECONDS = 5.0
START_SECONDS = 60.0
MAXIMUM_WAITING = 64
MAXIMUM_MEMORY_BYTES = 1 << 30
MAXIMUM_ANSWER_BYTES = 32 << 20
_NICE = 10
_GRACE_SECONDS = 5.0
"""The parent kills first; this alarm is for an orphan."""
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
            "learnchain.execution.call_process",
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


# --- the child -------------------------------------------------------------------------------------------------------


class ReadOnlyStore:
    """Read an LMDB store that another process writes."""

    __slots__ = ("_environment",)

    def __init__(self, path: Path) -> None:
        self._environment = lmdb.open(str(path), readonly=True, create=False, readahead=False, lock=True)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when there is none."""
        try:
            return self._read(key)
        except lmdb.MapResizedError:
            # The owner has grown the map: take over its new size.
            self._environment.set_mapsize(0)
            return self._read(key)

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Refuse: only the owner writes."""
        raise Unavailable("the store is open for reading only")

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Refuse: calls read single keys."""
        raise Unavailable("the store is open for single reads only")

    def _read(self, key: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            value = transaction.get(key)
        return None if value is None else bytes(value)


def answer_request(records: Records, chain_id: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request on the head that the owner has chosen last."""
    head = records.head()
    if head is None:
        return {"unavailable": "the execution store is empty"}
    # After the head: whatever it rests on was written before it was chosen.
    records.nodes.refresh()
    try:
        queries = Queries(records, TransactionPool(), chain_id, head, _refuse)
        return {"result": queries.answer(request["method"], request["params"])}
    except Reverted as error:
        return {"reverted": error.data.hex(), "detail": error.detail}
    except Rejected as error:
        return {"rejected": error.reason.value, "detail": error.detail}
    except Unavailable as error:
        return {"unavailable": error.what}
    except (EVMMissingData, MissingTrieNode, MissingTraversalNode):
        # The owner let an old state go between two reads of one call.
        return {"unavailable": "the state of that block, which was let go meanwhile"}


def _refuse(_raw: bytes) -> Hash32:
    raise Rejected(RejectionReason.METHOD_UNKNOWN, "this process keeps no transactions")


def main(arguments: list[str]) -> None:
    """Answer requests until standard input ends."""
    directory, chain_id, seconds = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (MAXIMUM_MEMORY_BYTES, MAXIMUM_MEMORY_BYTES))
    records = Records(ReadOnlyStore(directory))
    _write_answer({"result": "ready"})
    for line in sys.stdin.buffer:
        signal.alarm(math.ceil(seconds + _GRACE_SECONDS))
        _write_answer(answer_request(records, chain_id, json.loads(line)))
        signal.alarm(0)


def _write_answer(content: Mapping[str, Any]) -> None:
    data = json.dumps(content).encode()
    if len(data) > MAXIMUM_ANSWER_BYTES:
        detail = f"the answer has {len(data)} bytes, {MAXIMUM_ANSWER_BYTES} are allowed"
        data = json.dumps({"rejected": RejectionReason.TOO_LARGE.value, "detail": detail}).encode()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
