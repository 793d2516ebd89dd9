"""What one node process is started with: a JSON file beside its data, so that a restart needs no flags."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learnchain.primitives.rejection import Rejected, RejectionReason

MAXIMUM_SETTINGS_BYTES = 1 << 20


@dataclass(frozen=True)
class NodeSettings:
    """Name everything that differs from node to node; all paths are absolute.

    `training_nice` lowers the priority of training beside the node's own work; `rpc_port` 0 means no RPC server.
    """

    name: str
    genesis: str
    data_directory: str
    wallet: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    peers: tuple[str, ...] = ()
    is_miner: bool = False
    is_publisher: bool = False
    rpc_port: int = 0
    learning_rate_thousandths: int = 500
    training_nice: int = 5
    stop_after_height: int = 0
    log_level: str = "info"

    def save(self, path: Path) -> None:
        """Write the settings file."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_settings(path: Path) -> NodeSettings:
    """Read a settings file; an unknown or missing entry is named."""
    if not path.is_file():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no settings file")
    if path.stat().st_size > MAXIMUM_SETTINGS_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"{path} is larger than {MAXIMUM_SETTINGS_BYTES} bytes")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["peers"] = tuple(content.get("peers", ()))
        return NodeSettings(**content)
    except (ValueError, TypeError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no settings file: {error}") from error
