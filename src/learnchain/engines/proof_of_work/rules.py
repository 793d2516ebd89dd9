"""The target of the puzzle: adjusted after every height, in integers, by how long the solution took.

Take the lowest solved commitment whose payload runs; there is no model to measure.

The ten answers of proof of work, in spine order; the fields are the puzzle's parameters.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from learnchain.encoding.codec import Hash32, encode
from learnchain.engines.contract import EngineParts, JudgementCase
from learnchain.protocol import messages
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.puzzle import LARGEST_TARGET, estimate_attempts, is_solved
from learnchain.protocol.state import ZERO_HASH, Assignment, ChainState, PostedTask, Reward, Schedule, Selection
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.protocol.training_terms import HashPuzzle, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason

_TARGET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Hold the time a solution should take, the first target, and how slowly the target follows (POW-R3).

    After a solution that took t of the aimed T the target changes by target * (t - T) / (T * damping), with t - T
    between -T and `_SLOWEST` * T.
    """

    aim_milliseconds: int = 60_000
    first_target: int = LARGEST_TARGET >> 26
    damping: int = 8

    def decode_target(self, memory: bytes) -> int:
        """Return the target that a parent's memory holds; the first one at genesis."""
        return int.from_bytes(memory, "big") if memory else self.first_target

    def encode_next_target(self, memory: bytes, solved_milliseconds: int) -> bytes:
        """Return the memory with the target that follows a height which took so long to solve."""
        target, aim = self.decode_target(memory), self.aim_milliseconds
        error = min(max(solved_milliseconds - aim, -aim), _SLOWEST * aim)
        following = target + target * error // (aim * self.damping)
        return min(max(following, 1), LARGEST_TARGET).to_bytes(_TARGET_BYTES, "big")


_SLOWEST = 8
"""A height that nobody solves makes the next one easier by at most this many aims: power that left is forgotten fast,
while one late block does not open the door."""


def judge(case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
    """Ask for the payload of the lowest commitment, then the next; give the verdict or wait for reveals."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    for key in sorted(case.reveals):
        paid = case.measurements.get((key, MeasurementKind.PAYLOAD))
        if paid is None:
            return MeasurementRequest(key, MeasurementKind.PAYLOAD)
        if paid.finding is Finding.ACCEPTED:
            return _build_verdict(case, key)
    return _build_verdict(case, ZERO_HASH)


def _build_verdict(case: JudgementCase, winner: Hash32) -> messages.Verdict:
    entries = tuple(_build_entry(case, key, commitment, winner) for key, commitment in case.commitments)
    won = case.reveals.get(winner)
    return messages.Verdict(winner, 0, won.claim_total if won else 0, entries)


def _build_entry(
    case: JudgementCase, key: Hash32, commitment: messages.Commitment, winner: Hash32
) -> messages.VerdictEntry:
    reveal, paid = case.reveals.get(key), case.measurements.get((key, MeasurementKind.PAYLOAD))
    total = reveal.claim_total if reveal else 0
    if key == winner:
        return messages.VerdictEntry(key, commitment.miner, messages.CandidateOutcome.WINNER, 0, "", total)
    if paid is not None and paid.finding is Finding.REJECTED:
        return messages.VerdictEntry(key, commitment.miner, messages.CandidateOutcome.REJECTED, 0, paid.reason, total)
    if reveal is None or (paid is not None and paid.finding is Finding.UNAVAILABLE):
        return messages.VerdictEntry(key, commitment.miner, messages.CandidateOutcome.UNREVEALED, 0, "")
    return messages.VerdictEntry(key, commitment.miner, messages.CandidateOutcome.LOWER_CLAIM, 0, "", total)


@dataclass(frozen=True, slots=True)
class ProofOfWork:
    """Hash only, train nothing: the baseline that PoLe's Table 1 compares intervals with, good for nothing else.

    `limit_milliseconds` ends a search that nobody won. `reveal_milliseconds` and `block_milliseconds` count from the
    release: time to open the solution and to spread the block.
    """

    difficulty: Difficulty = field(default_factory=Difficulty)
    limit_milliseconds: int = 3_600_000
    release_milliseconds: int = 10_000
    reveal_milliseconds: int = 10_000
    block_milliseconds: int = 50_000
    score_formula: ClassVar[str] = "score = 2^256 / target: the hashes that a solution takes on average (POW-R3)"
    reward_formula: ClassVar[str] = "who solved the puzzle takes the whole block reward (POW-R3)"

    @property
    def name(self) -> str:
        """Name the consensus."""
        return "proof_of_work"

    @property
    def parts(self) -> EngineParts:
        """Add nothing to any message."""
        return EngineParts()

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse a target beyond the hash, times that do not rise, and a last phase too short to spread a block."""
        parameters.check_last_phase(self.block_milliseconds)
        difficulty = self.difficulty
        times = (difficulty.aim_milliseconds, self.release_milliseconds, self.reveal_milliseconds, difficulty.damping)
        rising = self.reveal_milliseconds < self.block_milliseconds
        sought = difficulty.aim_milliseconds < self.limit_milliseconds
        if min(times) < 1 or not (rising and sought) or not 1 <= difficulty.first_target <= LARGEST_TARGET:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self}: times must be positive and rise")

    def encode_parameters(self) -> bytes:
        """Return the engine's parameters for the genesis hash."""
        return b"proof_of_work" + encode(self)

    def admit_task(self, task: messages.Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Refuse every commissioned task: nothing is trained; a standing task only names the steward (POW-R1)."""
        specification.check_numbers()
        if not task.is_standing:
            raise Rejected(RejectionReason.TASK_NOT_TRAINED, "this chain hashes; post the task on one that trains")

    def required_escrow(self, task: messages.Task) -> messages.Escrow:
        """Lock what the task declares, though no task is ever admitted."""
        return messages.Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Set the puzzle of the next height: the target that the parent's solution time left (POW-R3)."""
        standing = parameters.standing_tasks()
        height, memory = parent.height + 1, parent.reward.memory
        chosen = (Assignment(PostedTask(*standing[height % len(standing)])),)
        score = str(estimate_attempts(self.difficulty.decode_target(memory)))
        return Selection(height, parent.block_hash, chosen, score, 0, self._schedule_height(parent), (), memory)

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Train nothing; search a digest below the target (PoLe 1, 2.1; POW-R2)."""
        return HashPuzzle(self.difficulty.decode_target(selection.memory))

    def check_commitment(
        self, selection: Selection, commitment: messages.Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Require a solved puzzle: the digest lies below the target (PoLe 2.1; POW-R2)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the solution came after the search ended")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)
        if not is_solved(commitment.digest, self.difficulty.decode_target(selection.memory)):
            raise Rejected(RejectionReason.PUZZLE_UNSOLVED, "the digest does not lie below the target")

    def check_reveal(self, selection: Selection, commitment: messages.Commitment, reveal: messages.Reveal) -> None:
        """Require a claim of nothing: no model was trained, so none may seem to have been."""
        selection.posted_task.specification.check_claim(reveal.claim())
        if reveal.claim_correct:
            raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, "a hash knows no test set; claim 0")

    def judge(self, case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
        """Take the lowest solved commitment whose payload runs; nothing else is measured."""
        return judge(case)

    def check_header(self, parent: ChainState, selection: Selection, block: messages.AnyBlock) -> None:
        """Require the block to end a fixed time after the release that dates the solution (POW-R1)."""
        if isinstance(block, messages.Block):
            due = selection.schedule.deadline(messages.Deadline.BLOCK, block.release.released_milliseconds)
            if block.end_milliseconds != due:
                raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end as long after its release")

    def weigh(self, block: messages.AnyBlock, siblings: tuple[messages.AnyBlock, ...]) -> int:
        """Count solved blocks: the longest chain leads (PoLe 2.1; POW-R4)."""
        return int(isinstance(block, messages.Block))

    def compute_reward(self, selection: Selection, block: messages.AnyBlock, parameters: ChainParameters) -> Reward:
        """Mint the block reward for who solved the puzzle; remember the adjusted target (POW-R3)."""
        start = selection.schedule.start_milliseconds
        if not isinstance(block, messages.Block):
            return Reward((), (), self.difficulty.encode_next_target(selection.memory, self.limit_milliseconds))
        memory = self.difficulty.encode_next_target(selection.memory, block.release.released_milliseconds - start)
        return Reward((messages.Payout(block.proposer, parameters.block_reward_gwei, "block reward"),), (), memory)

    def _schedule_height(self, parent: ChainState) -> Schedule:
        """Return deadlines that only bound the search: the first solution ends it."""
        start = parent.end_milliseconds
        closing = start + self.limit_milliseconds
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=closing,
            release_opens_milliseconds=start,
            commitment_milliseconds=closing,
            release_milliseconds=closing + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds,
            block_after_milliseconds=self.block_milliseconds,
            is_clocked=False,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, start // 1000),
            sufficient_commitments=1,
        )


LOCAL = ProofOfWork(
    difficulty=Difficulty(aim_milliseconds=3_000, first_target=LARGEST_TARGET >> 20),
    limit_milliseconds=60_000,
    release_milliseconds=500,
    reveal_milliseconds=800,
    block_milliseconds=1_600,
)
"""For several nodes on one machine: solutions within seconds."""
