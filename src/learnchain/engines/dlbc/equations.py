"""DLBC Equations 1 to 6, one function each; Equation 7 is a loss term and stands in `learning/watermark.py`.

Ratios are exact fractions; logarithms and powers run in the fixed decimal context of `encoding/numbers.py`.

Rank the recorded tasks by Equation 4 and select the smallest score (IV-A, IV-D, IV-G; reading DLBC-R1).
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from learnchain.encoding.codec import Hash32
from learnchain.encoding.numbers import CONTEXT, logarithm, power, quantise
from learnchain.protocol.citations import equation
from learnchain.protocol.model_specification import model_bytes, training_flops_per_sample
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.selection import Assignment, PostedTask, Schedule, Selection
from learnchain.protocol.state import ChainState
from learnchain.protocol.task_specification import TaskSpecification

MILLION = 1_000_000


@equation("dlbc", 1, r"q_i = \frac{\ln(k \times l_i)}{\ln L}, \quad k > 0")
def queue_index(queue_length: int, estimated_maximum: int, scale_millionths: int) -> Decimal:
    """Return q_i from l_i, L and k: above 0 the ranking punishes FLOPs, below it prefers them (DLBC-R7, R8).

    `queue_length` >= 1 and `estimated_maximum` >= 2; k is given in millionths.
    """
    scaled = CONTEXT.divide(Decimal(scale_millionths * queue_length), Decimal(MILLION))
    return CONTEXT.divide(logarithm(scaled), logarithm(Decimal(estimated_maximum)))


@equation("dlbc", 2, r"d_{ni} = \frac{\text{model size} + \text{data size}}{\text{median network bandwidth}}")
def network_difficulty(model_bytes: int, data_bytes: int, median_bytes_per_second: int) -> Decimal:
    """Return d_ni in seconds: what it takes to move model and data (DLBC-R11)."""
    return CONTEXT.divide(Decimal(model_bytes + data_bytes), Decimal(median_bytes_per_second))


@equation("dlbc", 3, r"d_{ci} = \frac{\text{FLOPs}}{\text{median computation power}}")
def computation_difficulty(flops: int, median_flops_per_second: int) -> Decimal:
    """Return d_ci in seconds: what one epoch takes at the median miner (DLBC-R11)."""
    return CONTEXT.divide(Decimal(flops), Decimal(median_flops_per_second))


@equation("dlbc", 4, r"\text{ranking score} = \frac{d_{ni} + (d_{ci})^{q_i}}{\text{task reward}}")
def ranking_score(network: Decimal, computation: Decimal, index: Decimal, reward_wei: int) -> Decimal:
    """Return the score that all miners rank by: the smallest is trained (DLBC-R1); 18 digits decide."""
    difficulty = CONTEXT.add(network, power(computation, index))
    return quantise(CONTEXT.divide(difficulty, Decimal(reward_wei)))


@equation("dlbc", 5, r"\text{block reward}_{publisher} = \max(0, 1 - (\frac{k \times l_i}{L})^2)")
def publisher_share(queue_length: int, estimated_maximum: int, scale_millionths: int) -> Fraction:
    """Return the publisher's share of the block reward: large while the list of tasks is short (DLBC-R7)."""
    filled = Fraction(scale_millionths * queue_length, MILLION * estimated_maximum)
    return max(Fraction(0), 1 - filled * filled)


@equation("dlbc", 6, r"\text{block reward}_{miner} = 1 - \text{block reward}_{publisher}")
def miner_share(publisher: Fraction) -> Fraction:
    """Return the miner's share of the block reward."""
    return 1 - publisher


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold what Eq. 1-4 take from the chain: L, k in millionths, and the two medians (reading DLBC-R11)."""

    estimated_maximum: int = 32
    scale_millionths: int = 1_000_000
    median_bytes_per_second: int = 12_500_000
    median_flops_per_second: int = 10_000_000_000

    def score(self, posted: PostedTask, queue_length: int) -> Decimal:
        """Return the ranking score of a publisher's task in a list of `queue_length` tasks."""
        network, computation = _compute_difficulties(posted.specification, self)
        index = queue_index(max(1, queue_length), self.estimated_maximum, self.scale_millionths)
        return ranking_score(network, computation, index, posted.task.reward_wei)

    def select(self, parent: ChainState, schedule: Schedule, horizon_seconds: int, chain: ChainParameters) -> Selection:
        """Return the task with the smallest score; a standing task, in turn, when no publisher's task waits.

        Tasks whose deadline lies before `horizon_seconds` could not be settled in time and are passed over.
        """
        waiting = [each for each in parent.queued_tasks if each.task.deadline_seconds > horizon_seconds]
        scored = sorted((self.score(each, len(waiting)), each.task.task_id) for each in waiting)
        by_id = {each.task.task_id: each for each in waiting}
        height = parent.height + 1
        if not scored:
            standing = chain.standing_tasks()
            chosen, score = PostedTask(*standing[height % len(standing)]), ""
        else:
            chosen, score = by_id[scored[0][1]], str(scored[0][0])
        ranking: tuple[tuple[str, Hash32], ...] = tuple((str(value), task_id) for value, task_id in scored)
        return Selection(height, parent.block_hash, (Assignment(chosen),), score, len(waiting), schedule, ranking)


@lru_cache(maxsize=4_096)
def _compute_difficulties(specification: TaskSpecification, ranking: Ranking) -> tuple[Decimal, Decimal]:
    """Return d_n and d_c; they depend on the task alone, so only the power is computed anew at every block."""
    data = specification.data
    moved = data.training.ciphertext_bytes + data.test.ciphertext_bytes
    network = network_difficulty(model_bytes(specification.model), moved, ranking.median_bytes_per_second)
    flops = training_flops_per_sample(specification.model) * data.training.rows
    return network, computation_difficulty(flops, ranking.median_flops_per_second)
