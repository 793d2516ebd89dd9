"""Use any EVM chain through its `eth_*` methods: our own node, our engine in this process, anvil, geth."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from learnchain.node.wallet import Wallet
from learnchain.primitives.bounded_json import parse_json
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.payload import Log
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

RpcPort = Callable[[str, list[Any]], Awaitable[Any]]
"""Answer one JSON-RPC method; raise `Rejected` for a refused call."""
MAXIMUM_ANSWER_BYTES = 16 << 20
RECEIPT_POLLS = 120
_GAS_MARGIN = (5, 4)
_REVERTED = 3


class Ledger:
    """Send transactions and wait for them, call contracts, read events."""

    def __init__(self, rpc: RpcPort, pause: Callable[[], Awaitable[None]]) -> None:
        self._rpc = rpc
        self._pause = pause
        self._chain_id: int | None = None
        self.fees_wei = 0
        """What all transactions sent through here cost."""

    async def chain_id(self) -> int:
        """Return the chain's id, asked for once."""
        if self._chain_id is None:
            self._chain_id = _number(await self._rpc("eth_chainId", []))
        return self._chain_id

    async def send(self, wallet: Wallet, to: Address | None, data: bytes, value_wei: int = 0) -> dict[str, Any]:
        """Sign, send and wait for one transaction; a revert is `EXECUTION_REVERTED`, silence is `Unavailable`."""
        call: dict[str, Any] = {"from": _hex(wallet.address), "data": _hex(data), "value": hex(value_wei)}
        if to is not None:
            call["to"] = _hex(to)
        gas = _number(await self._rpc("eth_estimateGas", [call]))
        price = _number(await self._rpc("eth_gasPrice", []))
        fields = {
            "chainId": await self.chain_id(),
            "nonce": _number(await self._rpc("eth_getTransactionCount", [_hex(wallet.address), "pending"])),
            "gas": gas * _GAS_MARGIN[0] // _GAS_MARGIN[1],
            "maxFeePerGas": 2 * price + 10**9,
            "maxPriorityFeePerGas": 10**9,
            "to": to,
            "value": value_wei,
            "data": data,
        }
        name = await self._rpc("eth_sendRawTransaction", [_hex(wallet.sign_transaction(fields))])
        receipt = await self._receipt(name)
        self.fees_wei += _number(receipt["gasUsed"]) * _number(receipt["effectiveGasPrice"])
        if _number(receipt["status"]) != 1:
            raise Rejected(RejectionReason.EXECUTION_REVERTED, f"transaction {name} reverted")
        return receipt

    async def deploy(self, wallet: Wallet, code: bytes) -> Address:
        """Create a contract; return its address."""
        receipt = await self.send(wallet, None, code)
        return _bytes(receipt["contractAddress"])

    async def call(self, to: Address, data: bytes) -> bytes:
        """Return what a contract answers at the head."""
        return _bytes(await self._rpc("eth_call", [{"to": _hex(to), "data": _hex(data)}, "latest"]))

    async def balance(self, account: Address) -> int:
        """Return a balance in wei at the head."""
        return _number(await self._rpc("eth_getBalance", [_hex(account), "latest"]))

    async def head(self) -> tuple[int, int]:
        """Return number and time in seconds of the newest block."""
        block = await self._rpc("eth_getBlockByNumber", ["latest", False])
        return _number(block["number"]), _number(block["timestamp"])

    async def logs(self, address: Address, first: int, last: int) -> tuple[Log, ...]:
        """Return a contract's events in a range of blocks, in their order."""
        query = {"address": _hex(address), "fromBlock": hex(first), "toBlock": hex(last)}
        return tuple(_log(each) for each in await self._rpc("eth_getLogs", [query]))

    async def _receipt(self, name: str) -> dict[str, Any]:
        for _ in range(RECEIPT_POLLS):
            receipt = await self._rpc("eth_getTransactionReceipt", [name])
            if receipt is not None:
                return dict(receipt)
            await self._pause()
        raise Unavailable(f"a receipt of {name}: it is not in a block yet")


def http_rpc(session: aiohttp.ClientSession, url: str) -> RpcPort:
    """Return the port to a JSON-RPC server; its answers are bounded and its errors are ours."""

    async def ask(method: str, params: list[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with session.post(url, json=body) as response:
                raw = await _bounded(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the chain at {url}: {error}") from error
        try:
            answer = parse_json(raw)
            error = answer.get("error")
        except (ValueError, AttributeError, RecursionError) as problem:
            raise Unavailable(f"{url} does not speak JSON-RPC") from problem
        if error is None:
            return answer.get("result")
        detail = str(error.get("message", ""))
        reverted = error.get("code") == _REVERTED or "revert" in detail.lower()
        reason = RejectionReason.EXECUTION_REVERTED if reverted else RejectionReason.TRANSACTION_INVALID
        raise Rejected(reason, f"{method}: {detail[:300]}")

    return ask


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        raw += chunk
        if len(raw) > MAXIMUM_ANSWER_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"an answer above {MAXIMUM_ANSWER_BYTES} bytes")
    return bytes(raw)


def _log(entry: dict[str, Any]) -> Log:
    topics = tuple(_bytes(topic) for topic in entry["topics"])
    name: Hash32 = _bytes(entry["transactionHash"])
    return Log(_bytes(entry["address"]), topics, _bytes(entry["data"]), name, _number(entry["logIndex"]))


def _number(text: str | int) -> int:
    return text if isinstance(text, int) else int(text, 16)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
