"""The interface as wallets meet it: over HTTP, with web3.py, in batches, with errors that tell what was wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.exceptions import ContractCustomError, ContractLogicError, Web3RPCError

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings, Origin
from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.escrow import escrow_abi, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import Wallet
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.simulated_network import run_simulated
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, Chain, genesis, signed

pytestmark = pytest.mark.network
SETTINGS = JsonRpcSettings(port=0, maximum_body_bytes=64 * 1024, maximum_batch=5)


class Service:
    """Hold a served engine, a chain that drives it, and a way to post JSON."""

    def __init__(
        self, engine: WorkerEngine, server: JsonRpcServer, session: aiohttp.ClientSession, gossiped: list[bytes]
    ) -> None:
        self.gossiped = gossiped
        self.engine = engine
        self.chain = Chain(engine._door)
        self.server = server
        self.session = session

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"

    async def post(self, body: Any, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url, data=data, headers=headers) as response:
            text = await response.text()
            return json.loads(text) if text else None

    async def call(self, method: str, *params: Any, **headers: str) -> Any:
        return await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}, **headers)


@asynccontextmanager
async def served() -> AsyncIterator[Service]:
    door = PyEvmEngine(MemoryStore(), genesis())
    async with WorkerEngine(door) as engine, aiohttp.ClientSession() as session:
        gossiped: list[bytes] = []

        async def gossip(raw: bytes) -> None:
            gossiped.append(raw)

        async with JsonRpcServer(engine, SETTINGS, gossip) as server:
            yield Service(engine, server, session, gossiped)


def run(scenario: Callable[[Service], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served() as service:
            await scenario(service)

    asyncio.run(main())


def test_web3_reads_balances_and_sends_a_transfer():
    async def scenario(service: Service) -> None:
        provider = AsyncHTTPProvider(service.url)
        web3 = AsyncWeb3(provider)
        sender = web3.to_checksum_address(ADDRESSES[0])
        assert await web3.eth.chain_id == CHAIN_ID
        assert await web3.eth.get_balance(sender) == 100 * ETHER
        tip = await web3.eth.max_priority_fee
        latest = await web3.eth.get_block("latest")
        fields = {
            "chainId": CHAIN_ID,
            "nonce": await web3.eth.get_transaction_count(sender),
            "to": b"\x99" * 20,
            "value": ETHER,
            "gas": await web3.eth.estimate_gas(
                {"from": sender, "to": web3.to_checksum_address(b"\x99" * 20), "value": ETHER}
            ),
            "maxFeePerGas": 2 * latest["baseFeePerGas"] + tip,
            "maxPriorityFeePerGas": tip,
        }
        assert fields["gas"] == 21_000
        digest = await web3.eth.send_raw_transaction(Wallet(KEYS[0]).sign_transaction(fields))
        assert (await web3.eth.get_transaction(digest))["blockHash"] is None
        service.chain.extend()
        receipt = await web3.eth.wait_for_transaction_receipt(digest, timeout=60)
        assert (receipt["status"], receipt["gasUsed"]) == (1, 21_000)
        assert await web3.eth.get_balance(web3.to_checksum_address(b"\x99" * 20)) == ETHER
        block = await web3.eth.get_block(receipt["blockHash"], full_transactions=True)
        assert block["transactions"][0]["hash"] == digest
        history = await web3.eth.fee_history(4, "latest", [50])
        assert history["reward"][-1] == [tip]
        assert await web3.eth.get_transaction_count(sender) == 1
        assert service.gossiped == [Wallet(KEYS[0]).sign_transaction(fields)]
        await provider.disconnect()

    run(scenario)


def test_web3_calls_and_reads_the_escrow():
    async def scenario(service: Service) -> None:
        provider = AsyncHTTPProvider(service.url)
        web3 = AsyncWeb3(provider)
        sender = web3.to_checksum_address(ADDRESSES[0])
        escrow = web3.eth.contract(web3.to_checksum_address(ESCROW_ADDRESS), abi=escrow_abi())
        assert await escrow.functions.TIP().call() == posting_value_wei(0, 0)
        post = escrow.functions.post(b"spec", ETHER, ETHER // 2, 10_000)
        with pytest.raises(ContractCustomError):
            await post.call({"from": sender, "value": 1})
        with pytest.raises(ContractLogicError):
            await escrow.functions.withdraw().call({"from": sender})
        fields = {"from": sender, "value": posting_value_wei(ETHER, ETHER // 2), "nonce": 0, "chainId": CHAIN_ID}
        transaction = await post.build_transaction(fields)
        transaction.pop("from")
        digest = await web3.eth.send_raw_transaction(Wallet(KEYS[0]).sign_transaction(transaction))
        service.chain.extend()
        receipt = await web3.eth.get_transaction_receipt(digest)
        assert receipt["status"] == 1
        events = escrow.events.TaskPosted().process_receipt(receipt)
        assert events[0]["args"]["specification"] == b"spec"
        logs = await escrow.events.TaskPosted().get_logs(from_block=0)
        assert [entry["args"]["taskId"] for entry in logs] == [events[0]["args"]["taskId"]]
        task = await escrow.functions.task(events[0]["args"]["taskId"]).call()
        assert task == [sender, ETHER, ETHER // 2, 10_000, 4]
        with pytest.raises(Web3RPCError):
            await web3.eth.send_raw_transaction(Wallet(KEYS[0]).sign_transaction(transaction))
        await provider.disconnect()

    run(scenario)


def test_errors_have_their_codes():
    async def scenario(service: Service) -> None:
        assert (await service.post(b"{"))["error"]["code"] == -32700
        assert (await service.post(b"[" * 50_000))["error"]["code"] == -32700
        assert (await service.post(b'{"id": NaN}'))["error"]["code"] == -32700
        for wrong in (1, "x", None, {"jsonrpc": "1.0", "method": "eth_chainId"}, {"jsonrpc": "2.0", "id": 1}, []):
            assert (await service.post(wrong))["error"]["code"] == -32600
        assert (await service.call("eth_mine"))["error"]["code"] == -32601
        assert (await service.call("admin_stop"))["error"]["code"] == -32601
        for params in (["0x1"], ["0x" + "zz" * 20], [1], [], [{}, {}, {}, {}]):
            assert (await service.call("eth_getBalance", *params))["error"]["code"] == -32602
        named = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": {"a": 1}}
        assert (await service.post(named))["error"]["code"] == -32602
        answer = await service.call("eth_sendRawTransaction", "0x" + signed(KEYS[0], 0, chainId=5).hex())
        assert answer["error"]["code"] == -32000
        assert answer["error"]["data"]["reason"] == RejectionReason.TRANSACTION_INVALID
        reverted = await service.call("eth_call", {"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x3ccfd60b"})
        assert (reverted["error"]["code"], reverted["error"]["data"]) == (3, "0xd0d04f60")

    run(scenario)


def test_batches_answer_in_order_and_are_bounded():
    async def scenario(service: Service) -> None:
        batch = [{"jsonrpc": "2.0", "id": index, "method": "eth_chainId"} for index in ("a", 2, None)]
        batch.insert(1, {"jsonrpc": "2.0", "method": "eth_chainId"})
        batch.insert(1, 7)
        answers = await service.post(batch)
        assert [answer["id"] for answer in answers] == ["a", None, 2, None]
        assert [answer.get("result") for answer in answers] == ["0x539", None, "0x539", "0x539"]
        assert (await service.post(batch * 2))["error"]["code"] == -32600
        assert await service.post([{"jsonrpc": "2.0", "method": "eth_chainId"}]) is None

    run(scenario)


def test_bodies_are_bounded_and_browsers_are_answered():
    async def scenario(service: Service) -> None:
        async with service.session.post(service.url, data=b" " * 70_000) as response:
            assert response.status == 413
        async with service.session.options(service.url, headers={"Origin": "http://a.example"}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
        async with service.session.get(service.url) as response:
            assert response.status == 405

    run(scenario)


def test_the_node_adds_its_own_methods():
    async def echo(value: str) -> str:
        if value == "bug":
            raise TypeError("inside")
        if value == "later":
            raise Unavailable("the model")
        if value == "rule":
            raise Rejected(RejectionReason.TASK_UNKNOWN, "no such task")
        return value * 2

    async def scenario(service: Service) -> None:
        service.server.register("learn_echo", echo)
        service.server.register("learn_spend", echo, sensitive=True)
        assert (await service.call("learn_echo", "ab"))["result"] == "abab"
        assert (await service.call("learn_echo"))["error"]["code"] == -32602
        assert (await service.call("learn_echo", "bug"))["error"]["code"] == -32603
        assert (await service.call("learn_echo", "later"))["error"]["code"] == -32000
        answer = await service.call("learn_echo", "rule")
        assert (answer["error"]["code"], answer["error"]["data"]["reason"]) == (-32000, "task_unknown")
        assert (await service.call("learn_spend", "ab"))["result"] == "abab"
        assert (await service.call("learn_spend", "ab", Origin="http://a.example"))["error"]["code"] == -32601
        assert (await service.call("learn_echo", "ab", Origin="http://a.example"))["result"] == "abab"
        for name in ("learn_echo", "eth_chainId"):
            with pytest.raises(ValueError, match="exists already"):
                service.server.register(name, echo)

    run(scenario)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:8545"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "a.example"},
        {"Host": "127.0.0.1.a.example:8545"},
        {"Host": "[::2]:8545"},
        {"Host": ""},
    ],
)
def test_web_pages_are_told_from_programs_even_under_a_name_of_their_own(headers: dict[str, str]):
    async def much() -> str:
        return "much"

    async def little() -> str:
        return "little"

    async def scenario(service: Service) -> None:
        service.server.register("learn_much", much, for_pages=little)
        service.server.register("learn_spend", much, sensitive=True)
        assert (await service.call("learn_much", **headers))["result"] == "little"
        assert (await service.call("learn_spend", **headers))["error"]["code"] == -32601
        for local in ("127.0.0.1", "localhost:8545", "[::1]:8545"):
            assert (await service.call("learn_much", Host=local))["result"] == "much"
            assert (await service.call("learn_spend", Host=local))["result"] == "much"

    run(scenario)


def test_a_taken_port_is_unavailable():
    async def scenario(service: Service) -> None:
        second = JsonRpcServer(service.engine, JsonRpcSettings(port=service.server.port))
        with pytest.raises(Unavailable):
            await second.start()
        with pytest.raises(Unavailable):
            _ = second.port
        await second.close()

    run(scenario)


def test_a_method_that_takes_too_long_ends_unless_it_may_spend_our_coins():
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def scenario() -> None:
        async with WorkerEngine(PyEvmEngine(MemoryStore(), genesis())) as engine:
            server = JsonRpcServer(engine, SETTINGS)
            server.register("learn_slow", slow)
            server.register("learn_spend", slow, sensitive=True)

            async def ask(method: str, seconds: int) -> Any:
                body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": [seconds]}).encode()
                return json.loads(await server.answer(body, Origin()) or "")

            assert (await ask("learn_slow", 29))["result"] == "done"
            assert (await ask("learn_slow", 31))["error"]["code"] == -32000
            assert (await ask("learn_spend", 3_600))["result"] == "done"

    run_simulated(scenario())
