"""Choose what the vectors of PoDL show: its readings, whole heights, and every bad input it shares or adds."""

from dataclasses import replace

from learnchain.consensus.validity import check_opening
from learnchain.engines.podl import Podl, TwoPhases
from learnchain.engines.podl.multi_block_progress import StoppingRule
from learnchain.engines.podl.scenario import PODL, build_multi_block_task, run_blocks, start_podl_node
from learnchain.protocol.messages import Deadline, commitment_digest, work_id
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_empty_height, run_height
from learnchain_conformance.bad_inputs import prepare
from learnchain_conformance.vectors import Case, Vector, build_call_case, build_vector, build_walk_case


def build_vectors() -> tuple[Vector, ...]:
    """Return the vectors of PoDL."""
    return (*_interpretation_vectors(), *_payouts(), *_heights())


def _interpretation_vectors() -> tuple[Vector, ...]:
    node, later = start_podl_node(), start_podl_node()
    run_height(later)
    parameters, chosen = node.builder.parameters, node.round.selection
    found = prepare(node, "begun")
    closing = chosen.schedule.commitment_milliseconds
    late = [
        build_call_case(
            Podl.check_commitment,
            self=PODL,
            selection=chosen,
            commitment=found[0].commitment,
            at_milliseconds=at,
            parameters=parameters,
        )
        for at in (closing, closing + 1)
    ]
    worse = node.builder.build_block(node.parent, found, winner=found[1], hidden=found[:1])
    better = node.builder.build_block(node.parent, found)
    weights = [
        build_call_case(Podl.weigh, self=PODL, block=block, siblings=siblings)
        for block, siblings in ((worse, (worse,)), (worse, (worse, better)), (better, (worse, better)))
    ]
    selected = [
        build_call_case(Podl.select_task, self=PODL, parent=each.parent, parameters=parameters)
        for each in (start_podl_node(), later)
    ]
    phases = [
        build_call_case(TwoPhases.schedule_height, self=PODL.phases, parent=node.parent, turn=turn) for turn in (0, 1)
    ]
    reveal = node.builder.build_reveal(node.parent, found[0])
    shared = {"selection": chosen, "commitment": found[0].commitment, "reveal": reveal}
    opened = build_call_case(check_opening, parameters=parameters, **shared)
    return (
        build_vector("schedule/phases.json", "Phase 1 of a task that goes on starts in its last Phase 2.", *phases),
        build_vector("selection/goes_on.json", "Seeds of a task's first and second block.", *selected, *_works(later)),
        build_vector("commitment/late.json", "In time until Phase 1 ends, to the millisecond.", *late),
        build_vector("reveal/parameters.json", "What repeats a training is opened with the model.", opened),
        build_vector(
            "fork_choice/better_sibling.json", "A better candidate of the release takes the weight.", *weights
        ),
        build_vector("selection/waits.json", "A task posted in block 1 is trained at height 3.", *_queue_cases()),
        build_vector(
            "training/earlier_run.json", "A run that lost, as its commitment binds it.", *_previous_run_cases()
        ),
        build_vector("training/quantised.json", "Models of 32 and of 8 bits a weight.", *_terms(node)),
        build_vector(
            "verification/champion.json", "The winner meets the champion on its test set.", *_best_model_cases()
        ),
    )


def _works(node: ScenarioNode) -> tuple[Case, ...]:
    """Return the seeds of one miner: initialisation by the origin, batch order by the block before the last."""
    chosen, chain_id = node.round.selection, node.builder.parameters.chain_id
    shared = {"chain_id": chain_id, "task_id": chosen.task.task_id, "miner": address("miner-1")}
    return tuple(
        build_call_case(work_id, parent=each, **shared)
        for each in (chosen.position.initialisation_seed, chosen.position.batch_order_seed)
    )


def _queue_cases() -> tuple[Case, ...]:
    """Return what is selected after a task is posted in block 1: the standing one to its end, then the posted one."""
    node, found = start_podl_node(), list[Case]()
    for plan in (HeightPlan(posted_tasks=(build_multi_block_task("wanted"),)), HeightPlan()):
        run_height(node, plan)
        found.append(
            build_call_case(Podl.select_task, self=PODL, parent=node.parent, parameters=node.builder.parameters)
        )
    return tuple(found)


def _previous_run_cases() -> tuple[Case, ...]:
    """Return what ties a run that lost to the block before: its seed and the digest that the block lists."""
    node = start_podl_node()
    winner, loser = prepare(node, "begun")
    commitment, payload = loser.commitment, (loser.payload_hash, b"\x01\x55" + loser.payload_hash)
    seed = work_id(commitment.chain_id, commitment.parent, commitment.task_id, commitment.miner)
    bound = {"work": seed, "trained": loser.model, "payload_hash": payload[0], "payload_cid": payload[1]}
    another = {**bound, "trained": replace(loser.model, model_cid=winner.model.model_cid)}
    return tuple(build_call_case(commitment_digest, salt=loser.salt, **each) for each in (bound, another))


def _terms(node: ScenarioNode) -> tuple[Case, ...]:
    engines = (PODL, replace(PODL, model_bits=8))
    work = b"\x01" * 32
    return tuple(
        build_call_case(Podl.training_terms, self=each, selection=node.round.selection, work=work) for each in engines
    )


def _best_model_cases() -> tuple[Case, ...]:
    """Return how a task stands after a gain, after none, and after a worse winner: the champion stays."""
    cases: list[Case] = []
    for correct in (96, 95, 80):
        node = start_podl_node()
        run_height(node, HeightPlan({"miner-1": 95}))
        builder, parent = node.builder, node.parent
        block = builder.build_block(parent, (builder.build_candidate(parent, "miner-2", correct),))
        cases.append(
            build_call_case(
                StoppingRule.advance_progress, self=PODL.stopping, selection=node.round.selection, block=block
            )
        )
    return tuple(cases)


def _payout(node: ScenarioNode, correct: int) -> Case:
    builder, parent = node.builder, node.parent
    block = builder.build_block(parent, (builder.build_candidate(parent, "miner-2", correct),))
    shared = {"selection": node.round.selection, "parameters": builder.parameters}
    return build_call_case(Podl.compute_reward, self=PODL, block=block, **shared)


def _height_without_block_case(node: ScenarioNode, missed: Deadline) -> Case:
    block = node.builder.build_empty_block(node.parent, missed)
    shared = {"selection": node.round.selection, "parameters": node.builder.parameters}
    return build_call_case(Podl.compute_reward, self=PODL, block=block, **shared)


def _payouts() -> tuple[Vector, ...]:
    collected = (
        _payout(run_blocks((95,)), 96),
        _payout(run_blocks((95, 95)), 95),
        _payout(run_blocks((95, 96, 97)), 98),
        _payout(run_blocks((80, 80)), 80),
        _payout(run_blocks((95, 60)), 70),
    )
    interrupted = (
        _height_without_block_case(run_blocks((95,)), Deadline.RELEASE),
        _height_without_block_case(run_blocks((80,)), Deadline.RELEASE),
        _height_without_block_case(run_blocks((80,)), Deadline.REVEAL),
        _height_without_block_case(run_blocks(()), Deadline.KEY),
    )
    about = "Goes on; no gain twice; last test set; requirement missed; the champion of an earlier block is paid."
    return (
        build_vector("payout/collected.json", about, *collected),
        build_vector(
            "payout/interrupted.json",
            "An empty block: champion paid, publisher struck, refunded, struck before any model.",
            *interrupted,
        ),
    )


def _heights() -> tuple[Vector, ...]:
    spanned = run_blocks((91, 95))
    run_height(spanned, HeightPlan({"miner-1": 95, "miner-2": 97}, claims={"miner-2": 99}))
    ended = start_podl_node()
    run_height(ended, HeightPlan(posted_tasks=(build_multi_block_task("wanted"),)))
    prepare(ended, "committed")
    run_empty_height(ended, Deadline.RELEASE)
    quantised = start_podl_node(replace(PODL, model_bits=8))
    run_height(quantised)
    tied = start_podl_node()
    run_height(tied, HeightPlan({"miner-1": 95, "miner-2": 95}))
    return (
        build_vector("height/tie.json", "Of two equal true claims the lower commitment wins.", build_walk_case(tied)),
        build_vector(
            "height/spanned.json", "Three blocks of one task; a miner lies in the last.", build_walk_case(spanned)
        ),
        build_vector("height/empty.json", "The requester falls silent in its second block.", build_walk_case(ended)),
        build_vector("height/quantised.json", "A height with models of eight-bit weights.", build_walk_case(quantised)),
    )
