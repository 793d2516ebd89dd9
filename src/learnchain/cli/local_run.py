"""Run a whole local network: lay it out or continue it, post the tasks, watch it, and end when enough was mined."""

import asyncio
import dataclasses
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learnchain.cli import observation
from learnchain.cli.display import Display
from learnchain.cli.observation import NetworkObserver, Snapshot
from learnchain.cli.processes import NodeProcesses
from learnchain.cli.rpc import NodeClient, layout_of, token_of
from learnchain.engines import DEFAULT_ENGINE
from learnchain.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from learnchain.learning.fork_server import ForkServer
    from learnchain.node.local_network import LocalNetwork, PreparedNetwork


POLL_SECONDS = 0.5
START_SECONDS = 60.0
READY_SECONDS = 120.0
_READY_POLL_SECONDS = 0.05
_SHORTEST_AHEAD_SECONDS = 1.0

CLAIM_BLOCKS = 2
"""Blocks to wait for after the last wanted one, so that its settlement is claimed (one carries the proof)."""

AGREE_SECONDS = 10.0

DRAIN_SECONDS = 30.0
"""How long the end waits for models that are committed and not judged; longer last phases end without them."""

_LOWEST_FREE_BYTES = 500 << 20


@dataclass(frozen=True, slots=True)
class LocalRunPlan:
    """Say what network to run and when it has done enough; `blocks` 0 means until it is stopped."""

    directory: Path
    consensus: str = DEFAULT_ENGINE
    miners: int = 3
    tasks: tuple[str, ...] = ()
    blocks: int = 0
    rpc_port: int | None = None
    restart: bool = True
    patience_seconds: float = 180.0


@dataclass(slots=True)
class LocalRun:
    """Carry out one `learnchain up`."""

    wanted: LocalRunPlan
    started_seconds: float
    _first_won_seconds: float | None = None
    _progress_seconds: float = field(default_factory=time.monotonic)
    _won: int = 0
    _fork_server: "ForkServer | None" = None
    _outline: "PreparedNetwork | None" = None
    inspect: Callable[[NetworkObserver, Snapshot], dict[str, Any]] | None = None
    """Adds to the report what only running nodes can tell."""

    def provision_network(self) -> "LocalNetwork":
        """Return the network of the data directory, laid out anew if there is none."""
        # Loaded when needed: laying out a network needs torch and the execution engine.
        from learnchain.learning.fork_server import ForkServer
        from learnchain.node.local_network import LocalPlan, existing_network, local_needs, prepare_network
        from learnchain.tasks.task_file import read_task_file

        directory = self.wanted.directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(directory).free < _LOWEST_FREE_BYTES:
            raise Unavailable(f"disk space: {directory} has less than {_LOWEST_FREE_BYTES >> 20} MiB left")
        network = existing_network(directory)
        if network is not None:
            if network.consensus != self.wanted.consensus:
                detail = f"{directory} holds a network with consensus {network.consensus}; choose another --data-dir"
                raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
            network = with_free_ports(network, self.wanted.rpc_port)
            self._fork_server = ForkServer.open(directory)
            return network
        port = 8545 if self.wanted.rpc_port is None else self.wanted.rpc_port
        if port and not is_free(port):
            detail = f"port {port} is taken; choose another with --rpc-port, or 0 for a free one"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        needs = local_needs(read_task_file(each) for each in self.wanted.tasks)
        plan = LocalPlan(
            directory,
            self.wanted.consensus,
            self.wanted.miners,
            needs.standing,
            port,
            phases=needs.phases,
            evaluation_milliseconds=needs.evaluation_milliseconds,
        )
        self._outline = prepare_network(plan)
        # Torch is loaded while everything else is, once for all miners and judges.
        self._fork_server = ForkServer.open(directory)
        return self._outline.network

    def run(self, network: "LocalNetwork", display: Display, tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Start the nodes, post the tasks, watch until done or stopped; return the report."""
        observer = NetworkObserver.of(network.settings, network.rpc_ports, network.accounts)
        nodes = NodeProcesses(
            network.directory, network.settings, self.wanted.restart, self._fork_server, network.fresh
        )

        def is_ready(seen: Snapshot) -> bool:
            # Every node answers and the publisher has its chain back.
            return all(each.status is not None for each in seen.nodes) and seen.nodes[0].height >= observer.base_height

        with self._fork_server or nullcontext(), nodes as processes, display:
            stopped = ""
            snapshot = None
            try:
                # Read from the store: a node answers before it has opened its own.
                observer.base_height = _stored_height(network)
                processes.start()
                if self._outline is not None:
                    self._write_genesis_when_ready(self._outline, processes, display)
                snapshot = self._until(observer, processes, display, is_ready)
                self._post(observer, tables, display)
                snapshot = self._watch(observer, processes, display)
                self._between_rounds(observer, processes, display)
            except KeyboardInterrupt:
                stopped = "stopped from the keyboard"
            if snapshot is None or snapshot.leader is None:
                raise Unavailable("the network was stopped before a node answered")
            return self._report(observer, network.directory, stopped)

    def _write_genesis_when_ready(
        self, outlined: "PreparedNetwork", processes: NodeProcesses, display: Display
    ) -> None:
        """Date the genesis when every node is warm; what is left to open takes a small part of what loading took."""
        started = time.monotonic()
        display.note("the nodes load what they need; the network begins when all are ready")
        standing = asyncio.run(outlined.prepare_standing_tasks())
        while not all(processes.is_ready(index) for index in range(len(outlined.network.settings))):
            self._look_after(processes, display)
            if time.monotonic() > started + READY_SECONDS:
                raise Unavailable(
                    f"the nodes did not start within {READY_SECONDS:.0f} s; see the logs in {self._root()}"
                )
            time.sleep(_READY_POLL_SECONDS)
        ahead_seconds = max(_SHORTEST_AHEAD_SECONDS, (time.monotonic() - started) / 8)
        outlined.write_genesis(standing, time.time_ns() // 1_000_000 + round(1_000 * ahead_seconds))

    def _until(
        self, observer: NetworkObserver, processes: NodeProcesses, display: Display, done: Callable[[Snapshot], bool]
    ) -> Snapshot:
        """Look until the nodes answer; bounded by the time that a start may take."""
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            self._look_after(processes, display)
            snapshot = observer.look()
            if done(snapshot):
                return snapshot
            time.sleep(POLL_SECONDS)
        raise Unavailable(f"no node answered within {START_SECONDS:.0f} s; see the logs in {self.wanted.directory}")

    def _post(self, observer: NetworkObserver, tables: Iterable[dict[str, Any]], display: Display) -> None:
        poster = NodeClient(observer.clients[0].url, 60.0)
        for table in tables:
            posted = _retry_while_busy(
                lambda table=table: poster.call("learn_publishTask", token_of(self._root()), table)
            )
            display.note(f"posted task {posted['name']}: {posted['value_wei'] / 10**18:g} ether in escrow")

    def _root(self) -> Path:
        return self.wanted.directory.resolve()

    def _watch(self, observer: NetworkObserver, processes: NodeProcesses, display: Display) -> Snapshot:
        snapshot = observer.look()
        self._progress_seconds = time.monotonic()
        try:
            while True:
                self._look_after(processes, display)
                snapshot = observer.look()
                display.update(snapshot)
                now = time.monotonic()
                if len(snapshot.won_blocks) > self._won:
                    self._won, self._progress_seconds = len(snapshot.won_blocks), now
                if snapshot.won_blocks and self._first_won_seconds is None:
                    self._first_won_seconds = now - self.started_seconds
                if self.wanted.blocks and self._is_finished(observer, snapshot):
                    return snapshot
                if self.wanted.blocks and time.monotonic() - self._progress_seconds > self.wanted.patience_seconds:
                    raise self._build_stall_error(snapshot)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            if self.wanted.blocks:
                display.note("stopped before all blocks were mined")
            return snapshot

    def _between_rounds(self, observer: NetworkObserver, processes: NodeProcesses, display: Display) -> None:
        """Let models that somebody paid for be judged before the nodes end; another Ctrl-C does not wait.

        Without commitments a height may be left at once: its task is selected again when the network comes back. What
        was committed to is not, because its test set may be known by then.
        """
        limit, told = time.monotonic() + DRAIN_SECONDS, False
        while time.monotonic() < limit and any(map(_awaits_judgement, observer.clients)):
            if not told:
                display.note("models are committed: ending when they are judged")
            told = True
            self._look_after(processes, display)
            display.update(observer.look())
            time.sleep(POLL_SECONDS)

    def _look_after(self, processes: NodeProcesses, display: Display) -> None:
        for death in processes.deaths():
            display.note(f"{death.name} ended with code {death.exit_code}; its last lines:")
            for line in death.last_lines:
                display.note(f"  {line}")
            display.note(f"  {death.name} is {'started again' if death.restarted else 'left alone'}")

    def _is_finished(self, observer: NetworkObserver, snapshot: Snapshot) -> bool:
        """Say whether the wanted blocks are on every node's head and what they settled was claimed if it can be."""
        if len(snapshot.won_blocks) < self.wanted.blocks or not all(each.status for each in snapshot.nodes):
            return False
        last = snapshot.won_blocks[self.wanted.blocks - 1]
        try:
            hashes = {client.call("learn_block", last["height"])["hash"] for client in observer.clients}
            if hashes != {last["hash"]}:
                return False
            leader = snapshot.leader
            if leader is not None and leader.height >= last["height"] + CLAIM_BLOCKS:
                return True
            reports = observation.task_reports(observer.clients[0])
        except (Rejected, Unavailable):
            # A node is a block behind, or its head moves this very moment.
            return False
        return all(each["contract_status"] != "open" for each in reports if each["outcome"] != "waiting")

    def _build_stall_error(self, snapshot: Snapshot) -> Unavailable:
        missed = [each["missed"] for each in snapshot.blocks if each["empty"]][-3:]
        detail = f"a block that somebody won within {self.wanted.patience_seconds:.0f} s; "
        detail += f"{len(snapshot.won_blocks)} of {self.wanted.blocks} were won"
        if missed:
            detail += f", the last empty blocks missed: {', '.join(missed)} (is the machine overloaded?)"
        return Unavailable(f"{detail}; logs: {self._root()}/node-*/node.log")

    def _report(self, observer: NetworkObserver, directory: Path, stopped: str) -> dict[str, Any]:
        limit = time.monotonic() + AGREE_SECONDS
        snapshot = observer.look()
        while not snapshot.agree and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
            snapshot = observer.look()
        index = next(place for place, each in enumerate(snapshot.nodes) if each.status is not None)
        data = _retry_while_busy(lambda: observation.report(snapshot, observer.clients[index], directory))
        data["seconds_to_first_block"] = self._first_won_seconds
        trains = any(each["trained"] for each in snapshot.blocks)
        data["seconds_to_first_trained_block"] = self._first_won_seconds if trains else None
        data["stopped"] = stopped or None
        return data if self.inspect is None else {**data, **self.inspect(observer, snapshot)}


def _awaits_judgement(client: NodeClient) -> bool:
    """Return whether a node knows commitments to a commissioned task at the height that is being decided."""
    try:
        found = client.call("learn_round")
    except (Rejected, Unavailable):
        return False
    return bool(found["commitments"]) and not found["deciding"]["is_standing"]


def _stored_height(network: "LocalNetwork") -> int:
    """Return the height that node 0 stopped at; 0 for a new network."""
    from learnchain.storage.archive import Archive
    from learnchain.storage.genesis import load_genesis
    from learnchain.storage.lmdb_store import LmdbStore

    place = network.settings[0].parent / "chain"
    if not place.is_dir():
        return 0
    store = LmdbStore(place)
    try:
        return Archive(store, load_genesis(network.directory / "genesis.json").state()).head().height
    finally:
        store.close()


def _retry_while_busy(work: Callable[[], Any]) -> Any:
    """Repeat what a busy node could not answer, a few times."""
    for attempt in range(5):
        try:
            return work()
        except Unavailable:
            if attempt == 4:
                raise
            time.sleep(1.0)
    raise AssertionError("the last attempt returns or raises")


def is_free(port: int) -> bool:
    """Return whether a port of the loopback can be listened on."""
    with socket.socket() as probe:
        # As servers do: a port that an ended server left in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def with_free_ports(network: "LocalNetwork", rpc_port: int | None) -> "LocalNetwork":
    """Give a continued network other ports where its own are taken by now, or where another one is asked for."""
    from learnchain.node.settings import load_settings

    settings = [load_settings(path) for path in network.settings]
    moved: dict[int, int] = {}
    for each in settings:
        for port in (each.listen_port, each.rpc_port):
            if port and not is_free(port):
                moved[port] = _free_port()
    first = settings[0].rpc_port
    if rpc_port is not None and rpc_port not in (0, first):
        if not is_free(rpc_port):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"port {rpc_port} is taken; choose another --rpc-port")
        moved[first] = rpc_port
    if not moved:
        return network
    for path, each in zip(network.settings, settings, strict=True):
        peers = tuple(_move_address(address, moved) for address in each.peers)
        listen, rpc = moved.get(each.listen_port, each.listen_port), moved.get(each.rpc_port, each.rpc_port)
        dataclasses.replace(each, listen_port=listen, rpc_port=rpc, peers=peers).save(path)
    ports = tuple(moved.get(port, port) for port in network.rpc_ports)
    layout = {**layout_of(network.directory), "rpc_ports": list(ports)}
    (network.directory / "network.json").write_text(json.dumps(layout, indent=1) + "\n")
    return dataclasses.replace(network, rpc_ports=ports)


def _move_address(address: str, moved: dict[int, int]) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{moved.get(int(port), int(port))}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
