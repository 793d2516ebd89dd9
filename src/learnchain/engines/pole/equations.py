"""What the losers of a height earn, and out of what (PoLe 3.5, Equation 2; readings POLE-R3, R17).

The block header as PoLe 3.3 lists it, read off a block of the spine.
"""

from dataclasses import dataclass
from enum import StrEnum

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.hashing import message_hash, tagged_hash
from learnchain.engines.pole.parts import list_cited_losers, read_mapped_training
from learnchain.protocol.citations import equation
from learnchain.protocol.messages import Block
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_DEPTH = 6
"""Heights after which an ommer is too old to be cited."""

REFERRER_DIVISOR = 32
"""Who cites an ommer earns this part of the block reward."""

THOUSAND = 1_000


class OmmerFormula(StrEnum):
    """Choose how Equation 2 is read: its printed form grows with the height of the chain (POLE-R3)."""

    FRACTION = "fraction"
    LITERAL = "literal"


class OmmerFunding(StrEnum):
    """Choose who pays an ommer: the winner of its own height, or everybody by new coins (POLE-R17)."""

    WINNER = "winner"
    MINTED = "minted"


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


@dataclass(frozen=True, slots=True)
class OmmerShares:
    """Say where the coins of a cited ommer go: to the loser, and to who cites it."""

    loser_gwei: int
    referrer_gwei: int


@dataclass(frozen=True, slots=True)
class OmmerRules:
    """Hold how ommers are paid; `pool_thousandths` of the block reward is what Eq. 2 divides when the winner pays.

    A quarter keeps the winner's part above every ommer's, so that losing never pays better than winning.
    """

    formula: OmmerFormula = OmmerFormula.FRACTION
    funding: OmmerFunding = OmmerFunding.WINNER
    pool_thousandths: int = 250

    def check(self) -> None:
        """Refuse a pool that leaves the winner less than an ommer."""
        if not 0 <= self.pool_thousandths <= THOUSAND // 3:
            detail = f"{self.pool_thousandths} thousandths of the block reward for ommers: choose 0 to 333"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def withheld_gwei(self, block_reward_gwei: int) -> int:
        """Return what a winner that others committed beside does not get: the pool and the referrer's bonus."""
        if self.funding is OmmerFunding.MINTED:
            return 0
        return self._pool(block_reward_gwei) + block_reward_gwei // REFERRER_DIVISOR

    def shares(self, block_reward_gwei: int, winning_height: int, ommer_height: int, ommers: int) -> OmmerShares:
        """Return who gets what when an ommer is cited; what nobody earns of what a winner paid is never minted.

        Minted shares stay below one more block reward; shares that the winner pays stay within what it was withheld, so
        a height never mints more than R_w, whoever the identities belong to (POLE-R17).
        """
        bonus = block_reward_gwei // REFERRER_DIVISOR
        divided, most = block_reward_gwei, max(0, block_reward_gwei - bonus - 1)
        if self.funding is OmmerFunding.WINNER:
            divided = most = self._pool(block_reward_gwei)
        paid = min(ommer_reward(divided, winning_height, ommer_height, ommers, self.formula), most)
        return OmmerShares(paid, bonus)

    def _pool(self, block_reward_gwei: int) -> int:
        return block_reward_gwei * self.pool_thousandths // THOUSAND


@dataclass(frozen=True, slots=True)
class PoleHeader:
    """Hold the eight entries of 3.3; `merkle_root` covers the body: tasks, data links, transactions, test set."""

    block_id: Hash32
    winner: Address
    selected_task: Hash32
    previous_hash: Hash32
    trained_model: Cid
    training_correct: int
    training_total: int
    ommer_hash: Hash32
    merkle_root: Hash32


def build_header(block: Block) -> PoleHeader:
    """Return the header of 3.3; no ommer is cited where its hash is zeros (POLE-R19)."""
    training, cited = read_mapped_training(block.reveal.training), list_cited_losers(block)
    body = (*block.queued_tasks, block.payload_hash, message_hash(block.key_release), message_hash(block.release))
    return PoleHeader(
        block_id=message_hash(block),
        winner=block.proposer,
        selected_task=block.release.task_id,
        previous_hash=block.parent,
        trained_model=block.reveal.model_cid,
        training_correct=training.correct,
        training_total=training.total,
        ommer_hash=message_hash(cited[0]) if cited else b"\0" * 32,
        merkle_root=tagged_hash("pole/body", *body, message_hash(block.verdict)),
    )
