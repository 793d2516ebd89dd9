"""A03: a lone publisher of DLBC demands an accuracy that nobody reaches and takes minted coins for a refunded reward.

The publisher's share of the block reward (DLBC, Eq. 5) is capped by what was escrowed, not by what was paid. Escrow 2
coins for random labels, demand all of them right: the reward comes back, and the share is minted all the same.

Earns: 9.89 minted coins in five blocks; honest miners get 0.001 to 0.048 a block.
Kind: publishers; pure round with the chain builder (the real rules, justice and ledger).
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass, replace

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc.scenario import start_dlbc_node
from learnchain.protocol.payload import SettlementOutcome
from learnchain.protocol.state import PostedTask
from learnchain.simulation.sample_tasks import address, build_sample_specification, build_sample_task
from learnchain.simulation.scenario import HeightPlan, run_height

BLOCKS = 5
REWARD_WEI = 2 * WEI_PER_ETHER


@dataclass(frozen=True)
class PublisherShare:
    """What the publisher was paid, what it paid, and what the miners got."""

    minted_to_publisher_gwei: int
    minted_to_miners_gwei: int
    outcomes: frozenset[SettlementOutcome]
    rewards_paid_wei: int


def unreachable(name: str) -> PostedTask:
    """Return a task that asks for every one of its random labels."""
    specification = replace(build_sample_specification(name), required_numerator=1, required_denominator=1)
    return build_sample_task(name, REWARD_WEI, specification=specification)


def attack(blocks: int = BLOCKS) -> PublisherShare:
    """Publish one unreachable task a block, and let two honest miners do what they can."""
    node = start_dlbc_node()
    run_height(node, HeightPlan(posted_tasks=tuple(unreachable(f"random labels {index}") for index in range(blocks))))
    run_height(node)
    publisher, publisher_gwei, miners_gwei = address("publisher-1"), 0, 0
    outcomes: set[SettlementOutcome] = set()
    for _ in range(blocks):
        run_height(node, HeightPlan(correct={"miner-1": 60, "miner-2": 55}))
        reward = node.parent.reward
        publisher_gwei += sum(payout.amount_gwei for payout in reward.payouts if payout.recipient == publisher)
        miners_gwei += sum(payout.amount_gwei for payout in reward.payouts if payout.recipient != publisher)
        outcomes |= {settlement.outcome for settlement in reward.settlements}
    return PublisherShare(publisher_gwei, miners_gwei, frozenset(outcomes), node.parent.ledger.paid_wei)


def test_a_refunded_reward_earns_nearly_the_whole_block_reward() -> None:
    result = attack()
    assert result.outcomes == {SettlementOutcome.REFUNDED}
    assert result.rewards_paid_wei == 0
    assert result.minted_to_publisher_gwei > 9.8e9
    assert result.minted_to_miners_gwei < 0.2e9
