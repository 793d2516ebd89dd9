"""Losers that later blocks may cite: the best of a height, once, for six heights (PoLe 3.2, 3.5; POLE-R3, R17).

What is known of them travels in the engine's memory from block to block, so that every branch has its own.
"""

from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Accuracy, Address, Bound, Hash32, decode, encode
from learnchain.engines.pole.judging import MAXIMUM_DEPTH, OmmerRules
from learnchain.engines.pole.parts import list_cited_losers
from learnchain.protocol.messages import Block, CandidateOutcome, Payout


@dataclass(frozen=True, slots=True)
class Loser:
    """Remember the best loser of a height: its commitment, its miner and O_num."""

    height: int
    commitment: Hash32
    miner: Address
    ommers: int


@dataclass(frozen=True, slots=True)
class CitableLosers:
    """Hold the losers that may still be cited, oldest height first."""

    entries: Annotated[tuple[Loser, ...], Bound(MAXIMUM_DEPTH)] = ()


def decode_memory(memory: bytes) -> tuple[Loser, ...]:
    """Return the losers that a parent block remembers."""
    return decode(CitableLosers, memory).entries if memory else ()


def list_citable_commitments(memory: bytes, height: int) -> tuple[Hash32, ...]:
    """Return the commitments that the block of a height may cite; what is about to become too old comes first."""
    return tuple(each.commitment for each in decode_memory(memory) if 1 <= height - each.height <= MAXIMUM_DEPTH)


def find_best_loser(block: Block) -> Loser | None:
    """Return the loser with the highest test accuracy, ties to the lower commitment; O_num counts all (3.5)."""
    losers = [each for each in block.verdict.entries if each.outcome is CandidateOutcome.LOWER_CLAIM]
    if not losers:
        return None
    best = min(losers, key=lambda each: (-Accuracy(each.claim_correct, each.claim_total).share, each.commitment))
    return Loser(block.height, best.commitment, best.miner, len(losers))


def settle_losers(
    rules: OmmerRules, reward_gwei: int, memory: bytes, height: int, block: Block | None
) -> tuple[tuple[Payout, ...], tuple[Loser, ...]]:
    """Return what a block pays for the losers that it cites, and those that may still be cited after it."""
    paid: list[Payout] = []
    kept: list[Loser] = []
    cited = {each.height: each.miner for each in list_cited_losers(block)}
    for each in decode_memory(memory):
        if block is not None and cited.get(each.height) == each.miner:
            shares = rules.shares(reward_gwei, height, each.height, each.ommers)
            paid.append(Payout(each.miner, shares.loser_gwei, "ommer reward"))
            paid.append(Payout(block.proposer, shares.referrer_gwei, "referrer bonus"))
        elif height + 1 - each.height <= MAXIMUM_DEPTH:
            kept.append(each)
    return tuple(each for each in paid if each.amount_gwei), tuple(kept)


def encode_memory(entries: tuple[Loser, ...]) -> bytes:
    """Return the memory that holds these losers; nothing where there are none."""
    return encode(CitableLosers(entries)) if entries else b""
