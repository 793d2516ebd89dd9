"""Virtual time: an event loop that jumps to its next timer as soon as nothing else is left to do.

Everything that runs on it (`asyncio.sleep`, `asyncio.timeout`, `wait_for`) takes virtual time only, so hours pass in
milliseconds and two runs with one seed are equal. Work that is given to an executor runs at once, in order.

A network in one process: seeded delays, broken connections and partitions, in the virtual time of `SimulatedLoop`.

Only the byte pipe is simulated; streams, windows and idle timeouts are the multiplexer that TLS uses.
"""

import asyncio
import random
import selectors
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from learnchain.encoding.cryptography import shake256
from learnchain.network.multiplexer import ConnectionLimits, MultiplexedConnection, Remote
from learnchain.network.transport import DIAL_TIMEOUT_SECONDS, ConnectionLost, PeerAddress
from learnchain.rejection import Rejected, RejectionReason, Unavailable

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override


Result = TypeVar("Result")

START_MILLISECONDS = 1_800_000_000_000
"""Wall time at which simulations start unless they say otherwise."""


class Deadlock(RuntimeError):
    """Say that every task of a simulation waits and no timer will ever wake one: a bug in what was simulated."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Run callbacks as asyncio does, but let `time()` stand still while they run and jump while nobody does."""

    def __init__(self) -> None:
        self._jump = _JumpingSelector()
        super().__init__(self._jump)

    @override
    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jump.seconds

    @override
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Call the function now: threads would make the order of events depend on the machine."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - carried to whoever awaits the future
            future.set_exception(error)
        return future


class SimulatedClock:
    """Read virtual time from the running simulated loop; a `Clock`."""

    __slots__ = ("_start_milliseconds",)

    def __init__(self, start_milliseconds: int = START_MILLISECONDS) -> None:
        self._start_milliseconds = start_milliseconds

    def now_milliseconds(self) -> int:
        """Return the wall time of the simulation."""
        return self._start_milliseconds + round(self.monotonic_seconds() * 1000)

    def monotonic_seconds(self) -> float:
        """Return the loop's virtual seconds."""
        return asyncio.get_running_loop().time()

    async def sleep_until(self, milliseconds: int) -> None:
        """Wait in virtual time."""
        while (left := milliseconds - self.now_milliseconds()) > 0:
            await asyncio.sleep(left / 1000)


def run_simulated(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time to its end; what it left running is cancelled, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(coroutine)


class _JumpingSelector(selectors.DefaultSelector):
    """Answer `select` at once, moving virtual time on by as long as the loop was ready to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return real events that are there already; else jump, or name the deadlock."""
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self.seconds += timeout
        return events


PIPE_BUFFER_BYTES = 256 * 1024
"""Bytes under way in one direction before `drain` waits: the socket buffers of a real connection."""


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """Say what the network does to bytes: delay range of one way, and the chance that one write breaks a connection."""

    minimum_delay_seconds: float = 0.005
    maximum_delay_seconds: float = 0.05
    break_probability: float = 0.0


class SimulatedNetwork:
    """Join simulated transports; every random choice comes from the seed."""

    def __init__(
        self, seed: int, weather: LinkConditions | None = None, limits: ConnectionLimits | None = None
    ) -> None:
        self.weather = weather or LinkConditions()
        self.limits = limits
        self._random = random.Random(seed)
        self._transports: dict[int, SimulatedTransport] = {}
        self._groups: dict[bytes, int] = {}
        self._pipes: set[SimulatedPipe] = set()

    def transport(self, peer_id: bytes) -> "SimulatedTransport":
        """Return a new transport that listens under this identity."""
        port = len(self._transports) + 1
        self._transports[port] = SimulatedTransport(self, peer_id, port)
        return self._transports[port]

    def reopen_transport(self, transport: "SimulatedTransport") -> "SimulatedTransport":
        """Return a new transport at the address of a closed one, as when its machine starts again."""
        port = transport.address().port
        self._transports[port] = SimulatedTransport(self, transport.peer_id, port)
        return self._transports[port]

    def partition(self, *groups: set[bytes]) -> None:
        """Cut the network: bytes between different groups wait, dials time out; whoever is in no group is one more."""
        self._groups = {peer: number for number, group in enumerate(groups, 1) for peer in group}

    def heal(self) -> None:
        """Join the groups again; what waited is delivered now, unless its connection timed out before."""
        self._groups = {}
        for pipe in sorted(self._pipes, key=lambda pipe: pipe.number):
            pipe.flush()

    def break_connections(self, peer_id: bytes) -> None:
        """Break every connection of a peer, as when its machine dies."""
        for pipe in sorted(self._pipes, key=lambda pipe: pipe.number):
            if pipe.owner == peer_id:
                pipe.break_both_ends()

    def kill(self, peer_id: bytes) -> None:
        """End a peer as a power cut does: its connections end at its own side, and the others hear nothing of it."""
        for pipe in sorted(self._pipes, key=lambda pipe: pipe.number):
            if pipe.owner == peer_id:
                pipe.end_silently()

    def draw_delay_seconds(self) -> float:
        """Return the time that the next bytes are under way."""
        return self._random.uniform(self.weather.minimum_delay_seconds, self.weather.maximum_delay_seconds)

    def draw_break(self) -> bool:
        """Return whether the next write breaks its connection."""
        return self.weather.break_probability > 0 and self._random.random() < self.weather.break_probability

    def is_reachable(self, one: bytes, other: bytes) -> bool:
        """Return whether bytes pass between two peers."""
        return self._groups.get(one, 0) == self._groups.get(other, 0)

    async def dial(self, dialler: "SimulatedTransport", address: PeerAddress) -> MultiplexedConnection:
        """Make a pair of joined connections after one round trip."""
        await asyncio.sleep(self.draw_delay_seconds() + self.draw_delay_seconds())
        target = self._transports.get(address.port)
        if target is None or target.closed:
            raise Unavailable(f"nobody listens at {address}")
        if not self.is_reachable(dialler.peer_id, target.peer_id):
            await asyncio.get_running_loop().create_future()
        if address.peer_id not in {b"", target.peer_id}:
            raise Rejected(RejectionReason.WRONG_SIGNATURE, f"{target.peer_id.hex()} answers instead")
        near, far = SimulatedPipe(self, dialler.peer_id), SimulatedPipe(self, target.peer_id)
        near.join(far)
        self._pipes |= {near, far}
        target.accept_pipe(far, dialler)
        return dialler.adopt(near, Remote(target.peer_id, target.address().host, dialled=True))

    def forget(self, pipe: "SimulatedPipe") -> None:
        """Drop a pipe that has ended; for the pipe."""
        self._pipes.discard(pipe)


class SimulatedTransport:
    """Dial and accept within a `SimulatedNetwork`; a `Transport`."""

    def __init__(self, network: SimulatedNetwork, peer_id: bytes, port: int) -> None:
        self._network = network
        self._peer_id = peer_id
        self._port = port
        self._accepted: asyncio.Queue[MultiplexedConnection | None] = asyncio.Queue()
        self._connections: list[MultiplexedConnection] = []
        self.closed = False

    @property
    def peer_id(self) -> bytes:
        """Return the identity that this transport was made for."""
        return self._peer_id

    def address(self) -> PeerAddress:
        """Return a made-up address; only the port counts."""
        return PeerAddress(
            f"10.{self._port >> 16}.{self._port >> 8 & 255}.{self._port & 255}", self._port, self._peer_id
        )

    def sign(self, message: bytes) -> bytes:
        """Return a mark in place of a signature: identities are taken at their word here, as in the handshake."""
        return shake256("simulated-signature", self._peer_id + message, 64)

    def verify(self, peer_id: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether a peer's `sign` made the mark."""
        return signature == shake256("simulated-signature", peer_id + message, 64)

    async def connect(
        self, address: PeerAddress, timeout_seconds: float = DIAL_TIMEOUT_SECONDS
    ) -> MultiplexedConnection:
        """Dial; raise `Unavailable` when nobody answers in time, `Rejected` when somebody else does."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._network.dial(self, address)
        except TimeoutError as error:
            raise Unavailable(f"{address} does not answer: timed out") from error

    async def accept(self) -> MultiplexedConnection:
        """Return the next connection that somebody dialled to us."""
        connection = None if self.closed else await self._accepted.get()
        if connection is None:
            raise ConnectionLost("the transport is closed")
        return connection

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self.closed = True
        self._accepted.put_nowait(None)
        for connection in self._connections:
            await connection.close()

    def accept_pipe(self, pipe: "SimulatedPipe", dialler: "SimulatedTransport") -> None:
        """Accept the far end of a dial; for the network."""
        remote = Remote(dialler.peer_id, dialler.address().host, dialled=False)
        self._accepted.put_nowait(self.adopt(pipe, remote))

    def adopt(self, pipe: "SimulatedPipe", remote: Remote) -> MultiplexedConnection:
        """Make a connection of a pipe and remember it; for the network."""
        connection = MultiplexedConnection(pipe, remote, self._network.limits)
        self._connections.append(connection)
        return connection


class SimulatedPipe:
    """Carry bytes to the joined pipe after a delay, in order; a `Pipe`."""

    _made = 0

    def __init__(self, network: SimulatedNetwork, owner: bytes) -> None:
        SimulatedPipe._made += 1
        self.number = SimulatedPipe._made
        self.owner = owner
        self._network = network
        self._other: SimulatedPipe = self
        self._inbox: deque[bytes] = deque()
        self._held: deque[bytes] = deque()
        self._under_way: deque[bytes] = deque()
        self._arrival_seconds = 0.0
        self._unread_bytes = 0
        self._ended = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    def join(self, other: "SimulatedPipe") -> None:
        """Connect the two ends."""
        self._other, other._other = other, self

    async def read(self) -> bytes:
        """Return what has arrived; nothing after the end."""
        while not self._inbox:
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._inbox.popleft()
        self._other.acknowledge(len(data))
        return data

    def write(self, data: bytes) -> None:
        """Send bytes on their way, or hold them while the network is cut."""
        if self._ended:
            return
        if self._network.draw_break():
            self.break_both_ends()
            return
        self._unread_bytes += len(data)
        self._held.append(data)
        self.flush()

    def flush(self) -> None:
        """Send on what was held, if the other side can be reached."""
        if not self._network.is_reachable(self.owner, self._other.owner):
            return
        while self._held:
            loop = asyncio.get_running_loop()
            self._arrival_seconds = max(self._arrival_seconds, loop.time() + self._network.draw_delay_seconds())
            self._under_way.append(self._held.popleft())
            # Timers of one instant fire in any order: each delivers the oldest bytes, not its own.
            loop.call_at(self._arrival_seconds, self._deliver)

    def unsent_bytes(self) -> int:
        """Return the bytes that the other side has not read."""
        return self._unread_bytes

    async def drain(self) -> None:
        """Wait until the other side has read enough."""
        while self._unread_bytes > PIPE_BUFFER_BYTES and not self._ended:
            self._writable.clear()
            await self._writable.wait()

    async def close(self) -> None:
        """End this side now and the other after the delay."""
        if not self._ended:
            self._held.append(b"")
            self.flush()
            self._end()

    def break_both_ends(self) -> None:
        """Break the connection on both sides at once."""
        self._end()
        self._other._end()

    def end_silently(self) -> None:
        """End this side alone; the other one will notice by the silence."""
        self._held.clear()
        self._end()

    def acknowledge(self, size: int) -> None:
        """Count bytes as read; for the other end."""
        self._unread_bytes -= size
        self._writable.set()

    def _deliver(self) -> None:
        self._other._arrive(self._under_way.popleft())

    def _arrive(self, data: bytes) -> None:
        if self._ended:
            return
        if not data:
            self._end()
            return
        self._inbox.append(data)
        self._readable.set()

    def _end(self) -> None:
        self._ended = True
        self._readable.set()
        self._writable.set()
        self._network.forget(self)
