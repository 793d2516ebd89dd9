"""The chain on disk: blocks, the states after them, the head, what this node signed, and which blobs to keep.

Each step is one atomic batch. Models and traces outside the window go, the best model of each task stays (DLBC IV-H and
PoDL III-C: "we can save the storage by freeing up some earlier models with lower accuracy"). Blocks, payloads and
states are never deleted, so the chain still verifies at header level.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from learnchain.consensus.fork_choice import BlockRecord
from learnchain.encoding.codec import FORMAT_VERSION, Hash32, decode, decode_prefix, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.encoding.files import KeyValueStore
from learnchain.engines.contract import Rules
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import AuditCommitment, AuditReport, Challenge, ChallengeResponse
from learnchain.protocol.events import CommitmentReceived, KeyReleaseReceived, ReleaseReceived, RevealReceived
from learnchain.protocol.payload import Settlement
from learnchain.protocol.state import ChainState
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.slashing_protection import BufferedStore, SlashingProtectionStore

BLOB, BEST, NAMED = b"blob/", b"best/", b"named/"


@dataclass(frozen=True, slots=True)
class BestModel:
    """Name the best model of a task among the blocks whose models were let go."""

    height: int
    model_cid: Cid
    correct: int
    total: int

    def beats(self, other: "BestModel") -> bool:
        """Compare exact shares; of equals the earlier one stays."""
        return self.correct * other.total > other.correct * self.total


class BlobNotes:
    """Write beside the chain what its blobs are good for: what is noted can be let go again."""

    def __init__(self, store: BufferedStore) -> None:
        self._store = store

    def note(self, height: int, cids: Iterable[Cid]) -> None:
        """Write which blobs a height brought, before they are fetched: what is noted is deleted in the end."""
        keys = (BLOB + height.to_bytes(8, "big") + cid for cid in cids)
        # Each write waits for the disk and holds up the event loop, and most blobs are noted more than once.
        new = {key: b"" for key in keys if self._store.get(key) is None}
        if new:
            self._store.put_many(new)

    def below(self, height: int) -> dict[int, tuple[Cid, ...]]:
        """Return the noted blobs of all heights below one, leaving out those that a later height brought too."""
        early: dict[int, list[Cid]] = {}
        later: set[Cid] = set()
        for key, _ in self._store.scan(BLOB):
            at, cid = int.from_bytes(key[len(BLOB) : len(BLOB) + 8], "big"), key[len(BLOB) + 8 :]
            if at < height:
                early.setdefault(at, []).append(cid)
            else:
                later.add(cid)
        return {at: tuple(cid for cid in cids if cid not in later) for at, cids in early.items()}

    def forget(self, height: int) -> None:
        """Drop the notes of a height, after its blobs are deleted."""
        self._store.put_many({key: None for key, _ in self._store.scan(BLOB + height.to_bytes(8, "big"))})

    def best_model(self, task_id: Hash32) -> BestModel | None:
        """Return the model that is kept for a task for ever (DLBC IV-H, PoDL III-C)."""
        data = self._store.get(BEST + task_id)
        return None if data is None else decode(BestModel, data)

    def keep_best_model(self, task_id: Hash32, best: BestModel) -> None:
        """Write which model is kept for a task."""
        self._store.put_many({BEST + task_id: encode(best)})

    def name(self, cids: Iterable[Cid], block_hash: Hash32) -> None:
        """Write that a block names blobs; it reaches the disk with the block or before."""
        self._store.put_later({NAMED + cid: block_hash for cid in cids})

    def naming_block(self, cid: Cid) -> Hash32 | None:
        """Return the last block that named a blob."""
        return self._store.get(NAMED + cid)


_FORMAT_KEY = b"format_version"
_FIRST_FORMAT_KEY = b"format"
"""Where 0.1.0 wrote numbers of its own, which count as version 1 here."""
MAXIMUM_BLOCK_BYTES = 1 << 18
MAXIMUM_REMEMBERED_BRANCHES = 128
"""Blocks whose list of settlements is kept in memory, so that a claim does not walk back to genesis."""
MAXIMUM_FORKED_HEIGHTS = 1_024
"""How far above a range of blocks a height without rivals is looked for."""


@dataclass(frozen=True, slots=True)
class BlockPosition:
    """Say where a block stands: the first fields of `ChainState`, in its order."""

    block_hash: Hash32
    parent: Hash32
    height: int
    end_milliseconds: int
    payload_hash: Hash32


RoundEvent = KeyReleaseReceived | CommitmentReceived | ReleaseReceived | RevealReceived

_KINDS: dict[type, bytes] = {
    KeyReleaseReceived: b"1",
    CommitmentReceived: b"2",
    ReleaseReceived: b"3",
    RevealReceived: b"4",
}
"""In the order of the round, which is the order in which they are fed again."""

_NOUNS: dict[bytes, tuple[Any, Any]] = {
    b"1": (KeyReleaseReceived, messages.KeyRelease),
    b"2": (CommitmentReceived, messages.Commitment),
    b"3": (ReleaseReceived, messages.ReleaseAnnouncement),
    b"4": (RevealReceived, messages.Reveal),
}

Waiting = messages.Evidence | AuditCommitment | AuditReport | Challenge | ChallengeResponse

_WAITING_KINDS: dict[bytes, type[Waiting]] = {
    b"1": messages.Evidence,
    b"2": AuditCommitment,
    b"3": AuditReport,
    b"4": Challenge,
    b"5": ChallengeResponse,
}

ROUND, BELIEVED, WAITING = b"round/", b"believed/", b"waiting/"


def decode_block(data: bytes) -> messages.AnyBlock:
    """Return the block behind its stored or transmitted form; the first byte names its kind."""
    if len(data) > MAXIMUM_BLOCK_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a block of {len(data)} bytes")
    if data[:1] == b"\x01":
        return decode(messages.Block, data[1:])
    if data[:1] == b"\x00":
        return decode(messages.EmptyBlock, data[1:])
    raise Rejected(RejectionReason.MALFORMED, "the bytes are neither a block nor an empty block")


def check_format(store: KeyValueStore) -> bool:
    """Return whether anything is stored yet; refuse a data directory of another format version (ROUND-15).

    Nothing else of a directory is read or written before.
    """
    version = store.get(_FORMAT_KEY)
    if version is None and store.get(_FIRST_FORMAT_KEY) is not None:
        version = b"1"
    if version is not None and version != str(FORMAT_VERSION).encode():
        detail = f"the data directory has format {version.decode(errors='replace')[:20]}, this program reads"
        detail += f" {FORMAT_VERSION}: start anew in another directory, or run the program version that wrote this one"
        raise Rejected(RejectionReason.FORMAT_UNSUPPORTED, detail)
    return version is not None


class Archive:
    """Keep what a node may not forget; reopening it continues exactly where the last atomic batch ended."""

    def __init__(self, store: KeyValueStore, genesis: ChainState) -> None:
        self._store = BufferedStore(store)
        self.slashing_protection = SlashingProtectionStore(self._store)
        self.blobs = BlobNotes(self._store)
        self._settled: OrderedDict[Hash32, tuple[Settlement, ...]] = OrderedDict()
        if not check_format(store):
            head = messages.Head(genesis.block_hash, 0, 0, genesis.block_hash, genesis.block_hash)
            store.put_many(
                {
                    _FORMAT_KEY: str(FORMAT_VERSION).encode(),
                    b"genesis": genesis.block_hash,
                    b"state/" + genesis.block_hash: encode(genesis),
                    b"head": encode(head),
                }
            )
        elif store.get(b"genesis") != genesis.block_hash:
            raise Rejected(RejectionReason.WRONG_CHAIN, "the data directory belongs to another network's genesis")

    # --- blocks and states ---------------------------------------------------------------------------------------

    def store_block(self, block: messages.AnyBlock, state: ChainState, at_once: bool = True) -> None:
        """Write a block and the state after it in one batch; a node that catches up writes many together."""
        items = {
            b"block/" + state.block_hash: messages.block_bytes(block),
            b"state/" + state.block_hash: encode(state),
            b"height/" + state.height.to_bytes(8, "big") + state.block_hash: b"",
        }
        if at_once:
            self._store.put_many(items)
        else:
            self._store.put_later(items)

    def forget_blocks(self, blocks: Iterable[messages.AnyBlock]) -> None:
        """Delete blocks that lost and nothing builds on, with the states after them."""
        items: dict[bytes, bytes | None] = {}
        for each in blocks:
            key = message_hash(each)
            self._settled.pop(key, None)
            places = (b"block/" + key, b"state/" + key, b"height/" + each.height.to_bytes(8, "big") + key)
            items.update(dict.fromkeys(places))
        if items:
            self._store.put_many(items)

    def block(self, block_hash: Hash32) -> messages.AnyBlock:
        """Return a stored block."""
        return decode_block(self.block_data(block_hash))

    def block_data(self, block_hash: Hash32) -> bytes:
        """Return a stored block as it is stored and sent."""
        data = self._store.get(b"block/" + block_hash)
        if data is None:
            raise Unavailable(f"block {block_hash.hex()}")
        return data

    def state(self, block_hash: Hash32) -> ChainState:
        """Return the state after a stored block."""
        return decode(ChainState, self._state_data(block_hash))

    def standing(self, block_hash: Hash32) -> BlockPosition:
        """Return where a stored block stands, without decoding all that is known after it."""
        return decode_prefix(BlockPosition, self._state_data(block_hash))

    def _state_data(self, block_hash: Hash32) -> bytes:
        data = self._store.get(b"state/" + block_hash)
        if data is None:
            raise Unavailable(f"state after block {block_hash.hex()}")
        return data

    def payload_hash(self, block_hash: Hash32) -> Hash32:
        """Return the hash of the payload that a block carries."""
        return self.standing(block_hash).payload_hash

    def at_height(self, height: int) -> tuple[Hash32, ...]:
        """Return all stored blocks of a height, on whatever branch."""
        prefix = b"height/" + height.to_bytes(8, "big")
        return tuple(key[len(prefix) :] for key, _ in self._store.scan(prefix))

    def records_above(self, final: ChainState) -> tuple[BlockRecord, ...]:
        """Return every stored block above a final state, lowest first."""
        found: list[BlockRecord] = []
        height = final.height + 1
        while hashes := self.at_height(height):
            found.extend(BlockRecord(self.state(key), self.block(key)) for key in hashes)
            height += 1
        return tuple(found)

    def on_branch(self, head: messages.Head, height: int) -> ChainState:
        """Return the state of a height on the head's branch.

        Where a height has one block, that is it: a long chain is not walked for a block at its beginning.
        """
        upper, found = height, self.at_height(height)
        while upper < head.height and len(found) != 1:
            upper += 1
            found = self.at_height(upper)
        state = self.state(head.block if upper >= head.height else found[0])
        while state.height > height:
            state = self.state(state.parent)
        return state

    def branch(self, tip: Hash32, down_to_height: int) -> tuple[ChainState, ...]:
        """Return the states from just above `down_to_height` up to a block."""
        path: list[ChainState] = []
        state = self.state(tip)
        while state.height > down_to_height:
            path.append(state)
            state = self.state(state.parent)
        return tuple(reversed(path))

    def hashes_above(self, tip: Hash32, above_height: int, limit: int) -> tuple[Hash32, ...]:
        """Return at most `limit` blocks of a branch from just above a height, lowest first.

        Where one block only is stored at a height, every branch goes through it: the walk starts there and not at the
        tip, so that an answer costs the same on a long chain as on a short one.
        """
        start, top = tip, self.standing(tip).height
        for height in range(above_height + limit, min(top, above_height + limit + MAXIMUM_FORKED_HEIGHTS)):
            found = self.at_height(height)
            if len(found) == 1:
                start = found[0]
                break
        path: list[Hash32] = []
        while (here := self.standing(start)).height > above_height:
            path.append(start)
            start = here.parent
        return tuple(reversed(path))[:limit]

    def settlements(self, tip: Hash32) -> tuple[Settlement, ...]:
        """Return everything settled on a branch, in the order of the history tree."""
        path: list[ChainState] = []
        state = self.state(tip)
        while state.height > 0 and state.block_hash not in self._settled:
            path.append(state)
            state = self.state(state.parent)
        settled = self._settled.get(state.block_hash, ())
        for state in reversed(path):
            settled = (*settled, *state.reward.settlements)
            self._settled[state.block_hash] = settled
        while len(self._settled) > MAXIMUM_REMEMBERED_BRANCHES:
            self._settled.popitem(last=False)
        return settled

    # --- head ----------------------------------------------------------------------------------------------------

    def store_head(self, head: messages.Head) -> None:
        """Write the head, and drop the messages of heights that are final."""
        items: dict[bytes, bytes | None] = {b"head": encode(head)}
        final = self.standing(head.finalized).height
        for key, _ in self._store.scan(ROUND):
            if int.from_bytes(key[len(ROUND) : len(ROUND) + 8], "big") > final:
                break
            items[key] = None
        self._store.put_many(items)

    def head(self) -> messages.Head:
        """Return the head of the last run; the genesis block at first."""
        data = self._store.get(b"head")
        if data is None:
            raise Unavailable("the head of a data directory that was not set up")
        return decode(messages.Head, data)

    # --- messages of the round -----------------------------------------------------------------------------------

    def keep_round_message(self, event: RoundEvent) -> None:
        """Write what came in time and when, so that a killed node goes on inside the height."""
        named = event.message.release if isinstance(event, ReleaseReceived) else event.message
        key = ROUND + named.height.to_bytes(8, "big") + _KINDS[type(event)] + message_hash(event.message)
        self._store.put_many({key: event.at_milliseconds.to_bytes(8, "big") + encode(event.message)})

    def round_messages(self, parent: Hash32) -> tuple[RoundEvent, ...]:
        """Return what came in time on a parent, in the order of the round."""
        prefix = ROUND + (self.state(parent).height + 1).to_bytes(8, "big")
        found: list[RoundEvent] = []
        for key, value in self._store.scan(prefix):
            event_type, noun = _NOUNS[key[len(prefix) : len(prefix) + 1]]
            event = event_type(decode(noun, value[8:]), int.from_bytes(value[:8], "big"))
            named = event.message.release if isinstance(event, ReleaseReceived) else event.message
            if named.parent == parent:
                found.append(event)
        return tuple(found)

    # --- messages that wait for a block --------------------------------------------------------------------------

    def store_pending_message(self, message: Waiting) -> None:
        """Write what the next proposers may carry beside the round, so that it waits through a kill."""
        kind = next(kind for kind, noun in _WAITING_KINDS.items() if isinstance(message, noun))
        self._store.put_many({WAITING + message_hash(message) + kind: encode(message)})

    def load_pending_messages(self) -> tuple[Waiting, ...]:
        """Return what waited for a block."""
        return tuple(decode(_WAITING_KINDS[key[-1:]], value) for key, value in self._store.scan(WAITING))

    def forget_pending_messages(self, still: Collection[Hash32]) -> None:
        """Drop what a block has carried or none may carry any more; `still` are the hashes of what waits on."""
        over = [key for key, _ in self._store.scan(WAITING) if key[len(WAITING) : -1] not in still]
        if over:
            self._store.put_many(dict.fromkeys(over))

    # --- what was believed ---------------------------------------------------------------------------------------

    def mark_as_trusted(self, candidate: Hash32) -> None:
        """Write that a winner's count was taken from its claim; it reaches the disk with the block or before."""
        self._store.put_later({BELIEVED + candidate: b""})

    def is_trusted(self, candidate: Hash32) -> bool:
        """Return whether this node took a winner's count from its claim: the block stands at header level here."""
        return self._store.get(BELIEVED + candidate) is not None


logger = logging.getLogger(__name__)


class Discarding(Protocol):
    """Delete blobs for good."""

    async def discard(self, cid: Cid) -> int:
        """Delete a blob, pinned or not; return the bytes freed."""


class Retention:
    """Delete what the window of `retain_blocks` final blocks has passed; 0 keeps everything.

    What this node may still be asked for stays longer: whoever cannot show its steps loses its bond.
    """

    def __init__(
        self,
        archive: Archive,
        blobs: Discarding,
        rules: Rules,
        retain_blocks: int,
        is_needed: Callable[[int], bool] = lambda _height: False,
    ) -> None:
        self._archive, self._blobs, self._rules, self._retain_blocks = archive, blobs, rules, retain_blocks
        self._is_needed = is_needed
        self._highest = 0
        self._lock = asyncio.Lock()

    def is_over(self, height: int) -> bool:
        """Return whether the window has passed a height, so that its models need not be fetched any more."""
        return self._retain_blocks > 0 and height <= self._highest - self._retain_blocks

    async def prune(self, head: messages.Head, needed: frozenset[Cid] = frozenset()) -> int:
        """Delete the models, traces and losing candidates of all heights that are final and outside the window.

        What is `needed` now waits: the model that the next winner is compared with may be older than the window, and no
        task's best (PODL-R1).
        """
        self._highest = max(self._highest, head.height)
        if not self._retain_blocks:
            return 0
        final = self._archive.state(head.finalized).height
        limit = min(head.height - self._retain_blocks, final) + 1
        async with self._lock:
            freed = 0
            for height, cids in sorted(self._archive.blobs.below(limit).items()):
                freed += 0 if self._is_needed(height) else await self._prune_height(head, height, cids, needed)
        if freed:
            logger.info("storage relief: %d bytes of heights below %d are freed", freed, limit)
        return freed

    async def _prune_height(
        self, head: messages.Head, height: int, cids: tuple[Cid, ...], needed: frozenset[Cid]
    ) -> int:
        kept, passed = self._rank_models(head, height)
        freed = 0
        for cid in (*cids, *passed):
            if cid in needed - kept:
                self._archive.blobs.note(self._highest, (cid,))
            elif cid not in kept:
                freed += await self._blobs.discard(cid)
        # The notes go last: a kill in between deletes again what is gone already.
        self._archive.blobs.forget(height)
        return freed

    def _rank_models(self, head: messages.Head, height: int) -> tuple[frozenset[Cid], tuple[Cid, ...]]:
        """Return the model to keep of a height, and the one that it outdoes."""
        found = [each for each in self._archive.branch(head.finalized, height - 1)[:1] if each.height == height]
        block = self._archive.block(found[0].block_hash) if found else None
        if not isinstance(block, messages.Block):
            return frozenset(), ()
        mine = BestModel(height, block.reveal.model_cid, block.verdict.correct, block.verdict.total)
        task_id = block.reveal.task_id
        best = self._archive.blobs.best_model(task_id)
        if best is not None and best.model_cid != mine.model_cid and not self._outdoes(block, mine, best):
            return frozenset(), ()
        self._archive.blobs.keep_best_model(task_id, mine)
        passed = (best.model_cid,) if best is not None and best.model_cid != mine.model_cid else ()
        return frozenset({mine.model_cid}), passed

    def _outdoes(self, block: messages.Block, mine: BestModel, best: BestModel) -> bool:
        """Compare on one test set where the block does: counts of different sets say nothing (PODL-R1)."""
        correct, total = self._rules.parts.baseline_count(block.verdict)
        if total:
            return block.verdict.correct * total > correct * block.verdict.total
        return mine.beats(best)
