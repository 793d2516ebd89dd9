"""Start one node: `python -m learnchain.app SETTINGS [--await-genesis]`."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from learnchain.app.service import NodeService
from learnchain.execution.engine import SWITCH_SECONDS
from learnchain.learning.fork_server import ForkServer
from learnchain.node.node import AWAIT_GENESIS_FLAG
from learnchain.node.settings import load_settings, open_logs
from learnchain.rejection import Rejected, Unavailable


async def _run(path: Path, awaits_genesis: bool) -> None:
    settings = load_settings(path)
    open_logs(Path(settings.data_directory), settings.name, settings.log_level)
    fork_server = ForkServer.inherit(os.environ)
    service = NodeService(settings, fork_server=fork_server, awaits_genesis=awaits_genesis)
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, service.stop)
    await service.run()


def main() -> int:
    """Run the node that a settings file describes; exit with 2 when it cannot start."""
    path, *flags = sys.argv[1:] or [""]
    if not path or flags not in ([], [AWAIT_GENESIS_FLAG]):
        sys.stderr.write(f"usage: python -m learnchain.app SETTINGS [{AWAIT_GENESIS_FLAG}]\n")
        return 2
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        asyncio.run(_run(Path(path), bool(flags)))
    except (Rejected, Unavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
