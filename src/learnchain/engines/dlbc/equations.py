"""Rank the recorded tasks by Equation 4 and select the smallest score (IV-A, IV-D, IV-G; reading DLBC-R1)."""

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.codec import Hash32
from learnchain.primitives.model_costs import model_bytes, training_flops_per_sample
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.selection import PostedTask, Schedule, Selection
from learnchain.primitives.task_specification import TaskSpecification
from learnchain.rules.dlbc.equations import computation_difficulty, network_difficulty, queue_index, ranking_score


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold what Eq. 1-4 take from the chain: L, k in millionths, and the two medians (reading DLBC-R11)."""

    estimated_maximum: int = 32
    scale_millionths: int = 1_000_000
    median_bytes_per_second: int = 12_500_000
    median_flops_per_second: int = 10_000_000_000

    def score(self, posted: PostedTask, queue_length: int) -> Decimal:
        """Return the ranking score of a publisher's task in a list of `queue_length` tasks."""
        network, computation = _difficulties(posted.specification, self)
        index = queue_index(max(1, queue_length), self.estimated_maximum, self.scale_millionths)
        return ranking_score(network, computation, index, posted.task.reward_wei)

    def select(self, parent: ChainState, schedule: Schedule, horizon_seconds: int, chain: ChainParameters) -> Selection:
        """Return the task with the smallest score; a standing task, in turn, when no publisher's task waits.

        Tasks whose deadline lies before `horizon_seconds` could not be settled in time and are passed over.
        """
        waiting = [each for each in parent.pool if each.task.deadline_seconds > horizon_seconds]
        scored = sorted((self.score(each, len(waiting)), each.task.task_id) for each in waiting)
        by_id = {each.task.task_id: each for each in waiting}
        height = parent.height + 1
        if not scored:
            standing = chain.standing_tasks()
            chosen, score = PostedTask(*standing[height % len(standing)]), ""
        else:
            chosen, score = by_id[scored[0][1]], str(scored[0][0])
        ranking: tuple[tuple[str, Hash32], ...] = tuple((str(value), task_id) for value, task_id in scored)
        return Selection(height, parent.block_hash, chosen, score, len(waiting), schedule, ranking)


@lru_cache(maxsize=4_096)
def _difficulties(specification: TaskSpecification, ranking: Ranking) -> tuple[Decimal, Decimal]:
    """Return d_n and d_c; they depend on the task alone, so only the power is computed anew at every block."""
    data = specification.data
    moved = data.training.ciphertext_bytes + data.test.ciphertext_bytes
    network = network_difficulty(model_bytes(specification.model), moved, ranking.median_bytes_per_second)
    flops = training_flops_per_sample(specification.model) * data.training.rows
    return network, computation_difficulty(flops, ranking.median_flops_per_second)
