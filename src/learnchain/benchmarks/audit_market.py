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

from learnchain.consensus import audits
from learnchain.encoding.codec import WEI_PER_GWEI, Address, Hash32
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.engines import DEFAULT_ENGINE
from learnchain.engines.registry import find_engine
from learnchain.protocol import audit_messages
from learnchain.protocol.events import AuditMessageReceived, DisputeMessageReceived, Event, EvidenceReported
from learnchain.protocol.messages import AnyBlock, Block
from learnchain.protocol.payload import SettlementOutcome
from learnchain.protocol.state import DisputeOutcome, HeightRecord
from learnchain.rejection import Rejected
from learnchain.simulation import dispute_cases, scenario
from learnchain.simulation.chain_builder import MACHINE_CLASS, STATES, ChainBuilder, build_sample_parameters
from learnchain.simulation.sample_tasks import address, private_key_of

STAKE_WEI = 10**18
"""What every auditor stakes at first, so that guessing and accusing have something to lose."""


class AgentKind(StrEnum):
    """Say how somebody plays."""

    HONEST = "honest auditor"
    LAZY = "lazy auditor"
    """Says "fine" of everything and keeps silent when it is asked for its steps."""
    OPPORTUNIST = "opportunist auditor"
    """Names the forced errors, which costs nothing to know, and trains only when it is asked for its steps."""
    GRIEFER = "griefer"
    """Asks honest people for their steps and proves nothing."""
    MINER = "honest miner"
    FORGER = "forging miner"
    """Now and then commits to a segment that it did not train."""


AUDITING_KINDS = (AgentKind.HONEST, AgentKind.LAZY, AgentKind.OPPORTUNIST)
STAKED_KINDS = (*AUDITING_KINDS, AgentKind.GRIEFER)


@dataclass(slots=True)
class Agent:
    """Count what one player did and what it came to; `held_gwei` is pay that evidence can still take."""

    name: str
    kind: AgentKind
    wins: int = 0
    reports: int = 0
    refused_reports: int = 0
    replayed_segments: int = 0
    challenges: int = 0
    responses: int = 0
    forged_segments: int = 0
    minted_gwei: int = 0
    claimed_gwei: int = 0
    withheld_gwei: int = 0
    reports_by_key: dict[tuple[int, Hash32], audit_messages.AuditReport] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Return the player's address."""
        return address(self.name)

    def stake_change_gwei(self, node: scenario.ScenarioNode) -> int:
        """Return what became of the stake: 0 while it is whole, negative once a part is slashed."""
        if self.kind not in STAKED_KINDS:
            return 0
        return (node.parent.bonds.deposit(self.address).total_wei - STAKE_WEI) // WEI_PER_GWEI

    def net_gwei(self, node: scenario.ScenarioNode) -> int:
        """Return what the player has more than at first: payouts, claims against slashed bonds, and its stake."""
        return self.minted_gwei + self.claimed_gwei + self.stake_change_gwei(node)

    def count_penalties(self, node: scenario.ScenarioNode, offenders: dict[Address, int]) -> int:
        """Return how often the player was punished."""
        return offenders.get(self.address, 0)

    def record_block(self, node: scenario.ScenarioNode, block: AnyBlock) -> None:
        """Count what a block brought."""
        if isinstance(block, Block):
            self.wins += block.proposer == self.address
            self.reports += sum(each.auditor == self.address for each in block.audit_reports)
        self.challenges += sum(each.challenger == self.address for each in block.challenges)
        self.responses += sum(each.respondent == self.address for each in block.responses)
        state = node.parent
        self.minted_gwei += sum(each.amount_gwei for each in state.reward.payouts if each.recipient == self.address)
        claimed = (each for each in state.reward.settlements if each.outcome is SettlementOutcome.SLASHED)
        self.claimed_gwei += sum(each.amount_wei for each in claimed if each.recipient == self.address) // WEI_PER_GWEI
        self.withheld_gwei = sum(each.amount_gwei for each in state.bonds.withheld if each.miner == self.address)

    def report(self, node: scenario.ScenarioNode, slashed: int) -> dict[str, Any]:
        """Return the player's figures."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "wins": self.wins,
            "reports": self.reports,
            "refused_reports": self.refused_reports,
            "replayed_segments": self.replayed_segments,
            "challenges": self.challenges,
            "responses": self.responses,
            "forged_segments": self.forged_segments,
            "slashed": slashed,
            "minted_gwei": self.minted_gwei,
            "claimed_gwei": self.claimed_gwei,
            "withheld_gwei": self.withheld_gwei,
            "stake_gwei": self.stake_change_gwei(node),
            "net_gwei": self.net_gwei(node),
        }


AGENTS = (
    ("node-1", AgentKind.HONEST),
    ("node-2", AgentKind.HONEST),
    ("node-3", AgentKind.LAZY),
    ("node-4", AgentKind.OPPORTUNIST),
    ("miner-7", AgentKind.GRIEFER),
    ("miner-1", AgentKind.MINER),
    ("miner-2", AgentKind.MINER),
    ("miner-3", AgentKind.FORGER),
)

BOND_WEI = 2 * 10**18
"""What a commitment promises: all that its block pays, so that forging puts the whole reward at stake."""


def simulate_audits(blocks: int, seed: int) -> dict[str, Any]:
    """Play so many trained blocks; return what each player did and has, and the earnings after every block."""
    parameters = build_sample_parameters(minimum_commitment_bond_wei=BOND_WEI)
    node = scenario.start_from_genesis(ChainBuilder(find_engine(DEFAULT_ENGINE).kind(), parameters))
    players = [Agent(name, kind) for name, kind in AGENTS]
    dispute_cases.stake_challenger(node, *(each.name for each in players if each.kind in STAKED_KINDS))
    random, miners = Random(seed), [each for each in players if each.kind in (AgentKind.MINER, AgentKind.FORGER)]
    offenders: Counter[Address] = Counter()
    curve: list[list[int]] = []
    for _ in range(blocks):
        _send_messages(node, players, random)
        won, rival = random.sample(miners, 2)
        block = scenario.run_height(node, scenario.HeightPlan({won.name: 95 + random.randrange(5), rival.name: 90}))
        if won.kind is AgentKind.FORGER and random.random() < 0.5:
            won.forged_segments += 1
            trace = node.builder.traces[block.reveal.training.state_root]
            node.builder.untrained.add(trace[1 + random.randrange(STATES - 1)].digest)
        offenders.update(_count_penalised(node, block))
        for player in players:
            player.record_block(node, block)
        for player in random.sample(players, len(players)):
            if player.kind is AgentKind.HONEST:
                _check_others(node, player, block)
        curve.append([each.net_gwei(node) for each in players])
    ledger = node.parent.ledger
    return {
        "blocks": blocks,
        "seed": seed,
        "fee_gwei": node.builder.parameters.audit_reward_gwei,
        "reward_gwei": node.builder.parameters.block_reward_gwei,
        "cost_gwei": node.builder.parameters.challenge_cost_gwei,
        "players": [each.report(node, offenders[each.address]) for each in players],
        "curve_gwei": curve,
        "audited_gwei": ledger.audited_gwei,
        "forfeited_gwei": ledger.forfeited_gwei,
    }


def _count_penalised(node: scenario.ScenarioNode, block: Block) -> Counter[Address]:
    """Count who was punished by a block: by its evidence, or for silence."""
    found = Counter(each.offender for each in block.evidence)
    silent = (each for each in node.parent.bonds.disputes if each.outcome is DisputeOutcome.TIMED_OUT)
    found.update(each.respondent for each in silent if each.decided_height == block.height)
    return found


def _send_messages(node: scenario.ScenarioNode, players: list[Agent], random: Random) -> None:
    """Let everybody say what it has to say before the next block."""
    for player in random.sample(players, len(players)):
        if player.kind in AUDITING_KINDS:
            _open(node, player)
            _commit(node, player, random)
        elif player.kind is AgentKind.GRIEFER and random.random() < 0.3:
            _challenge_honest(node, player, players, random)
    _respond_to_challenges(node, {each.address: each for each in players}, random)


def _feed_if_valid(node: scenario.ScenarioNode, event: Event) -> bool:
    """Feed an event; somebody else may have been first, or it may come too late."""
    try:
        node.feed(event)
    except Rejected:
        return False
    return True


# --- auditors ----------------------------------------------------------------------------------------------------


def _open(node: scenario.ScenarioNode, player: Agent) -> None:
    book, parameters, height = node.parent.bonds, node.builder.parameters, node.parent.height + 1
    for report in tuple(player.reports_by_key.values()):
        try:
            audits.check_audit_report(book, report, height, parameters)
        except Rejected as error:
            player.refused_reports += error.detail == "a forced error was called reproduced"
            continue
        _feed_if_valid(node, AuditMessageReceived(report, node.parent.end_milliseconds))


def _commit(node: scenario.ScenarioNode, player: Agent, random: Random) -> None:
    book, parameters, height = node.parent.bonds, node.builder.parameters, node.parent.height + 1
    for fact in book.height_records:
        key = (fact.height, fact.parent)
        given = audits.assign_segments(book, fact, player.address, parameters) if fact.training_records else None
        if given is None or key in player.reports_by_key:
            continue
        report = _report(node, player, fact, given, random)
        place = (parameters.chain_id, fact.height, fact.parent, player.address)
        draft = audit_messages.AuditCommitment(*place, audit_messages.report_digest(report), MACHINE_CLASS, UNSIGNED)
        commitment = sign(draft, private_key_of(player.address))
        try:
            audits.check_audit_commitment(book, commitment, height, parameters)
        except Rejected:
            continue
        _feed_if_valid(node, AuditMessageReceived(commitment, node.parent.end_milliseconds))
        player.reports_by_key[key] = report
        if player.kind is AgentKind.HONEST:
            _challenge_winner(node, player, fact, given, report)


def _report(
    node: scenario.ScenarioNode, player: Agent, fact: HeightRecord, given: audits.AuditAssignment, random: Random
) -> audit_messages.AuditReport:
    lines = tuple(_audit_segment(node, player, fact, given, segment, random) for segment in given.sample.indices)
    chain_id = node.builder.parameters.chain_id
    report = audit_messages.AuditReport(
        chain_id, fact.height, fact.parent, player.address, lines, random.randbytes(32), UNSIGNED
    )
    return sign(report, private_key_of(player.address))


def _audit_segment(
    node: scenario.ScenarioNode,
    player: Agent,
    fact: HeightRecord,
    given: audits.AuditAssignment,
    segment: int,
    random: Random,
) -> audit_messages.AuditedSegment:
    """Replay a segment, or make something up."""
    forced = segment in given.forced
    if player.kind is not AgentKind.HONEST:
        return audit_messages.AuditedSegment(segment, not forced or player.kind is AgentKind.LAZY, random.randbytes(32))
    player.replayed_segments += 1
    trained = scenario.open_winner_segment(node.builder, fact, segment).following.digest not in node.builder.untrained
    return audit_messages.AuditedSegment(
        segment, trained and not forced, scenario.true_middle_state_hash(node.builder, fact, given, segment)
    )


def _challenge_winner(
    node: scenario.ScenarioNode,
    player: Agent,
    fact: HeightRecord,
    given: audits.AuditAssignment,
    report: audit_messages.AuditReport,
) -> None:
    """Ask for the steps of what replaying did not come to."""
    for line in report.segments:
        if not line.reproduced and line.segment not in given.forced:
            accusation = dispute_cases.build_challenge(fact, line.segment, player.name)
            _feed_if_valid(node, DisputeMessageReceived(accusation, node.parent.end_milliseconds))


def _check_others(node: scenario.ScenarioNode, player: Agent, block: Block) -> None:
    """Replay what others reported in a block, and ask them for the steps of what they cannot have trained."""
    book, builder = node.parent.bonds, node.builder
    for report in block.audit_reports:
        fact = book.height_record(report.height, report.parent)
        if report.auditor == player.address or fact is None:
            continue
        player.replayed_segments += len(report.segments)
        given = audits.assign_segments(book, fact, report.auditor, builder.parameters)
        if given is None:
            continue
        for line in report.segments:
            if line.middle_state_hash != scenario.true_middle_state_hash(builder, fact, given, line.segment):
                accusation = dispute_cases.build_challenge(fact, line.segment, player.name, respondent=report.auditor)
                _feed_if_valid(node, DisputeMessageReceived(accusation, node.parent.end_milliseconds))
                break
    for answer in block.responses:
        _prove(node, player, answer)


def _prove(node: scenario.ScenarioNode, player: Agent, answer: audit_messages.ChallengeResponse) -> None:
    """Look at the steps that somebody showed; bring a proof if they are no training, or not what was reported."""
    book, builder = node.parent.bonds, node.builder
    fact = book.height_record(answer.height, answer.parent)
    if fact is None:
        return
    at, root = node.parent.end_milliseconds, answer.disclosure.root
    if answer.respondent == fact.winner:
        if root in builder.impossible:
            evidence = dispute_cases.build_forgery_evidence(
                node, answer, audits.AuditFinding.FAULT_OUT_OF_BOUNDS, player.name
            )
            _feed_if_valid(node, EvidenceReported(evidence, at))
        return
    given = audits.assign_segments(book, fact, answer.respondent, builder.parameters)
    report = _find_opened_report(node, answer)
    if given is None or report is None:
        return
    line = next(each for each in report.segments if each.segment == answer.disclosure.segment)
    if not audits.is_report_supported(
        line, answer.opening, scenario.true_start_hash(answer.opening, given), builder.steps[root]
    ):
        evidence = dispute_cases.build_false_report_evidence(
            node, report, answer, audits.AuditFinding.FAULT_STEP_CHAIN, player.name
        )
        _feed_if_valid(node, EvidenceReported(evidence, at))


def _find_opened_report(
    node: scenario.ScenarioNode, answer: audit_messages.ChallengeResponse
) -> audit_messages.AuditReport | None:
    """Return the report that an accused auditor opened, from the blocks."""
    for record in node.round.tree.records.values():
        for report in record.block.audit_reports if isinstance(record.block, Block) else ():
            if audit_messages.report_digest(report) == answer.disclosure.commitment:
                return report
    return None


# --- the accused, and whoever accuses without a reason -----------------------------------------------------------


def _respond_to_challenges(node: scenario.ScenarioNode, players: dict[Address, Agent], random: Random) -> None:
    """Let the accused show their steps: honest ones at once, forgers made up ones or none, lazy auditors none."""
    book = node.parent.bonds
    for dispute in book.disputes:
        player, fact = players[dispute.respondent], book.height_record(dispute.height, dispute.parent)
        if dispute.outcome is not DisputeOutcome.CHALLENGED or fact is None or player.kind is AgentKind.LAZY:
            continue
        opening = scenario.open_winner_segment(node.builder, fact, dispute.segment)
        steps = ()
        if player.kind is AgentKind.FORGER and opening.following.digest in node.builder.untrained:
            if random.random() < 0.5:
                continue
            steps = dispute_cases.forge_steps(node, dispute)
        _feed_if_valid(
            node,
            DisputeMessageReceived(dispute_cases.build_response(node, dispute, steps), node.parent.end_milliseconds),
        )


def _challenge_honest(node: scenario.ScenarioNode, griefer: Agent, players: list[Agent], random: Random) -> None:
    """Ask an honest winner or auditor for the steps of any segment."""
    book = node.parent.bonds
    honest = {each.address for each in players if each.kind in (AgentKind.HONEST, AgentKind.MINER)}
    places = [(each.height, each.parent, each.winner) for each in book.height_records if each.winner in honest]
    places += [(each.height, each.parent, each.auditor) for each in book.audits if each.auditor in honest]
    if not places:
        return
    height, parent, accused = random.choice(places)
    fact = book.height_record(height, parent)
    if fact is not None:
        accusation = dispute_cases.build_challenge(fact, random.randrange(STATES - 1), griefer.name, respondent=accused)
        _feed_if_valid(node, DisputeMessageReceived(accusation, node.parent.end_milliseconds))


# --- the benchmark -----------------------------------------------------------------------------------------------


def audit_market() -> dict[str, Any]:
    """Play 200 blocks with honest and lazy auditors, a griefer, honest miners and a forger; say what each has."""
    result = simulate_audits(200, 4)
    figures = []
    for each in result["players"]:
        mines = each["kind"] in (AgentKind.MINER, AgentKind.FORGER)
        share = (each["net_gwei"] + each["withheld_gwei"]) / (max(1, each["wins"]) * result["reward_gwei"])
        did = ", ".join(
            f"{each[what]} {what}" for what in ("wins", "forged_segments", "reports", "challenges", "responses")
        )
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
