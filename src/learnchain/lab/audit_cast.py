"""The players of the audit market: what each of them has, and what became of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from learnchain.primitives.audit_messages import AuditReport
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.messages import AnyBlock, Block
from learnchain.primitives.numbers import WEI_PER_GWEI
from learnchain.primitives.settlement import Outcome
from learnchain.testing.play import Observer
from learnchain.testing.sample_tasks import address

STAKE_WEI = 10**18
"""What every auditor stakes at first, so that guessing and accusing have something to lose."""


class Kind(StrEnum):
    """Say how somebody plays."""

    HONEST = "honest auditor"
    LAZY = "lazy auditor"
    """Says "fine" of everything and keeps silent when it is asked for its steps."""
    SHREWD = "shrewd auditor"
    """Names the forced errors, which costs nothing to know, and trains only when it is asked for its steps."""
    GRIEFER = "griefer"
    """Asks honest people for their steps and proves nothing."""
    MINER = "honest miner"
    FORGER = "forging miner"
    """Now and then commits to a segment that it did not train."""


AUDITING = (Kind.HONEST, Kind.LAZY, Kind.SHREWD)
STAKED = (*AUDITING, Kind.GRIEFER)


@dataclass(slots=True)
class Player:
    """Count what one player did and what it came to; `held_gwei` is pay that evidence can still take."""

    name: str
    kind: Kind
    wins: int = 0
    reports: int = 0
    refused: int = 0
    replayed_segments: int = 0
    accusations: int = 0
    answers: int = 0
    forged: int = 0
    minted_gwei: int = 0
    claimed_gwei: int = 0
    held_gwei: int = 0
    reports_by_key: dict[tuple[int, Hash32], AuditReport] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Return the player's address."""
        return address(self.name)

    def lost_gwei(self, node: Observer) -> int:
        """Return what became of the stake: 0 while it is whole, negative once a part is slashed."""
        if self.kind not in STAKED:
            return 0
        return (node.parent.bonds.deposit(self.address).total_wei - STAKE_WEI) // WEI_PER_GWEI

    def net_gwei(self, node: Observer) -> int:
        """Return what the player has more than at first: payouts, claims against slashed bonds, and its stake."""
        return self.minted_gwei + self.claimed_gwei + self.lost_gwei(node)

    def punished(self, node: Observer, offenders: dict[Address, int]) -> int:
        """Return how often the player was punished."""
        return offenders.get(self.address, 0)

    def book(self, node: Observer, block: AnyBlock) -> None:
        """Count what a block brought."""
        if isinstance(block, Block):
            self.wins += block.proposer == self.address
            self.reports += sum(each.auditor == self.address for each in block.audit_reports)
        self.accusations += sum(each.accuser == self.address for each in block.accusations)
        self.answers += sum(each.accused == self.address for each in block.answers)
        state = node.parent
        self.minted_gwei += sum(each.amount_gwei for each in state.reward.payouts if each.recipient == self.address)
        claimed = (each for each in state.reward.settlements if each.outcome is Outcome.SLASHED)
        self.claimed_gwei += sum(each.amount_wei for each in claimed if each.recipient == self.address) // WEI_PER_GWEI
        self.held_gwei = sum(each.amount_gwei for each in state.bonds.withheld if each.miner == self.address)

    def told(self, node: Observer, slashed: int) -> dict[str, Any]:
        """Return the player's figures."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "wins": self.wins,
            "reports": self.reports,
            "refused": self.refused,
            "replayed_segments": self.replayed_segments,
            "accusations": self.accusations,
            "answers": self.answers,
            "forged": self.forged,
            "slashed": slashed,
            "minted_gwei": self.minted_gwei,
            "claimed_gwei": self.claimed_gwei,
            "held_gwei": self.held_gwei,
            "stake_gwei": self.lost_gwei(node),
            "net_gwei": self.net_gwei(node),
        }
