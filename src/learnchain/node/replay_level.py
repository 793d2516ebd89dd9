"""The assurance levels that train again: k of N segments of every winner's trace, or all of them (ROUND-10).

Which segments, the verifier draws from a secret of its own: nobody can know them while training. What replaying shows
differs by fault: one that needs no arithmetic refuses the block; bits that differ refuse nothing, since the miner may
be of another reproducibility class, and the block then counts at accuracy level.
"""

from dataclasses import dataclass
from fractions import Fraction

from learnchain.learning.replay.jobs import AuditLine
from learnchain.node.assurance import Level
from learnchain.node.replay_judge import AuditScope, ReplayJudge
from learnchain.primitives.audit import (
    HARDWARE_FREE,
    AuditFinding,
    challenged_count,
    detection_probability,
    draw_challenge,
)
from learnchain.primitives.messages import Block, trace_root
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.selection import Selection

DEFAULT_THOUSANDTHS = 50
"""Without `--segments`, replay level trains a twentieth of every trace again."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Say what replaying one block came to: how many segments of how many, and whether every bit followed.

    `runs` holds both numbers of the winner's run and of every earlier one that it rests on (PODL-R10).
    """

    replayed: int
    segments: int
    is_reproduced: bool
    text: str
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def detection(self) -> Fraction:
        """Return the chance with which one forged segment would have been found, wherever among these runs it lies."""
        if not self.is_reproduced or not self.segments:
            return Fraction(0)
        return min(detection_probability(*each, 1) for each in self.runs or ((self.replayed, self.segments),))


@dataclass(frozen=True, slots=True)
class ReplayLevel:
    """Replay blocks at a level; `wanted` segments of each run, 0 for the default share, all at full level."""

    judge: ReplayJudge
    level: Level
    wanted: int
    secret: bytes

    async def checked(self, block: Block, selection: Selection) -> Replayed:
        """Replay a block's challenged segments; refuse a fault; say so where bits differ or states are gone.

        Runs that lost but that the winner's goes on from are replayed alike: no other block would examine them.
        """
        found = [await self._run(block, selection)]
        if found[0].is_reproduced:
            try:
                for each in await self.judge.earlier_runs(block):
                    found.append(await self._run(each.block, each.selection))
            except Unavailable as error:
                found.append(Replayed(0, 0, False, f"an earlier run is not replayed: {error.what} is not here"))
        return _together(found)

    async def _run(self, block: Block, selection: Selection) -> Replayed:
        training = block.reveal.training
        segments = training.states - 1
        if segments < 1:
            raise Rejected(RejectionReason.TRACE_MISMATCH, f"a trace of {training.states} states")
        drawn = self._drawn(segments)
        indices = range(segments) if self.level is Level.FULL else ()
        if self.level is Level.REPLAY:
            indices = draw_challenge(self.secret, trace_root(training), segments, drawn).indices
        try:
            lines = await self.judge.audited(block, selection, AuditScope(tuple(indices)))
        except Unavailable as error:
            return Replayed(0, segments, False, f"not replayed: {error.what} is not here")
        return _summary(lines, drawn, segments)

    def _drawn(self, segments: int) -> int:
        if self.level is Level.FULL:
            return segments
        return min(self.wanted, segments) if self.wanted else challenged_count(segments, DEFAULT_THOUSANDTHS)


def _together(found: list[Replayed]) -> Replayed:
    """Return what the winner's run and the earlier ones came to; the first that did not follow is what is told."""
    own, *earlier = found
    if not earlier:
        return own
    failed = next((each for each in earlier if not each.is_reproduced), None)
    if failed is not None:
        return Replayed(own.replayed, own.segments, False, f"{own.text}; of an earlier run: {failed.text}")
    runs = tuple((each.replayed, each.segments) for each in found)
    text = f"{own.text}; {len(earlier)} earlier runs: " + ", ".join(each.text for each in earlier)
    return Replayed(sum(each for each, _ in runs), sum(each for _, each in runs), True, text, runs)


def _summary(lines: tuple[AuditLine, ...], drawn: int, segments: int) -> Replayed:
    last = lines[-1]
    if last.finding in HARDWARE_FREE:
        raise Rejected(RejectionReason.TRACE_MISMATCH, f"{last.finding.value}: {last.detail}")
    done = sum(line.segment >= 0 and line.finding is AuditFinding.REPRODUCED for line in lines)
    if last.finding is AuditFinding.NOT_AUDITED:
        return Replayed(0, segments, False, "free training: accuracy only")
    if last.finding is AuditFinding.NUMERIC_MISMATCH:
        text = f"segment {last.segment} differs in this machine's class: not settled"
        return Replayed(done, segments, False, text)
    return Replayed(drawn, segments, True, f"replayed {done} of {segments} segments")
