"""What the losers of a height earn (PoLe 3.5, Equation 2; reading POLE-R3)."""

from enum import StrEnum

from learnchain.primitives.citation import equation
from learnchain.primitives.rejection import Rejected, RejectionReason

MAXIMUM_DEPTH = 6
"""Heights after which an ommer is too old to be cited."""
REFERRER_DIVISOR = 32
"""Who cites an ommer earns this part of the block reward."""


class OmmerFormula(StrEnum):
    """Choose how Equation 2 is read: its printed form grows with the height of the chain (POLE-R3)."""

    FRACTION = "fraction"
    LITERAL = "literal"


@equation("pole", 2, r"R_r = R_w H_w - H_o * O_{num}")
def ommer_reward(
    block_reward_gwei: int,
    winning_height: int,
    ommer_height: int,
    ommers: int,
    formula: OmmerFormula = OmmerFormula.FRACTION,
) -> int:
    """Return R_r from R_w, H_w, H_o and O_num: a broken fraction by default, the printed line as variant (POLE-R3).

    The fraction R_w / ((H_w - H_o) * O_num) is floored and always below R_w for two ommers, at most R_w for one.
    """
    distance = winning_height - ommer_height
    if not 1 <= distance <= MAXIMUM_DEPTH or ommers < 1:
        detail = f"{ommers} ommers at height {ommer_height}, cited at {winning_height}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if formula is OmmerFormula.LITERAL:
        return max(0, block_reward_gwei * winning_height - ommer_height * ommers)
    return block_reward_gwei // (distance * ommers)


def citing_rewards(block_reward_gwei: int, distance: int, ommers: int) -> tuple[int, int]:
    """Return what a cited ommer and its referrer earn together: never as much as one more block.

    The ommer's part is capped by what is left of R_w beside the referrer's and one coin, so that a miner who commits
    under two identities never earns from a height what two heights would pay.
    """
    bonus = block_reward_gwei // REFERRER_DIVISOR
    paid = min(ommer_reward(block_reward_gwei, distance, 0, ommers), block_reward_gwei - bonus - 1)
    return max(0, paid), bonus


def second_identity_gain(block_reward_gwei: int, distance: int, ommers: int) -> int:
    """Return what a winner gains by losing to itself as well and citing that: its ommer's part and the bonus."""
    return sum(citing_rewards(block_reward_gwei, distance, ommers))
