"""An execution client for tests: the Engine API of Prague over an embedded engine, as geth and reth offer it."""

from collections.abc import Sequence
from typing import Any

from learnchain.encoding.codec import Hash32
from learnchain.execution.engine import BlockingEngine, Reverted
from learnchain.execution.engine_api import ClientError, attributes_of, hexadecimal, payload_json, payload_of
from learnchain.protocol.payload import ExecutionPayload, PayloadStatus, PayloadStatusCode
from learnchain.rejection import Rejected, RejectionReason, Unavailable

METHODS = (
    "engine_exchangeCapabilities",
    "engine_forkchoiceUpdatedV3",
    "engine_getPayloadV4",
    "engine_newPayloadV4",
)


_UNKNOWN_PAYLOAD = -38001


_INVALID_FORK_CHOICE = -38002


_INVALID_ATTRIBUTES = -38003


_CODES = {RejectionReason.METHOD_UNKNOWN: -32601, RejectionReason.ARGUMENT_INVALID: -32602}


_MAXIMUM_PAYLOADS = 16


class EngineApiServer:
    """Answer engine and wallet methods; it is a `ClientCaller`, so that a client can be tried without a socket."""

    def __init__(self, door: BlockingEngine) -> None:
        self.door = door
        self._built: dict[str, ExecutionPayload] = {}
        self._count = 0

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one call, or raise the error that goes over the wire."""
        try:
            if method == "engine_exchangeCapabilities":
                return list(METHODS[1:])
            if method == "engine_forkchoiceUpdatedV3":
                return self._choose(*params)
            if method == "engine_getPayloadV4":
                return self._find_payload(*params)
            if method == "engine_newPayloadV4":
                return self._validate_payload(*params)
            return self.door.rpc(method, params)
        except Reverted as error:
            raise ClientError(3, error.detail, hexadecimal(error.data)) from error
        except Rejected as error:
            raise ClientError(_CODES.get(error.reason, -32000), error.detail) from error
        except Unavailable as error:
            raise ClientError(-32000, error.what) from error

    async def close(self) -> None:
        """Nothing is open."""

    def _choose(self, state: dict[str, str], attributes: dict[str, Any] | None) -> dict[str, Any]:
        names = ("headBlockHash", "safeBlockHash", "finalizedBlockHash")
        head, safe, finalized = (bytes.fromhex(state[name][2:]) for name in names)
        try:
            status = self.door.set_head(head, safe, finalized)
        except (Rejected, Unavailable) as error:
            raise ClientError(_INVALID_FORK_CHOICE, "Invalid forkchoice state") from error
        identity: str | None = None
        if attributes is not None and status.status is PayloadStatusCode.VALID:
            identity = self._build(head, attributes)
        return {"payloadStatus": _status(status), "payloadId": identity}

    def _build(self, head: Hash32, attributes: dict[str, Any]) -> str:
        try:
            payload = self.door.build(head, attributes_of(attributes))
        except Rejected as error:
            raise ClientError(_INVALID_ATTRIBUTES, "Invalid payload attributes") from error
        self._count += 1
        identity = f"0x{self._count:016x}"
        self._built[identity] = payload
        if len(self._built) > _MAXIMUM_PAYLOADS:
            del self._built[next(iter(self._built))]
        return identity

    def _find_payload(self, identity: str) -> dict[str, Any]:
        payload = self._built.get(identity)
        if payload is None:
            raise ClientError(_UNKNOWN_PAYLOAD, "Unknown payload")
        return {
            "executionPayload": payload_json(payload),
            "blockValue": "0x0",
            "blobsBundle": {"commitments": [], "proofs": [], "blobs": []},
            "shouldOverrideBuilder": False,
            "executionRequests": [hexadecimal(each) for each in payload.execution_requests],
        }

    def _validate_payload(
        self, content: dict[str, Any], blobs: list[str], beacon_root: str, requests: list[str]
    ) -> dict[str, Any]:
        if blobs:
            raise ClientError(-32602, "no blobs are known")
        root = bytes.fromhex(beacon_root[2:])
        return _status(self.door.new_payload(payload_of(content, root, requests), root))


def _status(status: PayloadStatus) -> dict[str, Any]:
    known = status.latest_valid != bytes(32)
    return {
        "status": status.status.value.upper(),
        "latestValidHash": hexadecimal(status.latest_valid) if known else None,
        "validationError": status.detail or None,
    }
