"""A stock execution client, as others wrote it, behind our Engine API client: the same chain, block for block.

The client opens a listener on every address; it runs in a network namespace of its own, where only a loopback is.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CLIENT = FOLDER / "stock_client" / "node_modules" / "@ethereumjs" / "client"
NAMESPACE = ["unshare", "--map-root-user", "--net"]


def _missing() -> str:
    if shutil.which("node") is None:
        return "node is not installed"
    if not CLIENT.is_dir():
        return f"run `npm ci --ignore-scripts` in {FOLDER / 'stock_client'}"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "util-linux and iproute2 are needed for a network namespace"
    tried = subprocess.run([*NAMESPACE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine allows no network namespaces"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", ["stock_client_suite", "stock_network_suite"])
def test_a_stock_client_agrees_with_the_embedded_engine_on_everything(suite: str):
    reason = _missing()
    if reason:
        pytest.skip(reason)
    run = f"{sys.executable} -m pytest -q -x -p no:cacheprovider --timeout=800 {FOLDER}/{suite}.py"
    command = [*NAMESPACE, "sh", "-c", f"ip link set lo up && exec {run}"]
    done = subprocess.run(command, cwd=FOLDER.parents[2], capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stdout[-6_000:]
