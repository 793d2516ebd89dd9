"""Show what a node does as Prometheus metrics on 127.0.0.1 (docs/metrics.md); read at each scrape, from memory."""

import asyncio
import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from learnchain.encoding.files import directory_bytes
from learnchain.network.concurrency import Clock
from learnchain.network.network import Network
from learnchain.node.chain import Ports
from learnchain.protocol.messages import Deadline
from learnchain.protocol.state import Selection
from learnchain.rejection import Unavailable

Family = GaugeMetricFamily | CounterMetricFamily
PHASES = ("waiting", "training", "reveal", "last")
LAG_SECONDS = 0.25
DISK_SECONDS = 10.0
_STATUS = Path("/proc/self/status")


class MetricsSource(Protocol):
    """Name what metrics read of a node."""

    ports: Ports
    network: Network


class NodeCollector(Collector):
    """Turn the node's state into metric families."""

    def __init__(self, node: MetricsSource, lag: "LoopLag", directory: Path) -> None:
        self._node, self._lag, self._directory = node, lag, directory
        self.disk_bytes = 0

    def measure_disk(self) -> None:
        """Count the bytes of the data directory; called beside the event loop."""
        self.disk_bytes = directory_bytes(self._directory)

    def collect(self) -> Iterator[Family]:
        """Yield every family."""
        with contextlib.suppress(Unavailable):
            yield from self._collect_chain()
        yield from self._collect_work()
        yield _gauge("peers", "Connected peers.", len(self._node.network.peers()))
        rejected = CounterMetricFamily("learnchain_rejected", "Messages of peers that broke a rule.", labels=["reason"])
        for reason, count in sorted(self._node.network.rejections.items()):
            rejected.add_metric([reason], count)
        yield rejected
        yield _gauge("disk_bytes", "Bytes of the data directory, at most ten seconds old.", self.disk_bytes)
        yield _gauge("event_loop_lag_seconds", "The latest lateness of a timer.", self._lag.last_seconds)
        yield _gauge("event_loop_lag_maximum_seconds", "The worst since the scrape before.", self._lag.take_maximum())
        yield _gauge("resident_memory_bytes", "Memory of this process, without its training processes.", memory_bytes())

    def _collect_chain(self) -> Iterator[Family]:
        state = self._node.ports.chain.round
        tree = state.tree
        yield _gauge("head_height", "Height of the head.", state.head.height)
        yield _gauge("head_weight", "Weight of the head's branch.", state.head.weight)
        yield _gauge("final_height", "Height that no fork replaces any more.", tree.state(tree.root).height)
        yield _gauge("pending_blocks", "Blocks that wait for measurements.", len(state.pending_blocks))
        yield _gauge("commitments", "Commitments of the height that is decided.", len(state.commitments))
        phase = phase_of(state.selection, self._node.ports.clock.now_milliseconds())
        family = GaugeMetricFamily("learnchain_phase", "1 for the phase of the height.", labels=["phase"])
        for each in PHASES:
            family.add_metric([each], float(each == phase))
        yield family

    def _collect_work(self) -> Iterator[Family]:
        decisions = self._node.ports.decisions
        share = decisions.training.get("training_share", 0.0)
        yield _gauge("training_share", "Share of the last run's process time spent on gradients.", float(share))
        seconds = CounterMetricFamily("learnchain_measured_seconds", "Seconds spent on measuring.", labels=["kind"])
        count = CounterMetricFamily("learnchain_measurements", "Measurements made.", labels=["kind"])
        for kind, (number, spent) in sorted(decisions.measured.items()):
            seconds.add_metric([kind], spent)
            count.add_metric([kind], number)
        yield seconds
        yield count
        yield _gauge("blob_bytes", "Bytes of blobs on this disk.", self._node.ports.blobs.used_bytes())


class LoopLag:
    """Measure how late the event loop wakes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.last_seconds = 0.0
        self._worst_seconds = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = self._clock.monotonic_seconds()
            await asyncio.sleep(LAG_SECONDS)
            self.last_seconds = max(0.0, self._clock.monotonic_seconds() - before - LAG_SECONDS)
            self._worst_seconds = max(self._worst_seconds, self.last_seconds)

    def take_maximum(self) -> float:
        """Return the worst since the last call."""
        worst, self._worst_seconds = self._worst_seconds, 0.0
        return worst


class MetricsServer:
    """Answer `GET /metrics` on 127.0.0.1."""

    def __init__(self, node: MetricsSource, port: int, directory: Path) -> None:
        self._port = port
        self._lag = LoopLag(node.ports.clock)
        self._collector = NodeCollector(node, self._lag, directory)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; raise `Unavailable` when the port is taken."""
        application = web.Application()
        application.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise Unavailable(f"port {self._port} for metrics: {error.strerror}; choose another") from error
        self._tasks = [asyncio.create_task(self._lag.run()), asyncio.create_task(self._measure_disk())]

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _measure_disk(self) -> None:
        while True:
            await asyncio.to_thread(self._collector.measure_disk)
            await asyncio.sleep(DISK_SECONDS)


def phase_of(selection: Selection, now_milliseconds: int) -> str:
    """Name where a height stands."""
    schedule = selection.schedule
    if now_milliseconds < schedule.start_milliseconds:
        return "waiting"
    if now_milliseconds < schedule.commitment_milliseconds:
        return "training"
    return "reveal" if now_milliseconds < schedule.deadline(Deadline.REVEAL) else "last"


def memory_bytes() -> int:
    """Return the resident memory of this process; where the system does not tell, its largest so far."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"learnchain_{name}", text, value=value)
