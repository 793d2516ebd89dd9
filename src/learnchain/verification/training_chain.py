"""Tasks over several blocks: which seeds a height has, and from which committed state a miner goes on (ROUND-9).

A run at height t goes on from the end state of the miner's own run at t-1, whoever won there. The trace's index opens
that miner's commitment, which stands in block t-1, so that anybody can follow the states from block to block.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from learnchain.encoding.codec import Address, Hash32, decode, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import Rules
from learnchain.learning.jobs import TrainedFiles, TrainingJob
from learnchain.learning.trace import CONTINUES_KEY, MAXIMUM_INDEX_BYTES, TraceIndex, read_index
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import MultiBlockPosition, Selection
from learnchain.protocol.training_terms import HyperParameters, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.storage.slashing_protection import CommitmentOpening

logger = logging.getLogger(__name__)
MAXIMUM_STATE_BYTES = 1 << 34


@dataclass(frozen=True, slots=True)
class Seeds:
    """Hold what one miner's run at one height draws from: initial weights from one block, batch order from another."""

    initial: Hash32
    order: Hash32


@dataclass(frozen=True, slots=True)
class EndState:
    """Name the state that a run goes on from, and the opening of the commitment that holds it."""

    path: Path
    digest: Hash32
    opening: CommitmentOpening


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """Join what a run left with the committed state that it went on from, if it did."""

    run: TrainedFiles
    start: EndState | None
    ended_milliseconds: int


@dataclass(frozen=True, slots=True)
class LookaheadRun:
    """Hold a run that began while the block before its own was judged; its result is None when it failed."""

    task_id: bytes
    position: MultiBlockPosition
    commitment: messages.Commitment
    task: asyncio.Task[None]
    result: asyncio.Future[FinishedRun | None]

    def fits(self, selection: Selection) -> bool:
        """Return whether the run is the one that this height asks for."""
        return (self.task_id, self.position) == (selection.task.task_id, selection.position)

    async def take_result(self) -> FinishedRun | None:
        """Return the result; whoever gives up waiting ends the run, or it would keep the next one waiting."""
        try:
            return await self.result
        finally:
            self.task.cancel()


def seeds_of(chain_id: int, selection: Selection, miner: Address, course: MultiBlockPosition | None = None) -> Seeds:
    """Return the seeds of a height, or of the position that follows it; a task of one block has one seed."""
    own = selection.select_assignment(miner) or selection
    chosen, task_id = course or own.position, own.task.task_id
    initial = messages.work_id(chain_id, chosen.initialisation_seed or selection.parent, task_id, miner)
    return Seeds(initial, messages.work_id(chain_id, chosen.batch_order_seed or selection.parent, task_id, miner))


def build_training_job(
    selection: Selection,
    terms: TrainingTerms,
    seeds: Seeds,
    chosen: HyperParameters,
    paths: tuple[Path, Path],
    mapping_path: str,
) -> TrainingJob:
    """Return what a miner has to do at a height, from rows in a file to a directory; who replays it asks the same."""
    specification, (rows, directory) = selection.posted_task.specification, paths
    return TrainingJob(
        specification=specification.model,
        optimiser=specification.training.optimiser,
        hyper_parameters=chosen,
        terms=terms.loop,
        work_id=seeds.order,
        checkpoint_interval_steps=specification.training.checkpoint_interval_steps,
        training_path=str(rows),
        directory=str(directory),
        mapping_path=mapping_path,
        initial_id=seeds.initial,
    )


async def end_state(blobs: BlobStore, opening: CommitmentOpening) -> EndState:
    """Return the last state of a committed run of our own."""
    index = await _find_committed_index(blobs, opening)
    path = await blobs.fetch(index.states[-1], max_bytes=MAXIMUM_STATE_BYTES)
    return EndState(path, decode(StateLeaf, index.leaf_bytes[-1]).digest, opening)


async def find_own_end_state(archive: Archive, blobs: BlobStore, selection: Selection) -> EndState | None:
    """Return where our own run of the parent's height ended, if the parent block holds our commitment to it.

    Whoever did not commit there begins at the initialisation that its seed derives, as in the first block.
    """
    if not selection.position.block_index:
        return None
    block = archive.block(selection.parent)
    own = archive.slashing_protection.load_candidate(block.parent)
    if own is None or not _holds(block, own):
        return None
    try:
        return await end_state(blobs, own)
    except (Rejected, Unavailable) as error:
        logger.warning("our own end state of height %d is lost, training begins anew: %s", block.height, error)
        return None


def encode_index(index: dict[str, object], start: EndState | None) -> bytes:
    """Return the bytes of a trace's index, with the opening of what the run went on from."""
    continued = {} if start is None else {CONTINUES_KEY: encode(start.opening).hex()}
    return json.dumps({**index, **continued}, sort_keys=True).encode()


async def find_start_digest(
    blobs: BlobStore, parent: messages.AnyBlock, block: messages.Block, chain_id: int
) -> Hash32 | None:
    """Return the digest of the state that a winner's run must begin with; None for the derived initialisation.

    Refuses an opening that is not of the same miner and task, not under the parent block, or not what it committed to.
    """
    opening = await read_continued_opening(blobs, parent, block, chain_id)
    if opening is None:
        return None
    return decode(StateLeaf, (await _find_committed_index(blobs, opening)).leaf_bytes[-1]).digest


async def read_continued_opening(
    blobs: BlobStore, parent: messages.AnyBlock, block: messages.Block, chain_id: int
) -> CommitmentOpening | None:
    """Return the opened commitment of the run that a winner's goes on from, checked against the parent block."""
    index = await fetch_index(blobs, block.reveal.training)
    if not index.continues:
        return None
    opening = decode(CommitmentOpening, index.continues)
    committed = opening.commitment
    if not _holds(parent, opening) or (committed.miner, committed.task_id) != (block.proposer, block.reveal.task_id):
        raise Rejected(RejectionReason.TRACE_MISMATCH, "the run goes on from what the parent block does not hold")
    work = messages.work_id(chain_id, committed.parent, committed.task_id, committed.miner)
    model = messages.TrainedModel(opening.model_cid, opening.training)
    bound = (opening.payload_hash, opening.payload_cid, opening.salt)
    if messages.commitment_digest(work, model, *bound) != committed.digest:
        raise Rejected(RejectionReason.REVEAL_MISMATCH, "the opening is not what the parent block commits to")
    return opening


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """Hold a run that lost: its block as it would be had the run won, and the selection that it trained for."""

    block: messages.Block
    selection: Selection


async def earlier_runs(
    blobs: BlobStore, archive: Archive, rules: Rules, parameters: ChainParameters, block: messages.Block
) -> tuple[EarlierRun, ...]:
    """Return the runs that a winner's rests on and that did not win their own blocks, the latest first (PODL-R10).

    A run that won is examined with its own block, so the walk ends there, or at the derived initialisation.
    """
    found: list[EarlierRun] = []
    while rules.select_task(archive.state(block.parent), parameters).position.block_index:
        parent = archive.block(block.parent)
        opening = await read_continued_opening(blobs, parent, block, parameters.chain_id)
        if (
            opening is None
            or not isinstance(parent, messages.Block)
            or message_hash(opening.commitment) == parent.verdict.winner
        ):
            break
        reveal = replace(
            parent.reveal, miner=opening.commitment.miner, model_cid=opening.model_cid, training=opening.training
        )
        block = replace(parent, reveal=reveal)
        found.append(EarlierRun(block, rules.select_task(archive.state(block.parent), parameters)))
    return tuple(found)


async def fetch_index(blobs: BlobStore, training: messages.TrainingRecord) -> TraceIndex:
    """Return the index that a training record names; what does not parse or is too long is refused alike everywhere."""
    return read_index(await blobs.read(training.trace_cid, MAXIMUM_INDEX_BYTES))


async def _find_committed_index(blobs: BlobStore, opening: CommitmentOpening) -> TraceIndex:
    """Return the index of an opened commitment; refuse one that is not its own, or of no state."""
    index = await fetch_index(blobs, opening.training)
    index.check(opening.training)
    if not index.leaf_bytes:
        raise Rejected(RejectionReason.MALFORMED, "the index of a trace names no state")
    return index


def _holds(block: messages.AnyBlock, opening: CommitmentOpening) -> bool:
    """Return whether a block's release lists the opened commitment."""
    return isinstance(block, messages.Block) and opening.commitment in block.commitments
