"""What consensus decided about a task's money, in the bytes that the contract recomputes (ROUND-13)."""

from dataclasses import dataclass
from enum import StrEnum

from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.hashing import keccak256

_WORD_BYTES = 32


class Outcome(StrEnum):
    """Say where the money goes; `code` is the number that the contract knows."""

    PAID = "paid"
    """The reward to the winner; the publisher's bond leaves, slashable until the contract's delay is over."""
    REFUNDED = "refunded"
    """The reward back to the publisher; the bond leaves as above."""
    STRUCK = "struck"
    """The reward back to the publisher, whose bond is lost: `amount_wei` of it to those whom leaves of their own name,
    the rest to the recipient; recipient zero burns it."""
    SLASHED = "slashed"
    """`amount_wei` out of a pot to the recipient; the pot is a struck task's, or belongs to an owner of a bond."""

    @property
    def code(self) -> int:
        """Return the outcome's number in `TaskEscrow`."""
        return _CODES[self]


_CODES = {Outcome.PAID: 1, Outcome.REFUNDED: 2, Outcome.STRUCK: 3, Outcome.SLASHED: 5}
OUTCOMES_BY_CODE = {code: outcome for outcome, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class Settlement:
    """Settle one task, or take from one bond, at one height: a leaf of the history that later block roots accumulate.

    `task_id` names the pot of a `SLASHED` settlement: `bond_pot(owner)`, or the task whose bond was struck.
    """

    task_id: Hash32
    height: int
    recipient: Address
    outcome: Outcome
    amount_wei: int = 0

    def leaf(self, chain_id: int, escrow: Address) -> Hash32:
        """Return the leaf: Keccak over seven ABI words, bound to one chain and contract: it claims nowhere else."""
        words = (
            chain_id.to_bytes(_WORD_BYTES, "big"),
            escrow.rjust(_WORD_BYTES, b"\0"),
            self.task_id,
            self.height.to_bytes(_WORD_BYTES, "big"),
            self.recipient.rjust(_WORD_BYTES, b"\0"),
            self.outcome.code.to_bytes(_WORD_BYTES, "big"),
            self.amount_wei.to_bytes(_WORD_BYTES, "big"),
        )
        return keccak256(b"".join(words))


def bond_pot(owner: Address) -> Hash32:
    """Return the name of an owner's bond in the contract; a task's pot has the task's identifier."""
    return owner.rjust(_WORD_BYTES, b"\0")


def consensus_root(history_root: Hash32, block_hash: Hash32) -> Hash32:
    """Return the next payload's parent beacon block root, which the escrow checks claims against."""
    return keccak256(history_root + block_hash)
