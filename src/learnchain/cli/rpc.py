"""Call a node over JSON-RPC and find out where it listens; answers of a node are data to judge, not to trust."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnchain.cli.output import LOCAL_DIRECTORY, MissingData
from learnchain.encoding.codec import parse_json
from learnchain.rejection import Rejected, RejectionReason, Unavailable

DEFAULT_URL = "http://127.0.0.1:8545"
MAXIMUM_ANSWER_BYTES = 64 << 20
TOKEN_NAME = "admin.token"

START_ADVICE = (
    "Start a network with `learnchain up`, or point --rpc or --data-dir at a node that runs; then try again. "
    "Node logs lie in the data directory."
)

_PARSE_ERROR, _INVALID_REQUEST, _METHOD_NOT_FOUND, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_INTERNAL_ERROR = -32603


@dataclass(frozen=True, slots=True)
class NodeClient:
    """Speak to one node."""

    url: str
    timeout_seconds: float = 20.0

    def call(self, method: str, *params: Any) -> Any:
        """Return a method's result; raise what the node's error stands for."""
        # Loaded when needed: `learnchain --help` stays fast.
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = Request(self.url, body, {"content-type": "application/json"})
        try:
            with urlopen(request, timeout=self.timeout_seconds) as response:
                raw = response.read(MAXIMUM_ANSWER_BYTES + 1)
        except HTTPError as error:
            raise MissingData(
                f"{self.url} answers {error.code}: no JSON-RPC server of learnchain", START_ADVICE
            ) from error
        except (URLError, OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) else error
            raise MissingData(f"no node answers at {self.url} ({cause})", START_ADVICE) from error
        if len(raw) > MAXIMUM_ANSWER_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"the answer of {self.url} is larger than allowed")
        return _result(self.url, raw)


def _result(url: str, raw: bytes) -> Any:
    try:
        message = parse_json(raw)
        error = message.get("error")
    except (ValueError, AttributeError, RecursionError) as problem:
        raise MissingData(f"{url} does not speak JSON-RPC", START_ADVICE) from problem
    if error is None:
        return _printable(message.get("result"))
    if not isinstance(error, dict):
        raise MissingData(f"{url} does not speak JSON-RPC", START_ADVICE)
    data = error.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    detail, code = _printable(str(error.get("message", ""))), error.get("code")
    if reason in set(RejectionReason):
        raise Rejected(RejectionReason(reason), detail)
    by_code = {
        3: RejectionReason.EXECUTION_REVERTED,
        _METHOD_NOT_FOUND: RejectionReason.METHOD_UNKNOWN,
        _INVALID_PARAMS: RejectionReason.ARGUMENT_INVALID,
        _INVALID_REQUEST: RejectionReason.MALFORMED,
        _PARSE_ERROR: RejectionReason.MALFORMED,
    }
    if code == 3:
        detail = f"{detail}{_revert_text(data)}"
    if code in by_code:
        raise Rejected(by_code[code], detail)
    if code == _INTERNAL_ERROR:
        raise RuntimeError(f"the node at {url} met a fault of its own: {detail}")
    raise Unavailable(detail)


def _printable(value: Any) -> Any:
    """Replace what would steer a terminal: names of tasks are written by strangers."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in value)
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(each) for key, each in value.items()}
    return value


def _revert_text(data: Any) -> str:
    """Return the escrow contract's own words for what it refused; nothing where the bytes are not its."""
    if not isinstance(data, str):
        return ""
    # Loaded when needed, like everything that reads the contract.
    from learnchain.execution.escrow import error_text

    try:
        text = error_text(bytes.fromhex(data.removeprefix("0x")))
    except ValueError:
        return ""
    return f": {text}" if text else ""


def client_for(rpc: str | None, directory: Path, node: int = 0) -> NodeClient:
    """Return the client of the node that the options name: by address, local network, or directory of a node."""
    if rpc is not None:
        return NodeClient(check_url(rpc))
    layout = directory / "network.json"
    ports = layout_of(directory).get("rpc_ports")
    if isinstance(ports, list):
        if not 0 <= node < len(ports):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the network has nodes 0 to {len(ports) - 1}")
        return NodeClient(f"http://127.0.0.1:{_port(ports[node], layout)}")
    settings = directory / "settings.json"
    if not settings.is_file():
        if directory != LOCAL_DIRECTORY:
            # The default address might belong to another network than the one that was named.
            raise MissingData(f"{directory} holds neither a network nor a node", START_ADVICE)
        return NodeClient(DEFAULT_URL)
    port = _port(_json(settings).get("rpc_port", 0), settings)
    if not port:
        advice = "Set rpc_port there and start the node again, or name another node with --rpc."
        raise MissingData(f"the node of {settings} has no JSON-RPC server: its rpc_port is 0", advice)
    return NodeClient(f"http://127.0.0.1:{port}")


def check_url(url: str) -> str:
    """Return the address of a JSON-RPC server if it is one; refuse what no request could be sent to."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well or any(each.isspace() or not each.isprintable() for each in url):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"--rpc {url!r} is no address such as {DEFAULT_URL}")
    return url


def _port(value: Any, file: Path) -> int:
    if type(value) is not int or not 0 <= value <= 65_535:
        raise Rejected(RejectionReason.MALFORMED, f"{file}: {value!r} is no port")
    return value


def layout_of(directory: Path) -> dict[str, Any]:
    """Return what `learnchain up` wrote about its network; empty when there is none."""
    return _json(directory / "network.json")


def token_of(directory: Path, node: int = 0) -> str:
    """Return the token that lets its holder spend a node's coins."""
    for path in (directory / f"node-{node}" / TOKEN_NAME, directory / TOKEN_NAME):
        if path.is_file():
            return path.read_text().strip()
    raise Unavailable(f"{TOKEN_NAME} in {directory}: point --data-dir at the directory of a node that has run")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no JSON") from error
    return content if isinstance(content, dict) else {}
