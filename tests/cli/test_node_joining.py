"""A node that joins a running network as an operator sets it up: `node init`, then a process of its own."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import load_settings
from learnchain.rejection import RejectionReason, Unavailable
from learnchain_conformance.node_processes import LocalProcesses


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def initialised(nodes: LocalProcesses, directory: Path, rpc_port: int) -> Path:
    """Return the settings of a node that neither mines nor publishes, as `learnchain node init` writes them."""
    wallet = directory.parent / "late.key"
    wallet.write_text("77" * 32)
    wallet.chmod(0o600)
    peer = load_settings(nodes.network.settings[1]).peers[0]
    options = ["--genesis", str(nodes.network.directory / "genesis.json"), "--wallet", str(wallet), "--peer", peer]
    command = [
        sys.executable,
        "-c",
        "from learnchain.cli import main; main()",
        "node",
        "init",
        str(directory),
        *options,
    ]
    answer = subprocess.run([*command, "--rpc-port", str(rpc_port), "--json"], capture_output=True, check=True)
    return Path(json.loads(answer.stdout)["data"]["settings"])


@pytest.mark.network
@pytest.mark.timeout(180)
def test_a_node_that_only_follows_joins_agrees_and_refuses_tasks(tmp_path: Path) -> None:
    plan = LocalPlan(tmp_path / "network", miners=1, rpc_port=0, first_block_milliseconds=8_000)
    nodes = LocalProcesses(asyncio.run(provision_network(plan, time.time_ns() // 1_000_000)))
    try:
        nodes.start()
        nodes.wait_for_height(1, 60)
        port = free_port()
        settings = initialised(nodes, tmp_path / "late", port)
        joined = (*nodes.network.settings, settings)
        nodes.network = replace(nodes.network, settings=joined, rpc_ports=(*nodes.network.rpc_ports, port))
        nodes.start_one(len(joined) - 1)
        nodes.wait_until_ready(len(joined) - 1, 60)
        nodes.wait_for_height(2, 60)
        with pytest.raises(Unavailable, match=RejectionReason.ARGUMENT_INVALID.value):
            nodes.call(len(joined) - 1, "learn_publishTask", "token", {})
    finally:
        nodes.stop()
