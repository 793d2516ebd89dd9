"""Payloads and attributes as the Engine API writes them (Prague), and back from what a client answers.

`HttpCaller`: ask a client over HTTP; the Engine API wants a fresh HS256 token (JWT, RFC 7519) with every request.

`EngineApiClient`: drive any stock execution client, geth or reth for instance, over Ethereum's Engine API (Prague).

What consensus adds to Ethereum's rules is checked here before the client sees a payload: one gas limit, no blobs.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from learnchain.encoding.codec import Address, Hash32, parse_json
from learnchain.execution.engine import BlockingEngine, EngineInfo, EngineSignals, Reverted, WorkerEngine
from learnchain.execution.genesis import genesis_block_hash, genesis_chain_id, genesis_start
from learnchain.execution.pyevm.queries import ETHEREUM_METHODS
from learnchain.protocol.payload import (
    ExecutionPayload,
    Log,
    PayloadAttributes,
    PayloadStatus,
    PayloadStatusCode,
    Withdrawal,
    encode_payload,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_ANSWER_BYTES = 64 << 20
SECRET_BYTES = 32
MAXIMUM_SECRET_FILE_BYTES = 1_024

_QUANTITIES = {
    "number": "blockNumber",
    "gas_limit": "gasLimit",
    "gas_used": "gasUsed",
    "timestamp_seconds": "timestamp",
    "base_fee_wei": "baseFeePerGas",
    "blob_gas_used": "blobGasUsed",
    "excess_blob_gas": "excessBlobGas",
}

_BYTES = {
    "parent_hash": "parentHash",
    "fee_recipient": "feeRecipient",
    "state_root": "stateRoot",
    "receipts_root": "receiptsRoot",
    "logs_bloom": "logsBloom",
    "prev_randao": "prevRandao",
    "extra_data": "extraData",
    "block_hash": "blockHash",
}


def hexadecimal(data: bytes) -> str:
    """Return bytes as a 0x-string."""
    return "0x" + data.hex()


def payload_json(payload: ExecutionPayload) -> dict[str, Any]:
    """Return the V3 payload object that engine_newPayloadV4 takes."""
    content: dict[str, Any] = {theirs: hex(getattr(payload, ours)) for ours, theirs in _QUANTITIES.items()}
    content |= {theirs: hexadecimal(getattr(payload, ours)) for ours, theirs in _BYTES.items()}
    content["transactions"] = [hexadecimal(raw) for raw in payload.transactions]
    content["withdrawals"] = [_withdrawal_json(each) for each in payload.withdrawals]
    return content


def payload_of(content: Mapping[str, Any], beacon_root: Hash32, requests: list[str]) -> ExecutionPayload:
    """Return the payload that a client built; a client that answers nonsense is not usable."""
    try:
        fields: dict[str, Any] = {ours: int(content[theirs], 16) for ours, theirs in _QUANTITIES.items()}
        fields |= {ours: _bytes(content[theirs]) for ours, theirs in _BYTES.items()}
        return ExecutionPayload(
            **fields,
            transactions=tuple(_bytes(raw) for raw in content["transactions"]),
            withdrawals=tuple(_withdrawal(each) for each in content["withdrawals"]),
            beacon_root=beacon_root,
            execution_requests=tuple(_bytes(each) for each in requests),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the execution client's payload cannot be read: {error!r}") from error


def attributes_json(attributes: PayloadAttributes) -> dict[str, Any]:
    """Return the V3 attributes that engine_forkchoiceUpdatedV3 takes."""
    return {
        "timestamp": hex(attributes.timestamp_seconds),
        "prevRandao": hexadecimal(attributes.prev_randao),
        "suggestedFeeRecipient": hexadecimal(attributes.fee_recipient),
        "withdrawals": [_withdrawal_json(each) for each in attributes.withdrawals],
        "parentBeaconBlockRoot": hexadecimal(attributes.beacon_root),
    }


def attributes_of(content: Mapping[str, Any]) -> PayloadAttributes:
    """Return the attributes that a V3 object holds."""
    return PayloadAttributes(
        timestamp_seconds=int(content["timestamp"], 16),
        prev_randao=_bytes(content["prevRandao"]),
        fee_recipient=_bytes(content["suggestedFeeRecipient"]),
        withdrawals=tuple(_withdrawal(each) for each in content["withdrawals"]),
        beacon_root=_bytes(content["parentBeaconBlockRoot"]),
    )


def logs_of(entries: list[Mapping[str, Any]]) -> tuple[Log, ...]:
    """Return what eth_getLogs answered, in the order of the block."""
    try:
        logs = [
            Log(
                _bytes(each["address"]),
                tuple(_bytes(topic) for topic in each["topics"]),
                _bytes(each["data"]),
                _bytes(each["transactionHash"]),
                int(each["logIndex"], 16),
            )
            for each in entries
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the execution client's logs cannot be read: {error!r}") from error
    return tuple(sorted(logs, key=lambda log: log.index))


def _withdrawal_json(withdrawal: Withdrawal) -> dict[str, str]:
    return {
        "index": hex(withdrawal.index),
        "validatorIndex": hex(withdrawal.validator_index),
        "address": hexadecimal(withdrawal.address),
        "amount": hex(withdrawal.amount_gwei),
    }


def _withdrawal(content: Mapping[str, str]) -> Withdrawal:
    return Withdrawal(
        int(content["index"], 16),
        int(content["validatorIndex"], 16),
        _bytes(content["address"]),
        int(content["amount"], 16),
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


class ClientError(Exception):
    """Carry the JSON-RPC error that an execution client answered."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data


class ClientCaller(Protocol):
    """Ask an execution client; raise `ClientError` for its errors and `Unavailable` when it cannot be reached."""

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Return the result of one call."""

    async def close(self) -> None:
        """End the connections."""


def load_secret(path: Path) -> bytes:
    """Return the 32 bytes that client and node share, written in hex as every client writes them."""
    try:
        if path.stat().st_size > MAXIMUM_SECRET_FILE_BYTES:
            raise ValueError("the file is too large")
        secret = bytes.fromhex(path.read_text().strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} holds no secret in hex: {error}") from error
    if len(secret) != SECRET_BYTES:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}")
    return secret


def token(secret: bytes, now_seconds: int) -> str:
    """Return the token that says: made now by somebody who knows the secret."""
    header = _base64({"alg": "HS256", "typ": "JWT"})
    signed = f"{header}.{_base64({'iat': now_seconds})}"
    return f"{signed}.{_base64_bytes(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _base64(content: dict[str, Any]) -> str:
    return _base64_bytes(json.dumps(content, separators=(",", ":")).encode())


def _base64_bytes(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class HttpCaller:
    """Hold one client's address; connections are opened with the first call."""

    __slots__ = ("_identity", "_now_seconds", "_secret", "_session", "_timeout_seconds", "_url")

    def __init__(
        self, url: str, secret: bytes | None, now_seconds: Callable[[], int], timeout_seconds: float = 60.0
    ) -> None:
        self._url = url
        self._secret = secret
        self._now_seconds = now_seconds
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._identity = 0

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Return the result of one call."""
        self._identity += 1
        request = {"jsonrpc": "2.0", "id": self._identity, "method": method, "params": list(params)}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_seconds))
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers["Authorization"] = f"Bearer {token(self._secret, self._now_seconds())}"
        try:
            async with self._session.post(self._url, data=json.dumps(request), headers=headers) as response:
                body = await _read_bounded(response)
                if response.status in (401, 403):
                    raise Unavailable(f"{self._url} refuses the token; node and client must share one secret")
            answer = parse_json(body)
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            raise Unavailable(f"the execution client at {self._url}: {type(error).__name__} {error}") from error
        return _read_answer(answer)

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > MAXIMUM_ANSWER_BYTES:
            raise ValueError(f"an answer above {MAXIMUM_ANSWER_BYTES} bytes")
    return bytes(body)


def _read_answer(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise Unavailable("the execution client answers no JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise ClientError(0, str(error)[:256])
    code = error.get("code")
    raise ClientError(code if isinstance(code, int) else 0, str(error.get("message"))[:1_024], error.get("data"))


REQUIRED_METHODS = ("engine_forkchoiceUpdatedV3", "engine_getPayloadV4", "engine_newPayloadV4")
ZERO_PAYLOAD_HASH: Hash32 = b"\0" * 32
_UINT64_LIMIT = 2**64
_BLOB = 3
_INVALID_FORK_CHOICE = -38002
_INVALID_ATTRIBUTES = -38003
_INVALID_PARAMS = -32602
_REASONS = {-32601: RejectionReason.METHOD_UNKNOWN, _INVALID_PARAMS: RejectionReason.ARGUMENT_INVALID}

_STATUS_CODES = {
    "VALID": PayloadStatusCode.VALID,
    "INVALID": PayloadStatusCode.INVALID,
    "SYNCING": PayloadStatusCode.SYNCING,
}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Hold how the client is asked: the authenticated engine port, and the port that answers wallets."""

    engine: ClientCaller
    ethereum: ClientCaller


class EngineApiClient:
    """Ask a stock client; building and choosing take turns, because both move the client's head."""

    __slots__ = (
        "_build_seconds",
        "_chain_id",
        "_endpoints",
        "_gas_limit",
        "_genesis_hash",
        "_head",
        "_signals",
        "_turn",
    )

    def __init__(self, endpoints: Endpoints, genesis: Mapping[str, Any], build_seconds: float = 0.5) -> None:
        """Drive the client that was started from the same genesis; it fills a payload for `build_seconds`."""
        self._endpoints = endpoints
        self._build_seconds = build_seconds
        self._chain_id = genesis_chain_id(genesis)
        self._gas_limit = genesis_start(genesis)[0]
        self._genesis_hash = genesis_block_hash(genesis)
        self._head: tuple[Hash32, Hash32, Hash32] | None = None
        self._signals = EngineSignals()
        self._turn = asyncio.Lock()

    @property
    def signals(self) -> EngineSignals:
        """Return where to listen for moves of the head and for waiting transactions."""
        return self._signals

    async def check(self) -> None:
        """Refuse a client that lacks a method we need or that runs another chain."""
        offered = await self._engine("engine_exchangeCapabilities", [list(REQUIRED_METHODS)])
        missing = [name for name in REQUIRED_METHODS if name not in offered]
        if missing:
            raise Rejected(RejectionReason.METHOD_UNKNOWN, f"the execution client lacks {', '.join(missing)}")
        chain_id = int(await self.rpc("eth_chainId", []), 16)
        first = await self._ethereum("eth_getBlockByNumber", ["0x0", False])
        if chain_id != self._chain_id or first is None or first["hash"] != hexadecimal(self._genesis_hash):
            detail = "the execution client runs another chain; start it from this network's genesis"
            raise Rejected(RejectionReason.WRONG_CHAIN, detail)

    async def capabilities(self) -> EngineInfo:
        """Return the client's name, rules, chain and head."""
        await self.check()
        version = str(await self._ethereum("web3_clientVersion", []))[:128]
        head = await self._block("latest")
        number, block_hash = int(head["number"], 16), _payload_bytes(head["hash"])
        return EngineInfo(
            "engine-api", version, "prague", self._chain_id, self._genesis_hash, block_hash, number, self._gas_limit
        )

    async def build(
        self, parent: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on a known payload; the given transactions enter the client's pool, which orders them itself."""
        before = await self._block(hexadecimal(parent))
        if not int(before["timestamp"], 16) < attributes.timestamp_seconds < _UINT64_LIMIT:
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the time does not follow the parent's")
        for withdrawal in attributes.withdrawals:
            if max(withdrawal.index, withdrawal.validator_index, withdrawal.amount_gwei) >= _UINT64_LIMIT:
                raise Rejected(RejectionReason.WITHDRAWALS_WRONG, "a number of a withdrawal exceeds 64 bits")
        for raw in transactions:
            await self._offer(raw)
        async with self._turn, self._on(parent, attributes) as answer:
            identity = answer.get("payloadId")
            if identity is None:
                raise Unavailable("the execution client does not build on this payload")
            await asyncio.sleep(self._build_seconds)
            built = await self._engine("engine_getPayloadV4", [identity])
        requests: list[str] = list(built.get("executionRequests") or ())
        payload = payload_of(built["executionPayload"], attributes.beacon_root, requests)
        self._check_ours(payload)
        return payload

    async def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Let the client execute a payload; a second time changes nothing."""
        try:
            if payload.beacon_root != beacon_root:
                raise Rejected(RejectionReason.PAYLOAD_INVALID, "the beacon root is another")
            self._check_ours(payload)
        except Rejected as problem:
            return PayloadStatus(PayloadStatusCode.INVALID, await self._find_parent_hash(payload), problem.detail[:512])
        requests = [hexadecimal(each) for each in payload.execution_requests]
        params: list[Any] = [payload_json(payload), (), hexadecimal(beacon_root), requests]
        try:
            status = await self._endpoints.engine.call("engine_newPayloadV4", params)
        except ClientError as error:
            if error.code != _INVALID_PARAMS:
                raise Unavailable(f"the execution client answers {error}") from error
            return PayloadStatus(PayloadStatusCode.INVALID, await self._find_parent_hash(payload), error.message[:512])
        if status["status"] == "ACCEPTED" and await self._find_parent_hash(payload) != ZERO_PAYLOAD_HASH:
            # A side branch that the client has kept but not executed: only choosing it gives a verdict.
            async with self._turn, self._on(payload.block_hash, None) as answer:
                status = answer["payloadStatus"]
        return await self._status(status, payload)

    async def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch."""
        async with self._turn:
            answer = await self._choose((head, safe, finalized), None)
            status = answer["payloadStatus"]
            verdict = _STATUS_CODES.get(str(status["status"]), PayloadStatusCode.SYNCING)
            if verdict is PayloadStatusCode.VALID:
                self._head = (head, safe, finalized)
        if verdict is PayloadStatusCode.VALID:
            self._signals.notify_head(head)
        latest = status.get("latestValidHash")
        valid = ZERO_PAYLOAD_HASH if latest is None else _payload_bytes(latest)
        return PayloadStatus(verdict, valid, str(status.get("validationError") or "")[:512])

    async def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload; raise `Unavailable` for an unknown one."""
        wanted = {"blockHash": hexadecimal(block_hash), "address": hexadecimal(address)}
        try:
            return logs_of(await self._endpoints.ethereum.call("eth_getLogs", [wanted]))
        except ClientError:
            # Some clients show only the chosen chain: choose the payload's branch for this one question.
            async with self._turn, self._on(block_hash, None):
                return logs_of(await self._ethereum("eth_getLogs", [wanted]))

    async def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload; raise `Unavailable` for an unknown one."""
        wanted = [hexadecimal(address), {"blockHash": hexadecimal(block_hash)}]
        try:
            return int(await self._endpoints.ethereum.call("eth_getBalance", wanted), 16)
        except ClientError:
            # EIP-1898 is not everywhere: choose the payload's branch for this one question.
            async with self._turn, self._on(block_hash, None):
                return int(await self._ethereum("eth_getBalance", [hexadecimal(address), "latest"]), 16)

    async def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Pass one of the interface's methods on; accounts that the client may hold stay out of reach."""
        if method not in ETHEREUM_METHODS:
            raise Rejected(RejectionReason.METHOD_UNKNOWN, method[:64])
        if method == "eth_accounts":
            return list[str]()
        raw = params[0] if method == "eth_sendRawTransaction" and params else None
        if isinstance(raw, str) and raw.lower().startswith(f"0x{_BLOB:02x}"):
            raise Rejected(RejectionReason.TRANSACTION_INVALID, "blob transactions are not allowed")
        result = await self._ethereum(method, params)
        if method == "eth_sendRawTransaction":
            self._signals.transaction_waits(str(result))
        return result

    async def close(self) -> None:
        """End the connections."""
        await self._endpoints.engine.close()
        await self._endpoints.ethereum.close()

    def _check_ours(self, payload: ExecutionPayload) -> None:
        """Refuse what consensus forbids although Ethereum allows it, and numbers that no client can read."""
        encode_payload(payload)
        if payload.gas_limit != self._gas_limit:
            detail = f"the gas limit is {payload.gas_limit}; set the client's target to {self._gas_limit}"
            raise Rejected(RejectionReason.PAYLOAD_INVALID, detail)
        if payload.blob_gas_used or payload.excess_blob_gas or any(raw[:1] == b"\3" for raw in payload.transactions):
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "blobs are not allowed")
        numbers = [payload.number, payload.gas_used, payload.timestamp_seconds]
        for each in payload.withdrawals:
            numbers += [each.index, each.validator_index, each.amount_gwei]
        if max(numbers) >= _UINT64_LIMIT or payload.base_fee_wei >= 2**256:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "a number is too large")

    async def _status(self, status: Mapping[str, Any], payload: ExecutionPayload) -> PayloadStatus:
        detail = str(status.get("validationError") or "")[:512]
        if status["status"] == "VALID":
            return PayloadStatus(PayloadStatusCode.VALID, payload.block_hash)
        if status["status"] in ("INVALID", "INVALID_BLOCK_HASH"):
            return PayloadStatus(PayloadStatusCode.INVALID, await self._find_parent_hash(payload), detail)
        return PayloadStatus(PayloadStatusCode.SYNCING, ZERO_PAYLOAD_HASH, detail or "the parent payload is unknown")

    async def _find_parent_hash(self, payload: ExecutionPayload) -> Hash32:
        parent = await self._ethereum("eth_getBlockByHash", [hexadecimal(payload.parent_hash), False])
        return ZERO_PAYLOAD_HASH if parent is None else payload.parent_hash

    async def _block(self, wanted: str) -> Mapping[str, Any]:
        method = "eth_getBlockByNumber" if wanted == "latest" else "eth_getBlockByHash"
        block: Mapping[str, Any] | None = await self._ethereum(method, [wanted, False])
        if block is None:
            raise Unavailable(f"execution payload {wanted}")
        return block

    @asynccontextmanager
    async def _on(self, head: Hash32, attributes: PayloadAttributes | None) -> AsyncIterator[Mapping[str, Any]]:
        """Choose a head for one question and come back to the one that consensus chose."""
        chosen = self._head
        if chosen is None:
            chosen = (_payload_bytes((await self._block("latest"))["hash"]), ZERO_PAYLOAD_HASH, ZERO_PAYLOAD_HASH)
        try:
            answer = await self._choose((head, ZERO_PAYLOAD_HASH, ZERO_PAYLOAD_HASH), attributes)
            if answer["payloadStatus"]["status"] == "SYNCING":
                raise Unavailable(f"execution payload {hexadecimal(head)}")
            yield answer
        finally:
            if chosen[0] != head:
                await self._choose(chosen, None)

    async def _choose(
        self, chosen: tuple[Hash32, Hash32, Hash32], attributes: PayloadAttributes | None
    ) -> Mapping[str, Any]:
        names = ("headBlockHash", "safeBlockHash", "finalizedBlockHash")
        state = {name: hexadecimal(each) for name, each in zip(names, chosen, strict=True)}
        content = None if attributes is None else attributes_json(attributes)
        try:
            answer: Mapping[str, Any] = await self._endpoints.engine.call(
                "engine_forkchoiceUpdatedV3", [state, content]
            )
        except ClientError as error:
            if error.code in (_INVALID_FORK_CHOICE, _INVALID_ATTRIBUTES, _INVALID_PARAMS):
                raise Rejected(RejectionReason.ARGUMENT_INVALID, error.message) from error
            raise Unavailable(f"the execution client answers {error}") from error
        return answer

    async def _offer(self, raw: bytes) -> None:
        try:
            await self._endpoints.ethereum.call("eth_sendRawTransaction", [hexadecimal(raw)])
        except ClientError:
            # Known already, or it cannot run: what cannot run is left out.
            return

    async def _engine(self, method: str, params: Sequence[Any]) -> Any:
        try:
            return await self._endpoints.engine.call(method, params)
        except ClientError as error:
            raise Unavailable(f"the execution client answers {error}") from error

    async def _ethereum(self, method: str, params: Sequence[Any]) -> Any:
        try:
            return await self._endpoints.ethereum.call(method, params)
        except ClientError as error:
            if error.code == 3 and isinstance(error.data, str):
                raise Reverted(_payload_bytes(error.data), error.message) from error
            # What has no code of its own concerns the transaction.
            raise Rejected(_REASONS.get(error.code, RejectionReason.TRANSACTION_INVALID), error.message) from error


def _payload_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except (AttributeError, ValueError) as error:
        raise Unavailable(f"the execution client answers no bytes: {str(text)[:64]}") from error


def as_engine(execution: BlockingEngine | EngineApiClient) -> WorkerEngine | EngineApiClient:
    """Return an engine that does not block: an embedded one gets a thread, a stock client waits for the network."""
    return execution if isinstance(execution, EngineApiClient) else WorkerEngine(execution)
