"""Drive the spine: turn what arrives into events, hand its actions to the roles, keep what came too early.

The last heights stay in memory with why they were decided, for `why`, the explorer and the live table. `Ports` is what
a role reaches the world through: handed over once, replaced as a whole in tests.
"""

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from learnchain.consensus import Round, StoredBlocks, advance, resume
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.engines.contract import Rules
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.wallet import Wallet
from learnchain.learning.jobs import Training
from learnchain.network.concurrency import Clock, Tasks
from learnchain.protocol import audit_messages
from learnchain.protocol.actions import Action, StoreBlock
from learnchain.protocol.events import (
    AuditMessageReceived,
    BlockReceived,
    CommitmentReceived,
    DisputeMessageReceived,
    Event,
    EvidenceReported,
    KeyReleaseReceived,
    ReleaseReceived,
    RevealReceived,
)
from learnchain.protocol.messages import AnyBlock, Commitment, Evidence, Head, KeyRelease, ReleaseAnnouncement, Reveal
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.publishing import TaskData, Vault

MAXIMUM_DECISIONS = 2_048
MAXIMUM_CURVE_POINTS = 512
MAXIMUM_TRAININGS = 128


@dataclass(frozen=True)
class Decision:
    """Name one step that was decided at a height: what, about whom, and the numbers it rests on."""

    at_milliseconds: int
    height: int
    step: str
    about: str
    facts: dict[str, Any]


@dataclass
class Decisions:
    """Hold a bounded list of decisions, the training curve of the height, and the seconds spent in each phase."""

    recent: deque[Decision] = field(default_factory=lambda: deque(maxlen=MAXIMUM_DECISIONS))
    curve: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAXIMUM_CURVE_POINTS))
    training: dict[str, Any] = field(default_factory=dict)
    trainings: dict[int, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How many measurements of a kind were made, and the seconds they took."""

    def note(self, at_milliseconds: int, height: int, step: str, about: str = "", **facts: Any) -> None:
        """Add a decision."""
        self.recent.append(Decision(at_milliseconds, height, step, about, facts))

    def note_measured(self, kind: str, seconds: float) -> None:
        """Add up what measuring costs this node."""
        count, spent = self.measured.get(kind, (0, 0.0))
        self.measured[kind] = (count + 1, spent + seconds)

    def note_training(self, height: int, facts: dict[str, Any]) -> None:
        """Keep where the seconds of a run went; the oldest heights are forgotten."""
        self.training = {"height": height, **facts}
        self.trainings[height] = facts
        while len(self.trainings) > MAXIMUM_TRAININGS:
            del self.trainings[min(self.trainings)]

    def at_height(self, height: int) -> list[Decision]:
        """Return what is remembered of a height, oldest first."""
        return [each for each in self.recent if each.height == height]


logger = logging.getLogger(__name__)

MAXIMUM_EARLY_EVENTS = 512
"""Messages that came before what they refer to; the oldest is forgotten first, its sender will repeat it."""

MAXIMUM_REFUSED_BLOCKS = 1_024
ROUND_EVENTS = (KeyReleaseReceived, CommitmentReceived, ReleaseReceived, RevealReceived)
PENDING_EVENTS = (EvidenceReported, AuditMessageReceived, DisputeMessageReceived)
RoundEvent = KeyReleaseReceived | CommitmentReceived | ReleaseReceived | RevealReceived
PendingEvent = EvidenceReported | AuditMessageReceived | DisputeMessageReceived
KeptEvent = RoundEvent | PendingEvent
PendingMessage = Evidence | audit_messages.AuditMessage | audit_messages.DisputeMessage
WireMessage = KeyRelease | Commitment | ReleaseAnnouncement | Reveal | PendingMessage | AnyBlock


class Chain:
    """Own the round; every change goes through `feed`, on one event loop, without waiting in between."""

    def __init__(self, rules: Rules, parameters: ChainParameters, clock: Clock) -> None:
        self.rules = rules
        self.parameters = parameters
        self.is_current = False
        """Whether our head was compared with the network's; before that this node ends no height."""
        self._clock = clock
        self._perform: Callable[[Action], None] = lambda _action: None
        self._keep_message: Callable[[KeptEvent], None] = lambda _event: None
        self._round: Round | None = None
        self._stepped: dict[asyncio.Future[None], None] = {}
        self._early: OrderedDict[tuple[Hash32, int], Event] = OrderedDict()
        self._arrivals = 0
        self._refused: OrderedDict[Hash32, str] = OrderedDict()

    @property
    def round(self) -> Round:
        """Return the current view of the chain."""
        if self._round is None:
            raise Unavailable("the chain, before the node has started")
        return self._round

    def start(self, final: ChainState, later: StoredBlocks, head: Head, perform: Callable[[Action], None]) -> None:
        """Open the round on what this node stored and hand out the first actions."""
        self._perform = perform
        self._round, actions = resume(self.rules, self.parameters, final, later, head)
        self._hand_out(actions)

    def remember(self, events: Iterable[Event], keep: Callable[[KeptEvent], None]) -> None:
        """Go on inside the height that a kill interrupted, with the times of arrival; keep what comes from now on."""
        for event in events:
            try:
                self.feed(event)
            except (Rejected, Unavailable) as error:
                logger.debug("a message of an earlier life is of no use now: %s", error)
        self._keep_message = keep

    def feed(self, event: Event) -> None:
        """Advance by one event; raise `Rejected` or `Unavailable`, in which case nothing has changed."""
        before = self.round
        actions = self._step(event)
        freed = len(self.round.pending_blocks) < len(before.pending_blocks)
        if (
            isinstance(event, BlockReceived | ReleaseReceived)
            or self.round.head.block != before.head.block
            or actions
            or freed
        ):
            self._retry_early()

    async def next_step(self, within_seconds: float) -> None:
        """Return after the next step of the round; raise TimeoutError when none comes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stepped[future] = None
        try:
            async with asyncio.timeout(within_seconds):
                await future
        finally:
            self._stepped.pop(future, None)

    def receive(self, message: WireMessage) -> None:
        """Feed a message from the wire, or keep it for later when what it refers to is missing."""
        event = self.event(message)
        if isinstance(event, BlockReceived):
            self._refuse_again(event.block)
        try:
            self.feed(event)
        except Unavailable:
            self._keep(event)
            raise

    def list_pending_messages(self) -> dict[Hash32, PendingMessage]:
        """Return what waits for a proposer, by hash."""
        return {**self.round.evidence, **self.round.audits, **self.round.disputes}

    def remember_refusal(self, block_hash: Hash32, reason: str) -> None:
        """Keep why a block failed its measurements, so that it is not measured again for every peer that sends it."""
        self._refused[block_hash] = reason
        while len(self._refused) > MAXIMUM_REFUSED_BLOCKS:
            self._refused.popitem(last=False)

    def _refuse_again(self, block: AnyBlock) -> None:
        reason = self._refused.get(message_hash(block))
        if reason is not None:
            known = RejectionReason(reason) if reason in set(RejectionReason) else RejectionReason.VERDICT_WRONG
            raise Rejected(known, "this block failed its measurements before")

    def _step(self, event: Event) -> tuple[Action, ...]:
        """Take a step only once what must survive a kill is on disk: a full disk leaves the round as it was."""
        after, actions = advance(self.round, event)
        if after is not self.round and isinstance(event, ROUND_EVENTS + PENDING_EVENTS):
            self._keep_message(event)
        for action in actions:
            if isinstance(action, StoreBlock):
                self._perform(action)
        self._round = after
        for future in self._stepped:
            if not future.done():
                future.set_result(None)
        self._stepped.clear()
        self._hand_out(tuple(each for each in actions if not isinstance(each, StoreBlock)))
        return actions

    def event(self, message: WireMessage) -> Event:
        """Return the event that a message is when it arrives now."""
        now = self._clock.now_milliseconds()
        if isinstance(message, KeyRelease):
            return KeyReleaseReceived(message, now)
        if isinstance(message, Commitment):
            return CommitmentReceived(message, now)
        if isinstance(message, ReleaseAnnouncement):
            return ReleaseReceived(message, now)
        if isinstance(message, Reveal):
            return RevealReceived(message, now)
        if isinstance(message, audit_messages.AuditCommitment | audit_messages.AuditReport):
            return AuditMessageReceived(message, now)
        if isinstance(message, audit_messages.Challenge | audit_messages.ChallengeResponse):
            return DisputeMessageReceived(message, now)
        if isinstance(message, Evidence):
            return EvidenceReported(message, now)
        return BlockReceived(message, now)

    def _hand_out(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self._perform(action)

    def _keep(self, event: Event) -> None:
        if event in self._early.values():
            return
        self._arrivals += 1
        self._early[_parent_of(event), self._arrivals] = event
        while len(self._early) > MAXIMUM_EARLY_EVENTS:
            self._early.popitem(last=False)

    def _retry_early(self) -> None:
        """Feed again what waited for a parent or a release; its arrival time decides whether it was in time."""
        known = self.round.tree
        for key, event in list(self._early.items()):
            if key[0] not in known or key not in self._early:
                continue
            del self._early[key]
            try:
                self._step(event)
            except Unavailable:
                self._early[key] = event
            except Rejected as error:
                logger.debug("a kept message is refused: %s", error)


def _parent_of(event: Event) -> Hash32:
    if isinstance(event, BlockReceived):
        return event.block.parent
    if isinstance(event, ReleaseReceived):
        return event.message.release.parent
    if isinstance(event, AuditMessageReceived | DisputeMessageReceived):
        return event.message.parent
    if isinstance(event, EvidenceReported):
        return event.evidence.parent
    if isinstance(event, KeyReleaseReceived | CommitmentReceived | RevealReceived):
        return event.message.parent
    raise TypeError(f"{type(event).__name__} does not come from the wire")


def without_signature(block: AnyBlock) -> AnyBlock:
    """Return a block with an empty signature, as it is before its proposer signs."""
    return replace(block, signature=b"\0" * 65)


class MessagePublisher(Protocol):
    """Send a message of the round to everybody."""

    async def publish(self, message: WireMessage) -> None:
        """Gossip one message; this node itself has already fed it to its chain."""
        ...


@dataclass(frozen=True)
class Ports:
    """Join everything a role may use."""

    clock: Clock
    chain: Chain
    network: MessagePublisher
    blobs: BlobStore
    data: TaskData
    engine: ExecutionEngine
    evaluator: Training
    archive: Archive
    wallet: Wallet
    vault: Vault
    tasks: Tasks
    decisions: Decisions
    random_source: random.Random
    encryption: EncryptionRunner = in_own_process

    async def announce(self, message: WireMessage) -> None:
        """Feed a message of our own to our own chain first, then to the others; a refusal of our own is a bug."""
        self.chain.receive(message)
        await self.network.publish(message)
