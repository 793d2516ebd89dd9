"""The players of the audit market: what each of them has, and what became of it.

Play the audit market over many blocks through the real spine: who is honest earns, who guesses, forges or harasses
loses.

Training is made up, so a replay is a look into the builder's world; the rules that pay and punish are the ones that
run in a node. The figures are of a simulation: seed and blocks are part of them.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from learnchain.consensus.audits import Assignment, AuditFinding, agrees, assignment, check_commitment, check_report
from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.encoding.numbers import WEI_PER_GWEI
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.audit_messages import AuditCommitment, AuditedSegment, AuditReport, report_digest
from learnchain.protocol.dispute_messages import DisputeAnswer
from learnchain.protocol.events import AuditMade, Disputed, Event, EvidenceReported
from learnchain.protocol.messages import AnyBlock, Block
from learnchain.protocol.payload import Outcome
from learnchain.protocol.state import DisputeOutcome, RoundFact
from learnchain.rejection import Rejected
from learnchain.simulation.chain_builder import CLASS, STATES, ChainBuilder, sample_parameters
from learnchain.simulation.dispute_cases import (
    accusation_of,
    answer_to,
    falsehood,
    forged_steps,
    forgery,
    staked_accuser,
)
from learnchain.simulation.sample_tasks import address, private_key_of
from learnchain.simulation.scenario import (
    Observer,
    Plan,
    observe,
    opened_segment,
    play_height,
    true_start,
    true_witness,
)

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


CAST = (
    ("node-1", Kind.HONEST),
    ("node-2", Kind.HONEST),
    ("node-3", Kind.LAZY),
    ("node-4", Kind.SHREWD),
    ("miner-7", Kind.GRIEFER),
    ("miner-1", Kind.MINER),
    ("miner-2", Kind.MINER),
    ("miner-3", Kind.FORGER),
)


BOND_WEI = 2 * 10**18
"""What a commitment promises: all that its block pays, so that forging puts the whole reward at stake."""


def play_audits(blocks: int, seed: int) -> dict[str, Any]:
    """Play so many trained blocks; return what each player did and has, and the earnings after every block."""
    node = observe(ChainBuilder(Dlbc(), sample_parameters(minimum_commitment_bond_wei=BOND_WEI)))
    players = [Player(name, kind) for name, kind in CAST]
    staked_accuser(node, *(each.name for each in players if each.kind in STAKED))
    random, miners = Random(seed), [each for each in players if each.kind in (Kind.MINER, Kind.FORGER)]
    offenders: Counter[Address] = Counter()
    curve: list[list[int]] = []
    for _ in range(blocks):
        _send_messages(node, players, random)
        won, rival = random.sample(miners, 2)
        block = play_height(node, Plan({won.name: 95 + random.randrange(5), rival.name: 90}))
        if won.kind is Kind.FORGER and random.random() < 0.5:
            won.forged += 1
            _forge(node, block, random)
        offenders.update(_count_penalised(node, block))
        for player in players:
            player.book(node, block)
        for player in random.sample(players, len(players)):
            if player.kind is Kind.HONEST:
                _check_others(node, player, block)
        curve.append([each.net_gwei(node) for each in players])
    ledger = node.parent.ledger
    return {
        "blocks": blocks,
        "seed": seed,
        "fee_gwei": node.builder.parameters.audit_reward_gwei,
        "reward_gwei": node.builder.parameters.block_reward_gwei,
        "cost_gwei": node.builder.parameters.accusation_cost_gwei,
        "players": [each.told(node, offenders[each.address]) for each in players],
        "curve_gwei": curve,
        "audited_gwei": ledger.audited_gwei,
        "forfeited_gwei": ledger.forfeited_gwei,
    }


def _forge(node: Observer, block: Block, random: Random) -> None:
    """Have the winner commit to a segment that it did not train."""
    trace = node.builder.traces[block.reveal.training.state_root]
    node.builder.untrained.add(trace[1 + random.randrange(STATES - 1)].digest)


def _count_penalised(node: Observer, block: Block) -> Counter[Address]:
    """Count who was punished by a block: by its evidence, or for silence."""
    found = Counter(each.offender for each in block.evidence)
    silent = (each for each in node.parent.bonds.disputes if each.outcome is DisputeOutcome.UNANSWERED)
    found.update(each.accused for each in silent if each.decided_height == block.height)
    return found


def _send_messages(node: Observer, players: list[Player], random: Random) -> None:
    """Let everybody say what it has to say before the next block."""
    for player in random.sample(players, len(players)):
        if player.kind in AUDITING:
            _open(node, player)
            _commit(node, player, random)
        elif player.kind is Kind.GRIEFER and random.random() < 0.3:
            _challenge_honest(node, player, players, random)
    _respond_to_challenges(node, {each.address: each for each in players}, random)


def _feed_if_valid(node: Observer, event: Event) -> bool:
    """Feed an event; somebody else may have been first, or it may come too late."""
    try:
        node.feed(event)
    except Rejected:
        return False
    return True


# --- auditors ----------------------------------------------------------------------------------------------------


def _open(node: Observer, player: Player) -> None:
    book, parameters, height = node.parent.bonds, node.builder.parameters, node.parent.height + 1
    for report in tuple(player.reports_by_key.values()):
        try:
            check_report(book, report, height, parameters)
        except Rejected as error:
            player.refused += error.detail == "a forced error was called reproduced"
            continue
        _feed_if_valid(node, AuditMade(report, node.parent.end_milliseconds))


def _commit(node: Observer, player: Player, random: Random) -> None:
    book, parameters, height = node.parent.bonds, node.builder.parameters, node.parent.height + 1
    for fact in book.facts:
        key = (fact.height, fact.parent)
        given = assignment(book, fact, player.address, parameters) if fact.training else None
        if given is None or key in player.reports_by_key:
            continue
        report = _report(node, player, fact, given, random)
        place = (parameters.chain_id, fact.height, fact.parent, player.address)
        draft = AuditCommitment(*place, report_digest(report), CLASS, UNSIGNED)
        commitment = sign(draft, private_key_of(player.address))
        try:
            check_commitment(book, commitment, height, parameters)
        except Rejected:
            continue
        _feed_if_valid(node, AuditMade(commitment, node.parent.end_milliseconds))
        player.reports_by_key[key] = report
        if player.kind is Kind.HONEST:
            _challenge_winner(node, player, fact, given, report)


def _report(node: Observer, player: Player, fact: RoundFact, given: Assignment, random: Random) -> AuditReport:
    lines = tuple(_audit_segment(node, player, fact, given, segment, random) for segment in given.challenge.indices)
    chain_id = node.builder.parameters.chain_id
    report = AuditReport(chain_id, fact.height, fact.parent, player.address, lines, random.randbytes(32), UNSIGNED)
    return sign(report, private_key_of(player.address))


def _audit_segment(
    node: Observer, player: Player, fact: RoundFact, given: Assignment, segment: int, random: Random
) -> AuditedSegment:
    """Replay a segment, or make something up."""
    forced = segment in given.forced
    if player.kind is not Kind.HONEST:
        return AuditedSegment(segment, not forced or player.kind is Kind.LAZY, random.randbytes(32))
    player.replayed_segments += 1
    trained = opened_segment(node.builder, fact, segment).following.digest not in node.builder.untrained
    return AuditedSegment(segment, trained and not forced, true_witness(node.builder, fact, given, segment))


def _challenge_winner(node: Observer, player: Player, fact: RoundFact, given: Assignment, report: AuditReport) -> None:
    """Ask for the steps of what replaying did not come to."""
    for line in report.lines:
        if not line.reproduced and line.segment not in given.forced:
            accusation = accusation_of(fact, line.segment, player.name)
            _feed_if_valid(node, Disputed(accusation, node.parent.end_milliseconds))


def _check_others(node: Observer, player: Player, block: Block) -> None:
    """Replay what others reported in a block, and ask them for the steps of what they cannot have trained."""
    book, builder = node.parent.bonds, node.builder
    for report in block.audit_reports:
        fact = book.fact(report.height, report.parent)
        if report.auditor == player.address or fact is None:
            continue
        player.replayed_segments += len(report.lines)
        given = assignment(book, fact, report.auditor, builder.parameters)
        if given is None:
            continue
        for line in report.lines:
            if line.witness != true_witness(builder, fact, given, line.segment):
                accusation = accusation_of(fact, line.segment, player.name, accused=report.auditor)
                _feed_if_valid(node, Disputed(accusation, node.parent.end_milliseconds))
                break
    for answer in block.answers:
        _prove(node, player, answer)


def _prove(node: Observer, player: Player, answer: DisputeAnswer) -> None:
    """Look at the steps that somebody showed; bring a proof if they are no training, or not what was reported."""
    book, builder = node.parent.bonds, node.builder
    fact = book.fact(answer.height, answer.parent)
    if fact is None:
        return
    at, root = node.parent.end_milliseconds, answer.answer.root
    if answer.accused == fact.winner:
        if root in builder.impossible:
            evidence = forgery(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS, player.name)
            _feed_if_valid(node, EvidenceReported(evidence, at))
        return
    given = assignment(book, fact, answer.accused, builder.parameters)
    report = _find_opened_report(node, answer)
    if given is None or report is None:
        return
    line = next(each for each in report.lines if each.segment == answer.answer.segment)
    if not agrees(line, answer.opening, true_start(answer.opening, given), builder.steps[root]):
        evidence = falsehood(node, report, answer, AuditFinding.FAULT_STEP_CHAIN, player.name)
        _feed_if_valid(node, EvidenceReported(evidence, at))


def _find_opened_report(node: Observer, answer: DisputeAnswer) -> AuditReport | None:
    """Return the report that an accused auditor opened, from the blocks."""
    for record in node.round.tree.records.values():
        for report in record.block.audit_reports if isinstance(record.block, Block) else ():
            if report_digest(report) == answer.answer.commitment:
                return report
    return None


# --- the accused, and whoever accuses without a reason -----------------------------------------------------------


def _respond_to_challenges(node: Observer, players: dict[Address, Player], random: Random) -> None:
    """Let the accused show their steps: honest ones at once, forgers made up ones or none, lazy auditors none."""
    book = node.parent.bonds
    for dispute in book.disputes:
        player, fact = players[dispute.accused], book.fact(dispute.height, dispute.parent)
        if dispute.outcome is not DisputeOutcome.ASKED or fact is None or player.kind is Kind.LAZY:
            continue
        opening = opened_segment(node.builder, fact, dispute.segment)
        steps = ()
        if player.kind is Kind.FORGER and opening.following.digest in node.builder.untrained:
            if random.random() < 0.5:
                continue
            steps = forged_steps(node, dispute)
        _feed_if_valid(node, Disputed(answer_to(node, dispute, steps), node.parent.end_milliseconds))


def _challenge_honest(node: Observer, griefer: Player, players: list[Player], random: Random) -> None:
    """Ask an honest winner or auditor for the steps of any segment."""
    book = node.parent.bonds
    honest = {each.address for each in players if each.kind in (Kind.HONEST, Kind.MINER)}
    places = [(each.height, each.parent, each.winner) for each in book.facts if each.winner in honest]
    places += [(each.height, each.parent, each.auditor) for each in book.audits if each.auditor in honest]
    if not places:
        return
    height, parent, accused = random.choice(places)
    fact = book.fact(height, parent)
    if fact is not None:
        accusation = accusation_of(fact, random.randrange(STATES - 1), griefer.name, accused=accused)
        _feed_if_valid(node, Disputed(accusation, node.parent.end_milliseconds))


# --- the benchmark -----------------------------------------------------------------------------------------------


def audit_market() -> dict[str, Any]:
    """Play 200 blocks with honest and lazy auditors, a griefer, honest miners and a forger; say what each has."""
    result = play_audits(200, 4)
    figures = []
    for each in result["players"]:
        mines = each["kind"] in (Kind.MINER, Kind.FORGER)
        share = (each["net_gwei"] + each["held_gwei"]) / (max(1, each["wins"]) * result["reward_gwei"])
        did = ", ".join(f"{each[what]} {what}" for what in ("wins", "forged", "reports", "accusations", "answers"))
        figures.append(
            {
                "what": f"{each['kind']} {each['name']}: {did}, slashed {each['slashed']} times: earned - lost",
                "value": each["net_gwei"],
                "unit": "gwei, simulated",
                "ratio": round(share if mines else each["net_gwei"] / result["fee_gwei"], 4),
                "against": "a block reward a win, what is kept back included" if mines else "one audit fee",
            }
        )
    return {"name": "audit_market", "figures": figures, "seed": result["seed"], "blocks": result["blocks"]}


BENCHMARKS = {"audit_market": audit_market}
