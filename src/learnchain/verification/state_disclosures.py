"""Answers to accusations as files: train a segment again, check what others show, look for a step nobody takes.

Every node checks an answer's files before it admits a block with it; the accused writes them, the accuser reads them.
"""

import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from learnchain.consensus.audits import open_segment, parse_step_digests
from learnchain.encoding.codec import Hash32
from learnchain.encoding.content_id import Cid
from learnchain.encoding.cryptography import UNSIGNED, list_root
from learnchain.learning import jobs
from learnchain.learning.trace import state_path
from learnchain.protocol.audit_messages import SegmentOpening, StateDisclosure
from learnchain.protocol.messages import Block
from learnchain.protocol.model_specification import model_bytes
from learnchain.protocol.state import Selection
from learnchain.rejection import Rejected, RejectionReason
from learnchain.verification.replay import HEADER_BYTES, STATE_COPIES, TraceReplayer
from learnchain.verification.training_chain import fetch_index

SegmentJobKind = TypeVar("SegmentJobKind", bound=jobs.SegmentJob)


@dataclass(frozen=True, slots=True)
class DisputedRun:
    """Name the run that a dispute is about; a `forced_seed` corrupts where an accused auditor had to begin."""

    block: Block
    selection: Selection
    forced_seed: bytes = b""


@dataclass(frozen=True, slots=True)
class OutOfBoundsStep:
    """Hold the first step of an answer that no honest machine takes, with its two states published."""

    offset: int
    digests: tuple[Hash32, ...]
    before: Cid
    after: Cid


@dataclass(frozen=True)
class StateDisclosures:
    """Write and read the steps of segments, in the process that replays."""

    replayer: TraceReplayer

    async def write_disclosure(
        self, run: DisputedRun, segment: int, commitment: Hash32
    ) -> tuple[StateDisclosure, SegmentOpening]:
        """Train a segment again from its committed state, publish every step, and return the answer to be signed.

        Whoever accuses wants to see the committed end. A machine that has changed its class since comes to another one,
        which would be a fault of the bytes: it shows the committed state as its last, and the bounds decide.
        """
        blobs = self.replayer.blobs
        opening = open_segment(await self.replayer.leaves(run.block), segment)
        async with self._temporary_directory() as place:
            job = await self._build_segment_job(jobs.DisclosureJob, run, opening, place)
            states = (await fetch_index(blobs, run.block.reveal.training)).states
            await self._fetch_to(states[segment], state_path(place, 0), self._maximum_state_bytes(run))
            await self.replayer.evaluator.run(job)
            digests = parse_step_digests((place / jobs.DIGESTS_NAME).read_bytes())
            if not run.forced_seed and digests[-1] != opening.following.digest:
                committed = await blobs.fetch(states[segment + 1], max_bytes=self._maximum_state_bytes(run))
                digests = (*digests[:-1], opening.following.digest)
                _replace_last_state(place / jobs.STATES_NAME, len(digests), committed.read_bytes())
            digests_cid = await blobs.add_bytes(b"".join(digests))
            states_cid = await blobs.add(place / jobs.STATES_NAME)
        named = (self.replayer.parameters.chain_id, commitment, segment, len(digests), list_root(digests))
        return StateDisclosure(*named, digests_cid, states_cid, UNSIGNED), opening

    async def check_disclosure(self, run: DisputedRun, answer: StateDisclosure, opening: SegmentOpening) -> None:
        """Refuse an answer whose files are not what it names; raise `Unavailable` while they are not here (AUDIT-6)."""
        async with self._temporary_directory() as place:
            await self._fetch_files(run, answer, place)
            job = await self._build_segment_job(jobs.DisclosedStatesJob, run, opening, place)
            await self.replayer.evaluator.run(job)

    async def find_first_out_of_bounds(
        self, run: DisputedRun, answer: StateDisclosure, opening: SegmentOpening
    ) -> OutOfBoundsStep | None:
        """Return the first step of an answer that no honest machine takes, or None if all may be honest."""
        async with self._temporary_directory() as place:
            digests = await self._fetch_files(run, answer, place)
            job = await self._build_segment_job(jobs.OutlyingStepJob, run, opening, place)
            offset = await self.replayer.evaluator.run(job)
            if offset < 0:
                return None
            before = await self.replayer.blobs.add(state_path(place, offset))
            after = await self.replayer.blobs.add(state_path(place, offset + 1))
            return OutOfBoundsStep(offset, digests, before, after)

    async def _fetch_files(self, run: DisputedRun, answer: StateDisclosure, directory: Path) -> tuple[Hash32, ...]:
        """Bring the files of an answer; their sizes are bounded by the task before anything is fetched."""
        limit = run.selection.posted_task.specification.training.checkpoint_interval_steps + 1
        if answer.states > limit:
            raise Rejected(RejectionReason.RESPONSE_INVALID, f"{answer.states} states; a segment has {limit} at most")
        await self._fetch_to(answer.digests_cid, directory / jobs.DIGESTS_NAME, 32 * answer.states)
        digests = parse_step_digests((directory / jobs.DIGESTS_NAME).read_bytes())
        if len(digests) != answer.states or list_root(digests) != answer.root:
            raise Rejected(RejectionReason.RESPONSE_INVALID, "the digests are not those under the signed root")
        await self._fetch_to(
            answer.states_cid, directory / jobs.STATES_NAME, answer.states * self._maximum_state_bytes(run)
        )
        return digests

    async def _build_segment_job(
        self, kind: type[SegmentJobKind], run: DisputedRun, opening: SegmentOpening, directory: Path
    ) -> SegmentJobKind:
        training = await self.replayer.run(run.block, run.selection, directory)
        return kind(training, opening.first, opening.following, str(directory), opening.index, run.forced_seed)

    async def _fetch_to(self, cid: Cid, target: Path, maximum_bytes: int) -> None:
        shutil.copyfile(await self.replayer.blobs.fetch(cid, max_bytes=maximum_bytes), target)

    @staticmethod
    def _maximum_state_bytes(run: DisputedRun) -> int:
        return STATE_COPIES * model_bytes(run.selection.posted_task.specification.model) + HEADER_BYTES

    @asynccontextmanager
    async def _temporary_directory(self) -> AsyncGenerator[Path, None]:
        place = Path(tempfile.mkdtemp(prefix="learnchain-steps-"))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _replace_last_state(joined: Path, states: int, last: bytes) -> None:
    """Replace the last of equally long states; one of another length shows as such."""
    keep = joined.stat().st_size // states * (states - 1)
    with joined.open("r+b") as file:
        file.truncate(keep)
        file.seek(keep)
        file.write(last)
