"""Ask an asynchronous engine as if it were a door, so that one suite of questions serves both."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine import EngineInfo, ExecutionEngine
from learnchain.execution.engine_api import Endpoints, EngineApiClient
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.protocol.payload import ExecutionPayload, Log, PayloadAttributes, PayloadStatus
from learnchain_conformance.engine_api_server import EngineApiServer
from tests.execution.pyevm.chain import genesis


class SynchronousDoor:
    def __init__(self, engine: ExecutionEngine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self._loop = loop

    def capabilities(self) -> EngineInfo:
        return self._wait(self.engine.capabilities())

    def build(
        self, parent_hash: bytes, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        return self._wait(self.engine.build(parent_hash, attributes, transactions))

    def new_payload(self, payload: ExecutionPayload, beacon_root: bytes) -> PayloadStatus:
        return self._wait(self.engine.new_payload(payload, beacon_root))

    def set_head(self, head: bytes, safe: bytes, finalized: bytes) -> PayloadStatus:
        return self._wait(self.engine.set_head(head, safe, finalized))

    def logs(self, block_hash: bytes, address: bytes) -> tuple[Log, ...]:
        return self._wait(self.engine.logs(block_hash, address))

    def balance(self, block_hash: bytes, address: bytes) -> int:
        return self._wait(self.engine.balance(block_hash, address))

    def rpc(self, method: str, params: Sequence[Any]) -> Any:
        return self._wait(self.engine.rpc(method, params))

    def _wait(self, question: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(question)


def client_over_embedded_engine(loop: asyncio.AbstractEventLoop) -> SynchronousDoor:
    server = EngineApiServer(PyEvmEngine(MemoryStore(), genesis()))
    return SynchronousDoor(EngineApiClient(Endpoints(server, server), genesis(), build_seconds=0), loop)
