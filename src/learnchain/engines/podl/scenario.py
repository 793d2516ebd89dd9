"""Play heights of PoDL, over several blocks of one task, and list every wrong event that a PoDL chain must refuse."""

from dataclasses import replace
from typing import Any

from learnchain.engines.podl import INTERPRETATIONS, Podl, TwoPhases
from learnchain.engines.podl.multi_block_progress import StoppingRule
from learnchain.engines.podl.parts import encode_baseline
from learnchain.protocol import events
from learnchain.protocol.state import PostedTask
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import build_sample_specification, build_sample_task, release_key
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_height, start_from_genesis
from learnchain_conformance.bad_disputes import BAD_DISPUTE_NAMES
from learnchain_conformance.bad_inputs import BAD_INPUTS, PLAN, BadInput, CandidatePair, Make
from learnchain_conformance.engine_scenarios import EngineScenario

PODL = Podl(
    phases=TwoPhases(600_000, 60_000, 60_000, 15_000, 35_000),
    stopping=StoppingRule(gain_ten_thousandths=50, stalled_blocks=2),
    model_bits=32,
)
"""Every number is written out: a changed default must not change a vector."""

PODL_CALLS = (
    TwoPhases.schedule_height,
    StoppingRule.advance_progress,
)

TEST_SETS = 4


def start_podl_node(engine: Podl = PODL, **parameters: Any) -> ScenarioNode:
    """Return a fresh node on the sample chain, whose standing task has four fresh test sets."""
    standing = (build_sample_specification("standing", tests=TEST_SETS),)
    return start_from_genesis(
        ChainBuilder(engine, build_sample_parameters(standing_specifications=standing, **parameters))
    )


def build_multi_block_task(name: str, tests: int = TEST_SETS, **changes: Any) -> PostedTask:
    """Return a commissioned task that may span so many blocks."""
    return build_sample_task(name, specification=build_sample_specification(name, tests=tests), **changes)


def run_blocks(corrects: tuple[int, ...], node: ScenarioNode | None = None) -> ScenarioNode:
    """Return a node on which a commissioned task won these counts in successive blocks; block 1 posts it, 2 records."""
    there = node or start_podl_node()
    run_height(there, HeightPlan(posted_tasks=(build_multi_block_task("wanted"),)))
    run_height(there)
    for correct in corrects:
        run_height(there, HeightPlan({"miner-1": correct, "miner-2": correct - 10}))
    return there


# --- what must be refused ----------------------------------------------------------------------------------------


def _continue_task(node: ScenarioNode) -> None:
    """Play one block more, so that the task is in its second one and has a champion."""
    run_height(node, PLAN)


def _post_repeated_test_set(node: ScenarioNode, _found: CandidatePair) -> events.Event:
    posted = build_multi_block_task("stale")
    data = posted.specification.data
    stale = replace(posted.specification, data=replace(data, later_test_sets=(*data.later_test_sets[:-1], data.test)))
    return events.TaskPosted(node.parent.block_hash, replace(posted, specification=stale))


def _make_trained_test_set(changed: str) -> Make:
    """Post a task whose last test set has the training data's own key, or their rows."""

    def make(node: ScenarioNode, _found: CandidatePair) -> events.Event:
        posted = build_multi_block_task("known")
        data = posted.specification.data
        known = replace(data.later_test_sets[-1], **{changed: getattr(data.training, changed)})
        changed_data = replace(data, later_test_sets=(*data.later_test_sets[:-1], known))
        specification = replace(posted.specification, data=changed_data)
        return events.TaskPosted(node.parent.block_hash, replace(posted, specification=specification))

    return make


def _release_next_key(node: ScenarioNode, candidates: CandidatePair) -> events.Event:
    """Release the second block's test set at the first: its miners would know it while they train."""
    announcement = node.builder.build_announcement(node.parent, candidates)
    release = alter(announcement.release, "steward", key=release_key("standing", 1))
    return events.ReleaseReceived(replace(announcement, release=release), release.released_milliseconds)


def _stale_commitment(node: ScenarioNode, candidates: CandidatePair) -> events.Event:
    """Commit at the second block of a task to what was trained on the first one's parent."""
    _continue_task(node)
    return events.CommitmentReceived(candidates[1].commitment, node.round.selection.schedule.start_milliseconds + 1)


def _commitment_ahead(node: ScenarioNode, candidates: CandidatePair) -> events.Event:
    """Commit to the next block while this one is trained for: a run ahead has no parent yet."""
    ahead = alter(candidates[1].commitment, height=node.round.selection.height + 1)
    return events.CommitmentReceived(ahead, node.round.selection.schedule.start_milliseconds + 1)


def _claim_too_much(node: ScenarioNode, candidates: CandidatePair) -> events.Event:
    reveal = alter(
        node.builder.build_reveal(node.parent, candidates[1]), claim_correct=2**64 - 1, claim_total=2**64 - 1
    )
    return events.RevealReceived(reveal, node.round.selection.schedule.release_opens_milliseconds + 2)


def _release_old_key(node: ScenarioNode, _found: CandidatePair) -> events.Event:
    """Release the first block's test set again at the second: nothing about it is fresh."""
    _continue_task(node)
    builder, parent = node.builder, node.parent
    announcement = builder.build_announcement(parent, (builder.build_candidate(parent, "miner-1", 96),))
    release = alter(announcement.release, "steward", key=release_key("standing"))
    return events.ReleaseReceived(replace(announcement, release=release), release.released_milliseconds)


def _early_baseline(node: ScenarioNode, candidates: CandidatePair) -> events.Event:
    block = node.builder.build_block(node.parent, candidates)
    verdict = replace(block.verdict, engine=encode_baseline(90, 100))
    return events.BlockReceived(alter(block, verdict=verdict), block.end_milliseconds)


def _build_second_block(node: ScenarioNode, correct: int, total: int) -> events.BlockReceived:
    """Return a block of the task's second height whose verdict says something else of the champion."""
    _continue_task(node)
    builder, parent = node.builder, node.parent
    block = builder.build_block(parent, (builder.build_candidate(parent, "miner-1", 96),))
    verdict = replace(block.verdict, engine=encode_baseline(correct, total))
    return events.BlockReceived(alter(block, verdict=verdict), block.end_milliseconds)


def _missing_baseline(node: ScenarioNode, _found: CandidatePair) -> events.Event:
    return _build_second_block(node, 0, 0)


def _baseline_above_total(node: ScenarioNode, _found: CandidatePair) -> events.Event:
    return _build_second_block(node, 101, 100)


def _reveal_before_release(node: ScenarioNode, _found: CandidatePair) -> events.Event:
    """Open at the second block what was committed to at the first."""
    first = node.parent
    stale = node.builder.build_candidate(first, "miner-3", 99)
    _continue_task(node)
    parent, builder = node.parent, node.builder
    own = builder.build_candidate(parent, "miner-3", 97)
    opens = node.round.selection.schedule.release_opens_milliseconds
    node.feed(events.ReleaseReceived(builder.build_announcement(parent, (own,)), opens))
    reveal = replace(builder.build_reveal(parent, own), model_cid=stale.model.model_cid)
    return events.RevealReceived(alter(reveal), opens + 1)


_R = RejectionReason

PODL_BAD_INPUTS: tuple[BadInput, ...] = (
    *(each for each in BAD_INPUTS if each.name not in BAD_DISPUTE_NAMES),
    BadInput("task_test_set_repeated", "begun", _R.TEST_SET_REPEATED, _post_repeated_test_set),
    BadInput("task_test_set_trained", "begun", _R.TEST_SET_TRAINED, _make_trained_test_set("plaintext_root")),
    BadInput("task_test_set_of_the_training_key", "begun", _R.TEST_SET_TRAINED, _make_trained_test_set("key_hash")),
    BadInput("commitment_on_a_stale_parent", "begun", _R.WRONG_HEIGHT, _stale_commitment),
    BadInput("commitment_to_the_next_block", "opened", _R.WRONG_HEIGHT, _commitment_ahead),
    BadInput("release_of_the_next_test_set", "committed", _R.KEY_MISMATCH, _release_next_key),
    BadInput("reveal_claim_huge", "released", _R.CLAIM_OUT_OF_RANGE, _claim_too_much),
    BadInput("release_of_an_old_test_set", "begun", _R.KEY_MISMATCH, _release_old_key),
    BadInput("reveal_of_the_last_model", "begun", _R.REVEAL_MISMATCH, _reveal_before_release),
    BadInput("verdict_with_an_early_champion", "revealed", _R.VERDICT_WRONG, _early_baseline),
    BadInput("verdict_without_its_champion", "begun", _R.VERDICT_WRONG, _missing_baseline),
    BadInput("verdict_of_an_impossible_champion", "begun", _R.CLAIM_OUT_OF_RANGE, _baseline_above_total),
)
"""Every wrong event under PoDL: what all engines refuse, and what only a task over several blocks can break."""

SCENARIO = EngineScenario(PODL, INTERPRETATIONS, PODL_CALLS, PODL_BAD_INPUTS, start_podl_node)
