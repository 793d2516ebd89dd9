"""Log to a bounded set of files under the data directory; warnings go to standard error too."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

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
