"""Log to a bounded set of files under the data directory; warnings go to standard error too.

What one node process is started with: a JSON file beside its data, so that a restart needs no flags.
"""

import ipaddress
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import parse_json
from learnchain.encoding.files import write_whole
from learnchain.rejection import Rejected, RejectionReason
from learnchain.verification.assurance import Demand

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override


LOG_FOLDER, LOG_NAME = "logs", "node.log"
MAXIMUM_LOG_BYTES = 8 << 20
KEPT_LOGS = 4


class _BoundedHandler(RotatingFileHandler):
    """Go on without a log while the disk is full: a node that cannot log still serves."""

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


def open_logs(directory: Path, name: str, level: str) -> Path:
    """Write this process's log into `directory`, at most `KEPT_LOGS + 1` files of `MAXIMUM_LOG_BYTES`."""
    folder = directory / LOG_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    formatter = logging.Formatter(f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s")
    rotating = _BoundedHandler(folder / LOG_NAME, maxBytes=MAXIMUM_LOG_BYTES, backupCount=KEPT_LOGS, delay=True)
    screen = logging.StreamHandler()
    for handler in (rotating, screen):
        handler.setFormatter(formatter)
    screen.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers = [rotating, screen]
    return folder / LOG_NAME


MAXIMUM_SETTINGS_BYTES = 1 << 20
_HIGHEST_PORT = 65_535
_PATHS = ("genesis", "data_directory", "wallet", "engine_secret")


@dataclass(frozen=True)
class NodeSettings:
    """Name everything that differs from node to node; all paths are absolute, in a file also relative to it.

    `transport` is `iroh` or `tls`: one for a whole network, since the two do not reach each other. `relays` names
    relays for iroh, none by default. `training_nice` lowers the priority of training beside the node's own work;
    `rpc_port` and `metrics_port` 0 mean no such server. `verifies_models` false follows the chain at header
    level, without torch; `sync_level` says how what was decided before this start is checked: "accuracy" all of it,
    "headers" all at that level, "available" at header level only where storage relief deleted the model everywhere
    (`verification/assurance.py`).
    `retain_blocks` is the window W of DLBC IV-H: models and traces of older blocks are deleted, but each task's best;
    0 keeps all. `state_blocks` is how many final blocks keep their accounts and storage; 0 keeps those of every block.
    `is_auditor` replays segments of winners' training for pay.
    `blob_store` names where blobs lie beside this disk and those of peers: `embedded` nowhere, `kubo:URL`,
    `gateway:URL`, `s3:[URL/]BUCKET[/PREFIX]` or `folder:/PATH` (`storage/blobs/origins.py`).
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
    is_auditor: bool = False
    rpc_port: int = 0
    engine_url: str = ""
    engine_secret: str = ""
    ethereum_url: str = ""
    learning_rate_thousandths: int = 500
    training_nice: int = 5
    stop_after_height: int = 0
    log_level: str = "info"
    transport: str = "iroh"
    relays: tuple[str, ...] = ()
    local_discovery: bool = False
    verifies_models: bool = True
    sync_level: str = "accuracy"
    metrics_port: int = 0
    retain_blocks: int = 0
    blob_store: str = "embedded"
    state_blocks: int = 128

    def save(self, path: Path) -> None:
        """Write the settings file; what lies beside it is named from there, so that the whole may be moved."""
        content = asdict(self)
        for name in _PATHS:
            named, beside = Path(content[name]), path.resolve().parent
            # The nodes of a local network share the genesis that lies above them; a wallet elsewhere stays there.
            if content[name] and named.is_relative_to(beside.parent if name == "genesis" else beside):
                content[name] = os.path.relpath(named, beside)
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), 0o644)


def load_settings(path: Path) -> NodeSettings:
    """Read a settings file; an unknown or missing entry is named."""
    if not path.is_file():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no settings file")
    if path.stat().st_size > MAXIMUM_SETTINGS_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"{path} is larger than {MAXIMUM_SETTINGS_BYTES} bytes")
    try:
        content: dict[str, Any] = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
        unknown = ", ".join(sorted(set(content) - {each.name for each in fields(NodeSettings)}))
        if unknown:
            raise TypeError(f"unknown entries: {unknown}")
        for name in ("peers", "relays"):
            if not isinstance(content.get(name, []), list):
                raise TypeError(f"{name}: a list of texts is wanted")
            content[name] = tuple(content.get(name, ()))
        # Files written before there was a choice belong to networks of TLS.
        content.setdefault("transport", "tls")
        settings = NodeSettings(**content)
        _check_types(settings)
        beside = path.resolve().parent
        settings = replace(
            settings,
            genesis=_absolute(beside, settings.genesis),
            data_directory=_absolute(beside, settings.data_directory),
            wallet=_absolute(beside, settings.wallet),
            engine_secret=_absolute(beside, settings.engine_secret),
        )
    except (ValueError, TypeError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no settings file: {error}") from error
    if settings.sync_level not in set(Demand):
        detail = f"{path}: no sync_level {settings.sync_level!r}; choose {', '.join(Demand)}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if settings.is_auditor and not settings.verifies_models:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path}: an auditor has to judge: it replays training")
    if settings.is_miner and not settings.verifies_models:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path}: a miner has to judge, its own models first")
    return settings


def _absolute(beside: Path, named: str) -> str:
    return os.path.normpath(beside / named) if named else named


def _check_types(settings: NodeSettings) -> None:
    """Refuse entries of another type than the default's or of no sense: they would fail later, without a name."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in ("peers", "relays"):
            if not all(isinstance(entry, str) for entry in value):
                raise TypeError(f"{each.name}: a list of texts is wanted")
            if each.name == "relays" and not all(entry.startswith(("http://", "https://")) for entry in value):
                raise ValueError(f"relays: {value!r} are no addresses such as https://relay.example")
        elif type(value) is not each.type:
            raise TypeError(f"{each.name}: {value!r} is not of the type {getattr(each.type, '__name__', each.type)}")
        elif each.type is int and value < 0 and each.name != "training_nice":
            raise ValueError(f"{each.name}: {value} is negative")
    for name in ("listen_port", "rpc_port", "metrics_port"):
        if getattr(settings, name) > _HIGHEST_PORT:
            raise ValueError(f"{name}: {getattr(settings, name)} is no port")
    ipaddress.ip_address(settings.listen_host)
    if settings.log_level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"log_level: {settings.log_level!r}; choose debug, info, warning or error")
