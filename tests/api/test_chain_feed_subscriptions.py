"""Filters and subscriptions: what joins the chain is told once, what leaves it is told as removed."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from learnchain.api import chain_feed, web_socket
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.rejection import RejectionReason
from tests.api.test_json_rpc import Service, run
from tests.execution.pyevm.chain import ETHER, KEYS, NONE, signed

pytestmark = pytest.mark.network
ESCROW = "0x" + ESCROW_ADDRESS.hex()


def posting(nonce: int) -> bytes:
    data = post_calldata(b"task", ETHER, 0, 10_000)
    return signed(KEYS[1], nonce, to=ESCROW_ADDRESS, data=data, gas=300_000, value=posting_value_wei(ETHER, 0))


async def extend(service: Service, *transactions: bytes, parent: bytes | None = None) -> bytes:
    """Build on a parent through the served engine, so that its listeners hear of it."""
    chain = service.chain
    miner = b"\xbb" * 20 if parent else b"\xaa" * 20
    payload = chain.accept(chain.build(transactions, parent=parent or chain.head, miner=miner))
    await choose(service, payload.block_hash)
    return payload.block_hash


async def choose(service: Service, head: bytes) -> None:
    await service.engine.set_head(head, NONE, NONE)
    service.chain.head = head
    await asyncio.sleep(0.1)


async def result(service: Service, method: str, *params: Any) -> Any:
    answer = await service.call(method, *params)
    assert "result" in answer, answer
    return answer["result"]


def test_filters_tell_blocks_logs_and_transactions_once():
    async def scenario(service: Service) -> None:
        blocks = await result(service, "eth_newBlockFilter")
        logs = await result(service, "eth_newFilter", {"address": ESCROW})
        others = await result(service, "eth_newFilter", {"address": "0x" + "99" * 20})
        pending = await result(service, "eth_newPendingTransactionFilter")
        digest = await result(service, "eth_sendRawTransaction", "0x" + posting(0).hex())
        await result(service, "eth_sendRawTransaction", "0x" + posting(0).hex())
        head = await extend(service)
        assert await result(service, "eth_getFilterChanges", blocks) == ["0x" + head.hex()]
        assert await result(service, "eth_getFilterChanges", blocks) == []
        assert await result(service, "eth_getFilterChanges", pending) == [digest]
        found = await result(service, "eth_getFilterChanges", logs)
        assert [(each["transactionHash"], each["removed"]) for each in found] == [(digest, False)]
        assert await result(service, "eth_getFilterChanges", others) == []
        assert len(await result(service, "eth_getFilterLogs", logs)) == 1
        assert await result(service, "eth_uninstallFilter", logs) is True
        assert await result(service, "eth_uninstallFilter", logs) is False
        for wrong in (logs, "0x1", 7, None):
            answer = await service.call("eth_getFilterChanges", wrong)
            assert answer["error"]["data"]["reason"] == RejectionReason.FILTER_UNKNOWN
        assert (await service.call("eth_getFilterLogs", blocks))["error"]["code"] == -32602
        for criteria in ({"address": "0x1"}, [], {"topics": "x"}, {"fromBlock": "soon"}):
            assert (await service.call("eth_newFilter", criteria))["error"]["code"] == -32602

    run(scenario)


def test_a_log_filter_minds_its_range_of_blocks():
    async def scenario(service: Service) -> None:
        later = await result(service, "eth_newFilter", {"fromBlock": "0x2", "toBlock": "0x2"})
        for nonce in range(3):
            await extend(service, posting(nonce))
        found = await result(service, "eth_getFilterChanges", later)
        assert [each["blockNumber"] for each in found] == ["0x2"]

    run(scenario)


def test_filters_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chain_feed, "MAXIMUM_FILTERS", 2)

    async def scenario(service: Service) -> None:
        first = await result(service, "eth_newBlockFilter")
        await result(service, "eth_newBlockFilter")
        answer = await service.call("eth_newBlockFilter")
        assert answer["error"]["data"]["reason"] == RejectionReason.RATE_LIMITED
        monkeypatch.setattr(chain_feed, "LIFETIME_SECONDS", -1.0)
        await result(service, "eth_newBlockFilter")
        answer = await service.call("eth_getFilterChanges", first)
        assert answer["error"]["data"]["reason"] == RejectionReason.FILTER_UNKNOWN

    run(scenario)


class Subscriber:
    """Speak JSON-RPC on a WebSocket and keep what is pushed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.pushed: list[Any] = []

    async def call(self, method: str, *params: Any) -> Any:
        await self.socket.send_str(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))
        while True:
            message = await self.socket.receive_json(timeout=60)
            if "id" in message:
                return message
            self.pushed.append(message["params"])

    async def next(self) -> Any:
        if self.pushed:
            return self.pushed.pop(0)
        return (await self.socket.receive_json(timeout=60))["params"]


def test_subscriptions_push_heads_logs_transactions_and_what_a_reorganisation_removes():
    async def scenario(service: Service) -> None:
        async with service.session.ws_connect(service.url) as socket:
            client = Subscriber(socket)
            heads = (await client.call("eth_subscribe", "newHeads"))["result"]
            logs = (await client.call("eth_subscribe", "logs", {"address": ESCROW}))["result"]
            pending = (await client.call("eth_subscribe", "newPendingTransactions"))["result"]
            root = service.chain.head
            digest = await result(service, "eth_sendRawTransaction", "0x" + posting(0).hex())
            assert await client.next() == {"subscription": pending, "result": digest}
            left = await extend(service)
            head = await client.next()
            assert (head["subscription"], head["result"]["hash"]) == (heads, "0x" + left.hex())
            assert "transactions" not in head["result"]
            log = await client.next()
            assert (log["subscription"], log["result"]["removed"]) == (logs, False)
            right = await extend(service, signed(KEYS[2], 0), parent=root)
            seen = [await client.next() for _ in range(2)]
            assert (seen[0]["subscription"], seen[0]["result"]["removed"]) == (logs, True)
            assert seen[0]["result"]["blockHash"] == "0x" + left.hex()
            assert (seen[1]["subscription"], seen[1]["result"]["hash"]) == (heads, "0x" + right.hex())
            # What left the chain waits again, and the next block holds it.
            await extend(service)
            again = [await client.next() for _ in range(2)]
            assert (again[1]["subscription"], again[1]["result"]["removed"]) == (logs, False)
            assert again[1]["result"]["transactionHash"] == digest
            assert (await client.call("eth_unsubscribe", heads))["result"] is True
            assert (await client.call("eth_unsubscribe", heads))["result"] is False
            assert (await client.call("eth_chainId"))["result"] == "0x539"
            assert (await client.call("eth_subscribe", "weather"))["error"]["code"] == -32602
            assert (await client.call("eth_subscribe", "logs", {"address": 1}))["error"]["code"] == -32602

    run(scenario)


def test_connections_and_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web_socket, "MAXIMUM_CONNECTIONS", 1)
    monkeypatch.setattr(web_socket, "MAXIMUM_SUBSCRIPTIONS", 1)

    async def scenario(service: Service) -> None:
        async with service.session.ws_connect(service.url) as socket:
            client = Subscriber(socket)
            await client.call("eth_subscribe", "newHeads")
            answer = await client.call("eth_subscribe", "newHeads")
            assert answer["error"]["data"]["reason"] == RejectionReason.RATE_LIMITED
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await service.session.ws_connect(service.url)
            assert refused.value.status == 503
            await socket.send_str("[" * 10_000)
            assert (await socket.receive_json(timeout=60))["error"]["code"] == -32700
            await socket.send_bytes(b'{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}')
            assert (await socket.receive_json(timeout=60))["result"] == "0x539"
        async with service.session.ws_connect(service.url, max_msg_size=0) as socket:
            await socket.send_str("x" * 70_000)
            assert (await socket.receive(timeout=60)).type == aiohttp.WSMsgType.CLOSE
        assert (await service.call("eth_subscribe", "newHeads"))["error"]["code"] == -32601

    run(scenario)


def test_a_web_page_may_not_spend_through_a_socket():
    async def spend() -> str:
        return "spent"

    async def scenario(service: Service) -> None:
        service.server.register("learn_spend", spend, sensitive=True)
        async with service.session.ws_connect(service.url, headers={"Origin": "http://a.example"}) as socket:
            assert (await Subscriber(socket).call("learn_spend"))["error"]["code"] == -32601
        async with service.session.ws_connect(service.url) as socket:
            assert (await Subscriber(socket).call("learn_spend"))["result"] == "spent"

    run(scenario)


def test_a_node_that_catches_up_tells_the_newest_head_only(monkeypatch: pytest.MonkeyPatch):
    from learnchain.api import chain_feed

    monkeypatch.setattr(chain_feed, "MAXIMUM_DEPTH", 2)

    async def scenario(service: Service) -> None:
        blocks = await result(service, "eth_newBlockFilter")
        for _ in range(4):
            payload = service.chain.accept(service.chain.build())
            service.chain.head = payload.block_hash
        await choose(service, service.chain.head)
        assert await result(service, "eth_getFilterChanges", blocks) == ["0x" + service.chain.head.hex()]

    run(scenario)
