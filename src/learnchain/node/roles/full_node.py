"""The full node: measures what the rules ask for, keeps blocks, follows the head, ends heights that were missed."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from learnchain.consensus.disputes import last_challenge_height
from learnchain.consensus.fork_choice import empty_block_priority, lowest_priority
from learnchain.consensus.state import (
    can_requeue,
    compute_queued_tasks,
    compute_settlement_root,
    is_task_requeued,
    outage_milliseconds,
    payload_timestamp,
)
from learnchain.encoding.codec import Hash32
from learnchain.encoding.content_id import Cid
from learnchain.encoding.cryptography import UNSIGNED, message_hash, sign
from learnchain.network.concurrency import retry
from learnchain.node.chain import Ports
from learnchain.protocol import actions
from learnchain.protocol.events import DeadlineMissed, Event, MeasurementFinished, ReleaseDue, RevealsClosed
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, Reveal
from learnchain.protocol.payload import MAXIMUM_PAYLOAD_BYTES, encode_payload
from learnchain.protocol.state import Selection
from learnchain.protocol.task_specification import DataPart
from learnchain.rejection import Unavailable
from learnchain.storage.archive import Retention
from learnchain.storage.blobs.blob_store import BlobNotFound
from learnchain.verification.assurance import Trust
from learnchain.verification.measurer import Measurer, build_claimed_measurement, list_named_blobs
from learnchain.verification.training_chain import MAXIMUM_STATE_BYTES, earlier_runs, fetch_index

logger = logging.getLogger(__name__)
CATCHING_UP_SECONDS = 0.1

READY_SECONDS = 60.0
"""How long a node that just started leaves the ending of heights to others while its training processes load."""

GATE_SECONDS = 0.1

ENDING = (Deadline.KEY, Deadline.COMMITMENT, Deadline.RELEASE, Deadline.BLOCK)
"""The deadlines after which any node may end a height, in their order."""

EMPTY_BLOCK_SECONDS = 10.0
"""How long an empty block waits for its payload before it makes room for another."""


@dataclass(frozen=True)
class Policy:
    """Say what this node measures itself, and for how many blocks it keeps models and traces."""

    trust: Trust = field(default_factory=Trust)
    retain_blocks: int = 0


class FullNode:
    """Carry out what every node does, whether it mines, publishes, or only verifies."""

    def __init__(self, ports: Ports, head_moved: Callable[[actions.MoveHead], None], policy: Policy = Policy()) -> None:
        self._ports = ports
        self._measuring = Measurer(
            ports.chain.rules,
            ports.chain.parameters,
            ports.blobs,
            ports.data,
            ports.engine,
            ports.evaluator,
            policy.trust,
        )
        self._trust, self._verifies_models = policy.trust, policy.trust.verifies_models
        self._retention = Retention(
            ports.archive, ports.blobs, ports.chain.rules, policy.retain_blocks, self._can_be_challenged
        )
        self._head_moved = head_moved
        self._timers: list[asyncio.Task[None]] = []
        self._heads: asyncio.Lock = asyncio.Lock()
        self._heights = 0
        self.is_ready = False
        """Whether the training processes of this node run: who ends a height before that loses the next one too."""

    async def open_height(self, action: actions.OpenHeight) -> None:
        """Set the timers of the height and fetch the encrypted data early (DLBC IV-E)."""
        for timer in self._timers:
            timer.cancel()
        self._heights += 1
        selection, schedule = action.selection, action.selection.schedule
        window = self._ports.chain.parameters.empty_window_milliseconds
        parent = selection.parent
        due: list[tuple[int, Callable[[int], Event]]] = [
            (at, lambda now: ReleaseDue(parent, now))
            for at in sorted({schedule.release_opens_milliseconds, schedule.commitment_milliseconds})
        ]
        over = {missed: schedule.deadline(missed) + window for missed in ENDING}
        waits = [self._at(when, event) for when, event in due] + [
            self._end_height_after_deadline(parent, each, over) for each in ENDING
        ]
        self._timers = [self._ports.tasks.start("timer", each) for each in waits]
        await self._retention.prune(
            self._ports.chain.round.head, frozenset({self._ports.chain.rules.parts.baseline_model(selection)})
        )
        if self._verifies_models:
            data = selection.posted_task.specification.data
            if selection.task.publisher != self._ports.wallet.address:
                self._ports.archive.blobs.note(selection.height, (data.training.cid, selection.test_set.cid))
            last = schedule.deadline(Deadline.BLOCK)
            await asyncio.gather(self._prefetch(data.training, last), self._prefetch(selection.test_set, last))

    def _can_be_challenged(self, height: int) -> bool:
        """Return whether this node won or audited a height whose steps it may have to show (AUDIT-5)."""
        parent, address = self._ports.chain.round.parent, self._ports.wallet.address
        book, parameters = parent.bonds, self._ports.chain.parameters
        if any(each.height == height and each.respondent == address and each.is_open for each in book.disputes):
            return True
        audited = any(each.height == height and each.auditor == address for each in book.audits)
        own = (each for each in book.height_records if each.height == height and (audited or each.winner == address))
        return any(parent.height < last_challenge_height(each, parameters) for each in own)

    async def resume_fetching(self) -> None:
        """Fetch what recent blocks rest on and a kill or a full disk kept from coming."""
        final = self._ports.chain.round.tree.root
        for record in self._ports.archive.records_above(self._ports.archive.state(final)):
            if record.block is not None:
                await self._pin_block_content(record.block)

    async def close_reveals(self, action: actions.RevealModel) -> None:
        """Set the timer after which no reveal counts: it follows the release in event-driven rounds (step 7)."""
        selection, released = action.selection, action.announcement.release.released_milliseconds
        closed = selection.schedule.deadline(Deadline.REVEAL, released) + 1
        timer = self._at(closed, lambda now: RevealsClosed(selection.parent, now))
        self._timers.append(self._ports.tasks.start("timer", timer))

    async def measure_candidate(self, action: actions.MeasureCandidate) -> None:
        """Measure one thing of one candidate and report it; what is missing is tried again until the height is over.

        A pending block is tried for ever, with pauses that grow; an empty one is let go after a while, so that blocks
        whose payload never comes leave room, and comes again from whoever builds on it.
        """
        deadline = self._block_deadline(action.selection)
        measure, clock = action.request, self._ports.clock
        started = clock.monotonic_seconds()

        def is_requested() -> bool:
            return (measure.candidate, measure.kind) in self._ports.chain.round.requested_measurements

        def gives_up(pause_seconds: float) -> bool:
            is_late = clock.now_milliseconds() + 1000 * pause_seconds > deadline
            has_waited = clock.monotonic_seconds() - started >= EMPTY_BLOCK_SECONDS
            is_over = is_late and measure.candidate in self._ports.chain.round.reveals
            return not is_requested() or is_over or (has_waited and action.reveal is None)

        try:
            found = await retry(f"measuring {measure.candidate.hex()[:16]}", lambda: self._measure(action), gives_up)
        except Unavailable:
            if not is_requested():
                return
            found = Measurement(measure.candidate, measure.kind, Finding.UNAVAILABLE)
        await self._report(action, found)

    async def _measure(self, action: actions.MeasureCandidate) -> Measurement:
        """Measure, or take the claim where that was chosen; whoever asks later is told which it was (ROUND-10)."""
        if action.reveal is not None and self._verifies_models:
            # Losing models are let go too: whatever is fetched is noted under its height.
            self._ports.archive.blobs.note(action.selection.height, (action.reveal.model_cid,))
        began = self._ports.clock.monotonic_seconds()
        is_model = action.request.kind is not MeasurementKind.PAYLOAD
        believed = is_model and self._trust.is_trusted(action)
        try:
            found = await self._measuring.measure(action)
        except BlobNotFound as error:
            if not is_model or action.reveal is None or not error.asked:
                raise
            if not self._trust.settles_for_claim(action):
                raise
            believed, found = True, build_claimed_measurement(self._ports.chain.rules.parts, action, action.reveal)
        if believed:
            self._ports.archive.mark_as_trusted(action.request.candidate)
        self._ports.decisions.note_measured(found.kind.value, self._ports.clock.monotonic_seconds() - began)
        return found

    async def _report(self, action: actions.MeasureCandidate, measurement: Measurement) -> None:
        """Feed a measurement until the chain takes it: a full disk must not lose what was measured."""
        facts = {"finding": measurement.finding.value, "reason": measurement.reason, "correct": measurement.correct}
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(
            now, action.selection.height, f"measured {measurement.kind.value}", measurement.candidate.hex(), **facts
        )

        async def feed() -> None:
            self._ports.chain.feed(MeasurementFinished(measurement, self._ports.clock.now_milliseconds()))

        await retry("keeping what was measured", feed, level=logging.ERROR)

    def _block_deadline(self, selection: Selection) -> int:
        known = self._ports.chain.round
        here = known.announcement if known.selection.parent == selection.parent else None
        released = None if here is None else here.release.released_milliseconds
        return selection.schedule.deadline(Deadline.BLOCK, released)

    def store_block(self, action: actions.StoreBlock) -> None:
        """Write the block and its state durably before anything builds on them (step 8)."""
        self._ports.archive.blobs.name(
            list_named_blobs(self._ports.chain.rules, action.block, action.state), action.state.block_hash
        )
        self._ports.archive.store_block(action.block, action.state, at_once=self._ports.chain.is_current)
        self._ports.tasks.start("keeping what a block rests on", self._pin_block_content(action.block))
        now = self._ports.clock.now_milliseconds()
        about = f"missed {action.block.missed.value}" if isinstance(action.block, EmptyBlock) else "trained"
        self._ports.decisions.note(now, action.block.height, "block", about, hash=action.state.block_hash.hex())

    async def move_head(self, action: actions.MoveHead) -> None:
        """Point the execution engine at the new head, in the order of the moves (step 9)."""
        async with self._heads:
            if not self._ports.chain.is_current and self._ports.chain.round.head == action.head:
                # Behind the others heads come by the dozen: only the last one is worth the disk's time.
                await asyncio.sleep(CATCHING_UP_SECONDS)
            await retry("keeping the new head", lambda: self._point_to(action), level=logging.ERROR)
        self._head_moved(action)

    async def _point_to(self, action: actions.MoveHead) -> None:
        archive = self._ports.archive
        if self._ports.chain.round.head != action.head:
            return
        archive.store_head(action.head)
        archive.forget_pending_messages(self._ports.chain.list_pending_messages().keys())
        safe, final = archive.payload_hash(action.head.safe), archive.payload_hash(action.head.finalized)
        await self._ports.engine.set_head(action.state.payload_hash, safe, final)

    async def propose_empty_block(self, action: actions.ProposeEmptyBlock) -> None:
        """End a missed height, unless somebody with a lower lot already has (ROUND-3)."""
        selection, parent = action.selection, action.parent
        address, parameters = self._ports.wallet.address, self._ports.chain.parameters
        known = self._ports.chain.round
        own = empty_block_priority(selection.parent, action.missed, address, listing=bool(action.commitments))
        if own >= lowest_priority(known.tree, selection.parent, known.witnessed_deadlines):
            return
        stamp = payload_timestamp(parent, selection, action.end_milliseconds, trained=False)
        payload = await self._ports.engine.build(parent.payload_hash, parent.payload_attributes(stamp, address), ())
        payload_cid = await self._ports.blobs.add_bytes(encode_payload(payload))
        draft = EmptyBlock(
            chain_id=parameters.chain_id,
            height=selection.height,
            parent=selection.parent,
            proposer=address,
            missed=action.missed,
            payload_hash=payload.block_hash,
            payload_cid=payload_cid,
            commitments=action.commitments,
            queued_tasks=(),
            end_milliseconds=action.end_milliseconds,
            evidence=action.evidence,
            challenges=action.challenges,
            responses=action.responses,
            settlement_root=b"\0" * 32,
            signature=UNSIGNED,
        )
        returned = is_task_requeued(selection, draft)
        unselected = compute_queued_tasks(parent, selection, parameters.maximum_tasks, returned=returned)
        draft = replace(draft, queued_tasks=tuple(each.task.task_id for each in unselected))
        reward = self._ports.chain.rules.compute_reward(selection, draft, parameters)
        block = replace(draft, settlement_root=compute_settlement_root(parent, selection, draft, reward, parameters))
        block = sign(block, self._ports.wallet.private_key)
        # Our own need not wait behind strangers' blocks whose payloads may never come.
        bound = (None, b"", b"", b"", block.payload_hash, block.payload_cid)
        measure = actions.MeasureCandidate(
            MeasurementRequest(message_hash(block), MeasurementKind.PAYLOAD), parent, selection, *bound
        )
        try:
            found = await self._measure(measure)
        except Unavailable as error:
            logger.info("our own empty block is not measured yet: %s", error)
        else:
            if self._ports.chain.round.selection.parent == selection.parent:
                await self._report(measure, found)
        await self._ports.announce(block)

    async def forget_blocks(self, action: actions.ForgetBlocks) -> None:
        """Delete empty blocks that lost and what only they rest on; one that has come again meanwhile stays."""
        tree = self._ports.chain.round.tree
        gone = [each for each in action.blocks if message_hash(each) not in tree]
        self._ports.archive.forget_blocks(gone)
        needed = {record.block.payload_cid for record in tree.records.values() if record.block is not None}
        for cid in {each.payload_cid for each in gone} - needed:
            await self._ports.blobs.discard(cid)

    def refuse_block(self, action: actions.RefuseBlock) -> None:
        """Say why a block that was waiting for measurements is not admitted."""
        logger.warning("block %s is refused: %s", action.block.hex()[:16], action.reason)
        self._ports.chain.remember_refusal(action.block, action.reason)
        now = self._ports.clock.now_milliseconds()
        height = self._ports.chain.round.selection.height
        self._ports.decisions.note(now, height, "block refused", action.block.hex(), reason=action.reason)

    def refuse_task(self, action: actions.RefuseTask) -> None:
        """Say why a posted task is not admitted; its publisher gets everything back at the deadline."""
        logger.warning("task %s is refused: %s %s", action.task_id.hex()[:16], action.reason, action.detail)
        now = self._ports.clock.now_milliseconds()
        height = self._ports.chain.round.selection.height
        self._ports.decisions.note(now, height, "task refused", action.task_id.hex(), reason=action.reason.value)

    async def _pin_block_content(self, block: AnyBlock) -> None:
        """Pin payload, model, checkpoints and data of a block: full nodes serve them to late nodes (ROUND-10)."""
        blobs = self._ports.blobs
        await blobs.pin(block.payload_cid)
        await blobs.fetch(block.payload_cid, max_bytes=MAXIMUM_PAYLOAD_BYTES)
        if not isinstance(block, Block) or not self._verifies_models or self._retention.is_over(block.height):
            return
        cited = self._ports.chain.rules.parts.list_cited_losers(block)
        await self._pin_under_height(block.height, tuple(each.model_cid for each in cited))
        await self._pin_run(block.height, block.reveal)
        # A winner's run may rest on runs that lost: nobody could repeat it once its miner is gone (PODL-R10).
        chain = self._ports.chain
        for earlier in await earlier_runs(blobs, self._ports.archive, chain.rules, chain.parameters, block):
            await self._pin_run(block.height, earlier.block.reveal)

    async def _pin_run(self, height: int, reveal: Reveal) -> None:
        """Keep what repeats one run: its model, the index of its trace, every state."""
        blobs, training = self._ports.blobs, reveal.training
        await self._pin_under_height(height, (reveal.model_cid, training.trace_cid))
        states = (await fetch_index(blobs, training)).states
        await self._pin_under_height(height, states)
        for cid in (*states, reveal.model_cid):
            await blobs.fetch(cid, max_bytes=MAXIMUM_STATE_BYTES)

    async def _pin_under_height(self, height: int, cids: tuple[Cid, ...]) -> None:
        self._ports.archive.blobs.note(height, cids)
        for cid in cids:
            await self._ports.blobs.pin(cid)

    async def _end_height_after_deadline(self, parent: Hash32, missed: Deadline, over: Mapping[Deadline, int]) -> None:
        """End a height whose deadline passed: now, not back then, or the height after it would be half over too.

        Who just started waits until its head was compared with the network's and its training processes run. Of
        several deadlines that passed meanwhile only the last counts: an empty block that missed an earlier one loses.
        """
        await self._ports.clock.sleep_until(over[missed])
        limit = self._ports.clock.monotonic_seconds() + READY_SECONDS
        while not self._ports.chain.is_current or (not self.is_ready and self._ports.clock.monotonic_seconds() < limit):
            await asyncio.sleep(GATE_SECONDS)
        state = self._ports.chain.round
        if self._heights == 1 and can_requeue(state.selection) and not state.commitments:
            # Others that were there end the height without us. If all were away, its task is trained after all.
            await self._ports.clock.sleep_until(outage_milliseconds(state.selection))
        now = self._ports.clock.now_milliseconds()
        if any(over[missed] < each <= now for each in over.values()):
            return
        self._ports.chain.feed(DeadlineMissed(parent, missed, now))

    async def _at(self, milliseconds: int, event: Callable[[int], Event]) -> None:
        await self._ports.clock.sleep_until(milliseconds)
        self._ports.chain.feed(event(self._ports.clock.now_milliseconds()))

    async def _prefetch(self, part: DataPart, over_milliseconds: int) -> None:
        """Fetch encrypted data until they are here or the height is over."""

        async def prefetch() -> None:
            if self._ports.clock.now_milliseconds() < over_milliseconds:
                await self._ports.data.prefetch(part)

        await retry("fetching data early", prefetch)
