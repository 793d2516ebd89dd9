"""Play heights of PoLe, to the time limit too, and list every wrong event that a PoLe chain must refuse."""

from dataclasses import replace

from learnchain.encoding.codec import encode
from learnchain.engines.pole import INTERPRETATIONS, Pole, mapping
from learnchain.engines.pole.judging import OmmerFormula, OmmerFunding, OmmerRules, build_header, ommer_reward
from learnchain.engines.pole.mapping import MappingLayer, MappingMode, Shift, layer_shape
from learnchain.engines.pole.parts import Waiver, read_mapped_training
from learnchain.engines.pole.rules import PoleDurations
from learnchain.protocol import events
from learnchain.protocol.actions import ProposeBlock
from learnchain.protocol.messages import Block, Deadline, TrainedModel, commitment_digest, work_id
from learnchain.rejection import RejectionReason
from learnchain.simulation import scenario
from learnchain.simulation.chain_builder import Candidate, ChainBuilder, alter, build_sample_parameters
from learnchain_conformance.bad_disputes import BAD_DISPUTE_NAMES
from learnchain_conformance.bad_inputs import BAD_INPUTS, BadInput, CandidatePair, Make
from learnchain_conformance.engine_scenarios import EngineScenario

POLE = Pole(
    times=PoleDurations(60_000, 60_000, 600_000, 15_000, 15_000, 35_000, 60_000, 2),
    layer=MappingLayer(MappingMode.DENSE, 3, Shift.TRUNCATE, 3, False, 1),
    ommers=OmmerRules(OmmerFormula.FRACTION, OmmerFunding.WINNER, 250),
    open_broadcast=False,
)
"""Every number is written out: a changed default must not change a vector."""

OPEN_BROADCAST = replace(POLE, open_broadcast=True)
THREE_SOLUTIONS = scenario.HeightPlan({"miner-1": 95, "miner-2": 93, "miner-3": 60})

UNABLE = 300
"""Of 400 training rows: below the nine tenths that the sample task requires."""


def start_pole_node(engine: Pole = POLE, **parameters: int) -> scenario.ScenarioNode:
    """Return a fresh node on the sample chain under PoLe."""
    return scenario.start_from_genesis(ChainBuilder(engine, build_sample_parameters(**parameters)))


def run_to_limit(node: scenario.ScenarioNode, plan: scenario.HeightPlan) -> Block:
    """Play a height that nobody ends before its time limit: everybody commits then; return the block."""
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(events.KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    found = scenario.build_candidates(node, plan)
    for each in found:
        node.feed(events.CommitmentReceived(each.commitment, schedule.time_limit_milliseconds))
    late = schedule.time_limit_milliseconds - schedule.release_opens_milliseconds
    announcement = node.builder.build_announcement(parent, found, late)
    node.feed(events.ReleaseReceived(announcement, announcement.release.released_milliseconds))
    proposal = next(each for each in scenario.reveal_models(node, plan, found) if isinstance(each, ProposeBlock))
    winner = next(each for each in found if each.key == proposal.verdict.winner)
    block = node.builder.build_proposed_block(proposal, winner)
    node.receive(block)
    return block


def remap_candidate(node: scenario.ScenarioNode, candidate: Candidate, mapping: bytes) -> Candidate:
    """Return a candidate that was trained behind another mapping layer and says so."""
    part = replace(read_mapped_training(candidate.model.training), mapping=mapping)
    record = replace(candidate.model.training, engine=encode(part))
    return _rebind_candidate(node, candidate, replace(candidate.model, training=record))


def steal_candidate(node: scenario.ScenarioNode, shown: Candidate, thief: str, salt: bytes = b"") -> Candidate:
    """Return a thief's candidate: the model that somebody else has shown, bound to the thief's own name."""
    own = node.builder.build_candidate(node.parent, thief, shown.correct)
    return _rebind_candidate(node, replace(own, salt=salt or own.salt), shown.model)


def _rebind_candidate(node: scenario.ScenarioNode, candidate: Candidate, model: TrainedModel) -> Candidate:
    commitment, builder = candidate.commitment, node.builder
    work = work_id(commitment.chain_id, commitment.parent, commitment.task_id, commitment.miner)
    payload = (candidate.payload_hash, b"\x01\x55" + candidate.payload_hash)
    digest = commitment_digest(work, model, *payload, candidate.salt)
    signed = alter(commitment, digest=digest, engine=encode(model) if commitment.engine else b"")
    builder.counts[model.model_cid] = candidate.correct
    return replace(candidate, model=model, commitment=signed)


# --- what must be refused ----------------------------------------------------------------------------------------


def _date_release_late(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    schedule = node.round.selection.schedule
    late = schedule.release_milliseconds - schedule.release_opens_milliseconds + 1
    announcement = node.builder.build_announcement(node.parent, candidates, late)
    return events.ReleaseReceived(announcement, announcement.release.released_milliseconds)


def _date_release_back(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    """Return a release that leaves a millisecond less than half the time for reveals, clocks aside."""
    schedule, announcement = node.round.selection.schedule, node.builder.build_announcement(node.parent, candidates)
    skew, released = node.builder.parameters.clock_skew_milliseconds, announcement.release.released_milliseconds
    left = schedule.reveal_after_milliseconds // 2
    return events.ReleaseReceived(announcement, schedule.deadline(Deadline.REVEAL, released) - left + skew + 1)


def _commit_with_shown_model(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    shown = alter(candidates[1].commitment, engine=encode(candidates[1].model))
    return events.CommitmentReceived(shown, node.round.selection.schedule.start_milliseconds + 1)


def _release_and_open(node: scenario.ScenarioNode, candidate: Candidate) -> events.Event:
    """Release a list with a changed candidate and open it."""
    parent, opens = node.parent, node.round.selection.schedule.release_opens_milliseconds
    node.feed(events.ReleaseReceived(node.builder.build_announcement(parent, (candidate,)), opens))
    return events.RevealReceived(node.builder.build_reveal(parent, candidate), opens + 1)


def _foreign_mapping(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    return _release_and_open(node, remap_candidate(node, candidates[1], node.round.selection.parent))


def _wrong_rows(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    part = replace(read_mapped_training(candidates[1].model.training), correct=100, total=100)
    record = replace(candidates[1].model.training, engine=encode(part))
    return _release_and_open(
        node, _rebind_candidate(node, candidates[1], replace(candidates[1].model, training=record))
    )


def _waive_verdict(node: scenario.ScenarioNode, candidates: CandidatePair) -> events.Event:
    block = node.builder.build_block(node.parent, candidates)
    waived = replace(block.verdict, engine=encode(Waiver()))
    return events.BlockReceived(alter(block, verdict=waived), block.end_milliseconds)


def _make_citation(choose: str) -> Make:
    """Return a block at height 2 or later that cites a loser it may not cite."""

    def make(node: scenario.ScenarioNode, _found: CandidatePair) -> events.Event:
        builder, parent = node.builder, node.parent
        losers = {each: builder.build_candidate(parent, each, right) for each, right in THREE_SOLUTIONS.correct.items()}
        scenario.run_height(node, THREE_SOLUTIONS)
        if choose == "again":
            scenario.run_height(node, scenario.HeightPlan({"miner-1": 95}))
        cited = "miner-3" if choose == "second best" else "miner-1" if choose == "winner" else "miner-2"
        claim = 92 if choose == "another claim" else None
        reveal = builder.build_reveal(parent, losers[cited], claim)
        if choose == "too old":
            for _ in range(6):
                scenario.run_height(
                    node, scenario.HeightPlan({"miner-1": 95, "miner-2": 96}, silent_miners=frozenset({"miner-1"}))
                )
        won = builder.build_candidate(node.parent, "miner-1", 95)
        block = builder.build_block(node.parent, (won,), cited=(reveal,))
        return events.BlockReceived(block, block.end_milliseconds)

    return make


_R = RejectionReason
_OF_THE_CLOCK = BAD_DISPUTE_NAMES | {"release_dated_late"}

POLE_BAD_INPUTS: tuple[BadInput, ...] = (
    *(each for each in BAD_INPUTS if each.name not in _OF_THE_CLOCK),
    BadInput("release_dated_late", "committed", _R.WRONG_PHASE, _date_release_late),
    BadInput("release_dated_back", "committed", _R.WRONG_PHASE, _date_release_back),
    BadInput("commitment_shows_model", "opened", _R.SHOWN_MODEL_WRONG, _commit_with_shown_model),
    BadInput("reveal_of_foreign_mapping", "opened", _R.MAPPING_FOREIGN, _foreign_mapping),
    BadInput("reveal_of_other_rows", "opened", _R.CLAIM_OUT_OF_RANGE, _wrong_rows),
    BadInput("block_waives_without_need", "revealed", _R.VERDICT_WRONG, _waive_verdict),
    BadInput("ommer_second_best", "begun", _R.OMMER_NOT_CITABLE, _make_citation("second best")),
    BadInput("ommer_twice", "begun", _R.OMMER_NOT_CITABLE, _make_citation("again")),
    BadInput("ommer_too_old", "begun", _R.OMMER_NOT_CITABLE, _make_citation("too old")),
    BadInput("ommer_of_winner", "begun", _R.OMMER_NOT_CITABLE, _make_citation("winner")),
    BadInput("ommer_of_another_claim", "begun", _R.OMMER_NOT_CITABLE, _make_citation("another claim")),
)
"""Every wrong event under PoLe: what all engines refuse, and what only mapping layers and ommers can break."""

POLE_CALLS = (
    ommer_reward,
    OmmerRules.withheld_gwei,
    OmmerRules.shares,
    MappingLayer.identity,
    layer_shape,
    build_header,
    PoleDurations.schedule_height,
    mapping.query_vectors,
    mapping.dense_vectors,
    mapping.sparse_vectors,
)

SCENARIO = EngineScenario(POLE, INTERPRETATIONS, POLE_CALLS, POLE_BAD_INPUTS, start_pole_node)
