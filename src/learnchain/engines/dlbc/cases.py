"""Choose what the vectors of DLBC show: its equations, its readings, whole heights and every bad input."""

from decimal import Decimal
from fractions import Fraction

from learnchain.consensus.validity import check_key_release
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.dlbc import rules as eq
from learnchain.engines.dlbc.rules import Phases
from learnchain.engines.dlbc.scenario import DLBC, MILLION, build_queued_state, build_three_tasks, start_dlbc_node
from learnchain.protocol import messages
from learnchain.protocol.messages import Deadline
from learnchain.protocol.model_specification import model_bytes, training_flops_per_sample
from learnchain.simulation.sample_tasks import address, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_empty_height, run_height
from learnchain_conformance.bad_inputs import BAD_INPUTS, prepare
from learnchain_conformance.references import regularised_gradient, watermark_rows
from learnchain_conformance.vectors import Case, Vector, build_call_case, build_vector, build_walk_case


def build_vectors() -> tuple[Vector, ...]:
    """Return the vectors of DLBC."""
    return (*_equations(), *_references(), *_interpretation_vectors(), *_heights())


# --- equations ---------------------------------------------------------------------------------------------------


def _equations() -> tuple[Vector, ...]:
    indices = [
        build_call_case(eq.queue_index, queue_length=length, estimated_maximum=maximum, scale_millionths=scale)
        for length, maximum, scale in (
            (1, 2, MILLION),
            (8, 32, MILLION),
            (3, 32, 250_000),
            (32, 32, MILLION),
            (5, 7, 1),
        )
    ]
    networks = [
        build_call_case(eq.network_difficulty, model_bytes=model, data_bytes=data, median_bytes_per_second=speed)
        for model, data, speed in ((0, 1, 3), (250_000_000, 11_000_000, 12_500_000), (4, 8, 12))
    ]
    computations = [
        build_call_case(eq.computation_difficulty, flops=flops, median_flops_per_second=speed)
        for flops, speed in ((1, 3), (10**15, 10**10), (7, 10**12))
    ]
    scores = [
        build_call_case(
            eq.ranking_score, network=Decimal(n), computation=Decimal(c), index=Decimal(q), reward_wei=reward
        )
        for n, c, q, reward in (
            ("0", "4", "0.5", 1),
            ("2.5", "100", "0", 10**18),
            ("0.1", "0.25", "-1", 3),
            ("1", "0", "2", 7),
            ("1", "123456.789", "3.3219280948873623478703194294893901758648313930246", 10**18),
        )
    ]
    publishers = [
        build_call_case(eq.publisher_share, queue_length=length, estimated_maximum=maximum, scale_millionths=scale)
        for length, maximum, scale in (
            (0, 32, MILLION),
            (8, 32, MILLION),
            (32, 32, MILLION),
            (64, 32, MILLION),
            (3, 7, 1),
        )
    ]
    miners = [build_call_case(eq.miner_share, publisher=Fraction(top, 16)) for top in (0, 1, 15, 16)]
    named = (
        ("q, the queue index", indices),
        ("d_n in seconds", networks),
        ("d_c in seconds", computations),
        ("the ranking score", scores),
        ("the publisher's share", publishers),
        ("the miner's share", miners),
    )
    return tuple(
        Vector(f"equations/{number}.json", f"Equation {number}: {about}.", tuple(cases))
        for number, (about, cases) in enumerate(named, start=1)
    )


def _references() -> tuple[Vector, ...]:
    """Return what torch carries out, in exact numbers (`references`)."""
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    gradient, regulariser = (Fraction(1), -2 * half, 3 * quarter, Fraction(0)), (-half, Fraction(0), quarter, -half)
    steps = [
        build_call_case(regularised_gradient, gradient=gradient, strength=each, regulariser_gradient=regulariser)
        for each in (half, Fraction(8), Fraction(0))
    ]
    bits = bytes.fromhex("a53c")
    matrices = [build_call_case(watermark_rows, bits=bits, length=length) for length in (6, 16, 20)]
    matrices.append(build_call_case(watermark_rows, bits=b"\xff", length=8))
    return (
        build_vector("equations/7.json", "Equation 7: what training descends, weight by weight.", *steps),
        build_vector(
            "training/watermark_matrix.json",
            "One 1 in each column: first row for a 0, second for a 1; columns beyond the bits are zero, bits beyond "
            "the columns are dropped, a row without a 1 is left out.",
            *matrices,
        ),
        _attestation(),
    )


def _attestation() -> Vector:
    model, rows, task = (bytes([each]) * 32 for each in (1, 2, 3))
    cid = bytes.fromhex("01551e20") + model
    cases = [
        build_call_case(messages.attestation_digest, model_cid=cid, training_root=root, task_id=of)
        for root, of in ((rows, task), (task, rows))
    ]
    about = "What a miner signs covers model, training data and task; the signature itself is the miner's, 65 bytes."
    return build_vector("commitment/attestation.json", about, *cases)


# --- readings ----------------------------------------------------------------------------------------------------


def _interpretation_vectors() -> tuple[Vector, ...]:
    return (*_selection_vectors(), *_round_vectors(), *_payout_vectors())


def _selection_vectors() -> tuple[Vector, ...]:
    rules, parameters = DLBC, start_dlbc_node().builder.parameters
    pool = build_queued_state(build_three_tasks())
    twins = build_queued_state((build_sample_task("one"), build_sample_task("two")))
    choose = [
        build_call_case(Dlbc.select_task, self=rules, parent=each, parameters=parameters) for each in (pool, twins)
    ]
    lagging = start_dlbc_node()
    run_height(lagging, HeightPlan(posted_tasks=build_three_tasks()))
    run_height(lagging)
    model = build_three_tasks()[2].specification.model
    difficulties = (
        build_call_case(model_bytes, specification=model),
        build_call_case(training_flops_per_sample, specification=model),
        build_call_case(
            eq.network_difficulty, model_bytes=5_392, data_bytes=262_608, median_bytes_per_second=12_500_000
        ),
        build_call_case(eq.computation_difficulty, flops=5_632 * 4_000, median_flops_per_second=10**10),
    )
    threshold = [
        build_call_case(
            eq.ranking_score, network=Decimal(0), computation=Decimal(c), index=Decimal(q), reward_wei=reward
        )
        for q in ("0.5", "1", "1.5", "-0.5")
        for c, reward in ((10, 10), (1_000, 1_000), (1_000, 10))
    ]
    return (
        build_vector("selection/smallest_score.json", "The smallest score is selected; ties by task id.", *choose),
        build_vector(
            "selection/posted_one_block_late.json",
            "Posted in 1, recorded by 2, selected for 3.",
            build_walk_case(lagging),
        ),
        build_vector("selection/difficulties.json", "Sizes and FLOPs follow from the specification.", *difficulties),
        build_vector(
            "selection/threshold.json", "Small and large tasks, same reward per FLOP or same reward.", *threshold
        ),
        build_vector("selection/key_release.json", "The key opens Phase 1; later it is refused.", *_key_cases()),
    )


def _key_cases() -> tuple[Case, ...]:
    node = start_dlbc_node()
    late = next(each for each in BAD_INPUTS if each.name == "key_late")
    in_time = start_dlbc_node()
    prepare(in_time, "opened")
    release, selected = node.builder.build_key_release(node.parent), node.round.selection
    checked = build_call_case(
        check_key_release, message=release, selection=selected, parameters=node.builder.parameters
    )
    return checked, build_walk_case(in_time), build_walk_case(node, late.make(node, ()))


def _round_vectors() -> tuple[Vector, ...]:
    node, rules = start_dlbc_node(), DLBC
    chosen, parameters = node.round.selection, node.builder.parameters
    found = prepare(node, "begun")
    closing = chosen.schedule.commitment_milliseconds
    late = [
        build_call_case(
            Dlbc.check_commitment,
            self=rules,
            selection=chosen,
            commitment=found[0].commitment,
            at_milliseconds=at,
            parameters=parameters,
        )
        for at in (closing, closing + 1)
    ]
    task_id = chosen.task.task_id
    works = [
        build_call_case(
            messages.work_id, chain_id=parameters.chain_id, parent=chosen.parent, task_id=task_id, miner=address(miner)
        )
        for miner in ("miner-1", "miner-2")
    ]
    work = messages.work_id(parameters.chain_id, chosen.parent, task_id, address("miner-1"))
    terms = build_call_case(Dlbc.training_terms, self=rules, selection=chosen, work=work)
    worse = node.builder.build_block(node.parent, found, winner=found[1], hidden=found[:1])
    better = node.builder.build_block(node.parent, found)
    weights = [
        build_call_case(Dlbc.weigh, self=rules, block=block, siblings=siblings)
        for block, siblings in ((worse, (worse,)), (worse, (worse, better)), (better, (worse, better)))
    ]
    phases = build_call_case(Phases.schedule_height, self=DLBC.phases, parent=node.parent)
    return (
        build_vector("schedule/phases.json", "Three phases follow each other without a gap.", phases),
        build_vector("commitment/late.json", "In time until Phase 3 begins, to the millisecond.", *late),
        build_vector("training/watermark_bits.json", "Each miner embeds its own work identity.", *works, terms),
        build_vector(
            "fork_choice/better_sibling.json", "A better candidate of the release takes the weight.", *weights
        ),
    )


def _payout_vectors() -> tuple[Vector, ...]:
    standing = start_dlbc_node()
    wanted = start_dlbc_node()
    run_height(wanted, HeightPlan(posted_tasks=(build_sample_task("wanted", 50 * WEI_PER_ETHER),)))
    run_height(wanted)
    shares = [
        build_call_case(eq.publisher_share, queue_length=length, estimated_maximum=32, scale_millionths=MILLION)
        for length in (1, 16, 31, 32)
    ]
    return (
        build_vector(
            "payout/standing_task.json",
            "A standing task mints no publisher's share; l := 1 in Eq. 1.",
            build_call_case(eq.queue_index, queue_length=1, estimated_maximum=32, scale_millionths=MILLION),
            _payout(standing, 95),
        ),
        build_vector("payout/split.json", "Eq. 5 and 6 split the block reward.", *shares, _payout(wanted, 95)),
        build_vector(
            "payout/below_required.json",
            "89 of 100 win the block; the task, which demands 90, is refunded.",
            _payout(wanted, 90),
            _payout(wanted, 89),
        ),
    )


def _payout(node: ScenarioNode, correct: int) -> Case:
    won = node.builder.build_candidate(node.parent, "miner-1", correct)
    block = node.builder.build_block(node.parent, (won,))
    parameters = node.builder.parameters
    return build_call_case(
        Dlbc.compute_reward, self=DLBC, selection=node.round.selection, block=block, parameters=parameters
    )


# --- heights -----------------------------------------------------------------------------------------------------


def _heights() -> tuple[Vector, ...]:
    ended = start_dlbc_node()
    prepare(ended, "committed")
    run_empty_height(ended, Deadline.RELEASE)
    return (build_vector("height/empty.json", "A publisher falls silent after commitments.", build_walk_case(ended)),)
