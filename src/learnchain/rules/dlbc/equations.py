"""DLBC Equations 1 to 6, one function each; Equation 7 is a loss term and stands in `learning/watermark.py`.

Ratios are exact fractions; logarithms and powers run in the fixed decimal context of `primitives/numbers.py`.
"""

from decimal import Decimal
from fractions import Fraction

from learnchain.primitives.citation import equation
from learnchain.primitives.numbers import CONTEXT, logarithm, power, quantised

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
    return quantised(CONTEXT.divide(difficulty, Decimal(reward_wei)))


@equation("dlbc", 5, r"\text{block reward}_{publisher} = \max(0, 1 - (\frac{k \times l_i}{L})^2)")
def publisher_share(queue_length: int, estimated_maximum: int, scale_millionths: int) -> Fraction:
    """Return the publisher's share of the block reward: large while the list of tasks is short (DLBC-R7)."""
    filled = Fraction(scale_millionths * queue_length, MILLION * estimated_maximum)
    return max(Fraction(0), 1 - filled * filled)


@equation("dlbc", 6, r"\text{block reward}_{miner} = 1 - \text{block reward}_{publisher}")
def miner_share(publisher: Fraction) -> Fraction:
    """Return the miner's share of the block reward."""
    return 1 - publisher
