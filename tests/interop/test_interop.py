"""Ethereum's own tools against us and, unmodified, against anvil: what they do there they do here."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learnchain.node.local_network import DEVELOPMENT_MNEMONIC

FOLDER = Path(__file__).parent
BINARIES = FOLDER / "node_modules" / ".bin"
ARTIFACT = FOLDER.parents[1] / "src" / "learnchain" / "execution" / "artifacts" / "TaskEscrow.json"
FLOWS = {
    "ethers": ["node", "flow_ethers.mjs"],
    "viem": ["node", "flow_viem.mjs"],
    "cast": ["./flow_cast.sh"],
    "web3": [sys.executable, "flow_web3.py"],
}
START_SECONDS = 60.0
UP = "from learnchain.cli import main; main()"
TOOL_SECONDS = 240
"""A real network needs some nine seconds for a block, and a tool some five blocks."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(not BINARIES.is_dir(), reason=f"run `npm ci --ignore-scripts` in {FOLDER}"),
]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _binary(name: str) -> str:
    """Return the program itself: the packages' own starters come from install scripts that nobody ran."""
    found = sorted((FOLDER / "node_modules" / "@foundry-rs").glob(f"{name}-*/bin/{name}"))
    return str(found[0]) if found else str(BINARIES / name)


@pytest.fixture(scope="module", params=["engine", "up", "anvil"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a running chain: our engine alone, a whole network mined by training, or anvil."""
    port = _free_port()
    directory = tmp_path_factory.mktemp("chain")
    commands = {
        "engine": [sys.executable, str(FOLDER / "serve.py"), str(port), str(directory)],
        "up": [sys.executable, "-c", UP, "up", "--data-dir", str(directory / "network"), "--rpc-port", str(port)],
        "anvil": [_binary("anvil"), "--port", str(port), "--silent", "--mnemonic", DEVELOPMENT_MNEMONIC],
    }
    command = commands[request.param]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as chain:
        ends = time.monotonic() + START_SECONDS
        while not _answers(port):
            assert time.monotonic() < ends, (directory / "log").read_text()
            time.sleep(0.1)
        yield port
        chain.terminate()
        chain.wait(START_SECONDS)


@pytest.mark.timeout(2 * TOOL_SECONDS)
@pytest.mark.parametrize("tool", FLOWS)
def test_a_tool_deploys_sends_calls_and_watches(tool: str, port: int):
    arguments = [f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", str(ARTIFACT), DEVELOPMENT_MNEMONIC]
    environment = {**os.environ, "PATH": f"{Path(_binary('cast')).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*FLOWS[tool], *arguments],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
