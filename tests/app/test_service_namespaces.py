"""Two groups of real nodes in network namespaces, cut by a firewall for two blocks and healed."""

import asyncio
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import LOG_FOLDER, LOG_NAME, load_settings

HOSTS = ("10.77.0.1", "10.77.0.2")
GROUP_OF_NODE = (0, 0, 1, 1)
"""The publisher and one miner on this side, two miners on the other."""
PATIENCE_SECONDS = 150.0
_HEAD = re.compile(r"head is height (\d+), ([0-9a-f]{16})")


def missing() -> str:
    """Return why this machine cannot run the test, or nothing."""
    if os.geteuid() != 0:
        return "namespaces need root"
    absent = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    probe = f"lc{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this kernel or container allows no namespaces"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


class Site:
    """Two namespaces joined by one cable."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex[:5]
        self.names = (f"lc{mark}a", f"lc{mark}b")
        for name in self.names:
            run("ip", "netns", "add", name)
        ends = (f"v{mark}a", f"v{mark}b")
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, host in zip(self.names, ends, HOSTS, strict=True):
            run("ip", "link", "set", end, "netns", name)
            run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", end)
            run("ip", "-n", name, "link", "set", end, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    def cut(self) -> None:
        rules = "table inet cut { chain in { type filter hook input priority 0; policy drop; iif lo accept; }; }"
        self._nft(rules)

    def heal(self) -> None:
        self._nft("delete table inet cut")

    def _nft(self, rules: str) -> None:
        words = ["ip", "netns", "exec", self.names[1], "nft", "-f", "-"]
        subprocess.run(words, input=rules.encode(), check=True, capture_output=True, timeout=20)

    def close(self) -> None:
        for name in self.names:
            run("ip", "netns", "delete", name)


class Nodes:
    """Real processes, one log each; what they say of their heads is what is judged."""

    def __init__(self, site: Site, settings: tuple[Path, ...]) -> None:
        self._logs = [path.parent / LOG_FOLDER / LOG_NAME for path in settings]
        self._processes: list[subprocess.Popen[bytes]] = []
        for path, group in zip(settings, GROUP_OF_NODE, strict=True):
            words = ["ip", "netns", "exec", site.names[group], sys.executable, "-m", "learnchain.app", str(path)]
            self._processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def heads(self, node: int) -> dict[int, str]:
        """Return the last head that the node reported at each height."""
        return {int(height): block for height, block in _HEAD.findall(self._log(node))}

    def _log(self, node: int) -> str:
        path = self._logs[node]
        return path.read_text() if path.exists() else ""

    def height(self, node: int) -> int:
        return max(self.heads(node), default=0)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > ends:
                tails = "\n".join(self._log(node)[-1_500:] for node in range(len(self._logs)))
                raise AssertionError(f"{what} did not happen; ended: {ended}\n{tails}")
            time.sleep(0.2)

    def agree_above(self, height: int) -> bool:
        """Return whether all nodes have one block at some height above."""
        heads = [self.heads(node) for node in range(len(self._logs))]
        common = set.intersection(*(set(each) for each in heads))
        return any(len({each[at] for each in heads}) == 1 for at in common if at > height)

    def close(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def spread(paths: tuple[Path, ...]) -> None:
    """Move a laid-out network from loopback to the two hosts."""
    settings = [load_settings(path) for path in paths]
    host_of_port = {str(each.listen_port): HOSTS[GROUP_OF_NODE[index]] for index, each in enumerate(settings)}
    for index, (path, each) in enumerate(zip(paths, settings, strict=True)):
        peers = []
        for peer in each.peers:
            identity, _, place = peer.rpartition("@")
            port = place.rpartition(":")[2]
            peers.append(f"{identity}@{host_of_port[port]}:{port}")
        changed = dataclasses.replace(each, listen_host=HOSTS[GROUP_OF_NODE[index]], peers=tuple(peers), rpc_port=0)
        changed.save(path)


@pytest.fixture
def site() -> Iterator[Site]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    made = Site()
    yield made
    made.close()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_groups_that_were_cut_for_two_blocks_agree_again(site: Site, tmp_path: Path) -> None:
    # Four processes load torch before the first height begins: a busy machine needs a while for that.
    plan = LocalPlan(tmp_path / "net", miners=3, standing=("iris",), first_block_milliseconds=45_000)
    network = asyncio.run(provision_network(plan, time.time_ns() // 10**6))
    spread(network.settings)
    nodes = Nodes(site, network.settings)
    try:
        nodes.until(lambda: nodes.agree_above(0), "a first common block")
        site.cut()
        begun = nodes.height(0)
        nodes.until(lambda: nodes.height(0) >= begun + 2, "two blocks on the publisher's side")
        cut_off = nodes.heads(2).get(nodes.height(0))
        assert cut_off is None or cut_off != nodes.heads(0)[nodes.height(0)]
        site.heal()
        healed = max(nodes.height(node) for node in range(4))
        nodes.until(lambda: nodes.agree_above(healed), "one chain after healing")
    finally:
        nodes.close()
