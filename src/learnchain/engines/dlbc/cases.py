"""Choose what the vectors of DLBC show: its equations, its readings, whole heights and every bad input."""

from decimal import Decimal
from fractions import Fraction

from learnchain.consensus.validity import check_key_release
from learnchain.encoding.numbers import WEI_PER_ETHER
from learnchain.engines.dlbc import READINGS, Dlbc
from learnchain.engines.dlbc import equations as eq
from learnchain.engines.dlbc.rules import Phases
from learnchain.engines.dlbc.scenario import DLBC, MILLION, started, three_tasks, with_pool
from learnchain.protocol import messages
from learnchain.protocol.events import Event
from learnchain.protocol.messages import Deadline
from learnchain.protocol.model_specification import model_bytes, training_flops_per_sample
from learnchain.simulation.sample_tasks import address, sample_task
from learnchain.simulation.scenario import Observer, Plan, play_empty, play_height
from learnchain_conformance.bad_inputs import BAD_INPUTS, BadInput, prepare
from learnchain_conformance.vectors import Case, Vector, call, walk

_INTERPRETATION_OF = {each.vector: each.identifier for each in READINGS}


def dlbc_vectors() -> tuple[Vector, ...]:
    """Return the vectors of DLBC."""
    return (*_equations(), *_interpretation_vectors(), *_heights(), *(_bad_input(each) for each in BAD_INPUTS))


def _vector(path: str, about: str, *cases: Case) -> Vector:
    return Vector(path, about, cases, _INTERPRETATION_OF.get(path, ""))


def _walk_case(node: Observer, *last: Event) -> Case:
    return walk(DLBC, node.builder.parameters, node.builder.genesis(), (*node.events, *last))


# --- equations ---------------------------------------------------------------------------------------------------


def _equations() -> tuple[Vector, ...]:
    indices = [
        call(eq.queue_index, queue_length=length, estimated_maximum=maximum, scale_millionths=scale)
        for length, maximum, scale in (
            (1, 2, MILLION),
            (8, 32, MILLION),
            (3, 32, 250_000),
            (32, 32, MILLION),
            (5, 7, 1),
        )
    ]
    networks = [
        call(eq.network_difficulty, model_bytes=model, data_bytes=data, median_bytes_per_second=speed)
        for model, data, speed in ((0, 1, 3), (250_000_000, 11_000_000, 12_500_000), (4, 8, 12))
    ]
    computations = [
        call(eq.computation_difficulty, flops=flops, median_flops_per_second=speed)
        for flops, speed in ((1, 3), (10**15, 10**10), (7, 10**12))
    ]
    scores = [
        call(eq.ranking_score, network=Decimal(n), computation=Decimal(c), index=Decimal(q), reward_wei=reward)
        for n, c, q, reward in (
            ("0", "4", "0.5", 1),
            ("2.5", "100", "0", 10**18),
            ("0.1", "0.25", "-1", 3),
            ("1", "0", "2", 7),
            ("1", "123456.789", "3.3219280948873623478703194294893901758648313930246", 10**18),
        )
    ]
    publishers = [
        call(eq.publisher_share, queue_length=length, estimated_maximum=maximum, scale_millionths=scale)
        for length, maximum, scale in (
            (0, 32, MILLION),
            (8, 32, MILLION),
            (32, 32, MILLION),
            (64, 32, MILLION),
            (3, 7, 1),
        )
    ]
    miners = [call(eq.miner_share, publisher=Fraction(top, 16)) for top in (0, 1, 15, 16)]
    named = (
        ("q, the queue index", indices),
        ("d_n in seconds", networks),
        ("d_c in seconds", computations),
        ("the ranking score", scores),
        ("the publisher's share", publishers),
        ("the miner's share", miners),
    )
    return tuple(
        Vector(f"dlbc/equations/{number}.json", f"Equation {number}: {about}.", tuple(cases))
        for number, (about, cases) in enumerate(named, start=1)
    )


# --- readings ----------------------------------------------------------------------------------------------------


def _interpretation_vectors() -> tuple[Vector, ...]:
    return (*_selection_vectors(), *_round_vectors(), *_payout_vectors())


def _selection_vectors() -> tuple[Vector, ...]:
    rules, parameters = DLBC, started().builder.parameters
    pool = with_pool(three_tasks())
    twins = with_pool((sample_task("one"), sample_task("two")))
    choose = [call(Dlbc.select_task, self=rules, parent=each, parameters=parameters) for each in (pool, twins)]
    lagging = started()
    play_height(lagging, Plan(posted=three_tasks()))
    play_height(lagging)
    model = three_tasks()[2].specification.model
    difficulties = (
        call(model_bytes, specification=model),
        call(training_flops_per_sample, specification=model),
        call(eq.network_difficulty, model_bytes=5_392, data_bytes=262_608, median_bytes_per_second=12_500_000),
        call(eq.computation_difficulty, flops=5_632 * 4_000, median_flops_per_second=10**10),
    )
    threshold = [
        call(eq.ranking_score, network=Decimal(0), computation=Decimal(c), index=Decimal(q), reward_wei=reward)
        for q in ("0.5", "1", "1.5", "-0.5")
        for c, reward in ((10, 10), (1_000, 1_000), (1_000, 10))
    ]
    return (
        _vector("dlbc/selection/smallest_score.json", "The smallest score is selected; ties by task id.", *choose),
        _vector(
            "dlbc/selection/posted_one_block_late.json", "Posted in 1, recorded by 2, selected for 3.", _walk_case(lagging)
        ),
        _vector("dlbc/selection/difficulties.json", "Sizes and FLOPs follow from the specification.", *difficulties),
        _vector(
            "dlbc/selection/threshold.json", "Small and large tasks, same reward per FLOP or same reward.", *threshold
        ),
        _vector("dlbc/selection/key_release.json", "The key opens Phase 1; later it is refused.", *_key_cases()),
    )


def _key_cases() -> tuple[Case, ...]:
    node = started()
    late = next(each for each in BAD_INPUTS if each.name == "key_late")
    in_time = started()
    prepare(in_time, "opened")
    release, selected = node.builder.key_release(node.parent), node.round.selection
    checked = call(check_key_release, message=release, selection=selected, parameters=node.builder.parameters)
    return checked, _walk_case(in_time), _walk_case(node, late.make(node, ()))


def _round_vectors() -> tuple[Vector, ...]:
    node, rules = started(), DLBC
    chosen, parameters = node.round.selection, node.builder.parameters
    found = prepare(node, "begun")
    closing = chosen.schedule.commitment_milliseconds
    late = [
        call(
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
        call(
            messages.work_id, chain_id=parameters.chain_id, parent=chosen.parent, task_id=task_id, miner=address(miner)
        )
        for miner in ("miner-1", "miner-2")
    ]
    work = messages.work_id(parameters.chain_id, chosen.parent, task_id, address("miner-1"))
    terms = call(Dlbc.training_terms, self=rules, selection=chosen, work=work)
    worse = node.builder.block(node.parent, found, winner=found[1], hidden=found[:1])
    better = node.builder.block(node.parent, found)
    weights = [
        call(Dlbc.weigh, self=rules, block=block, siblings=siblings)
        for block, siblings in ((worse, (worse,)), (worse, (worse, better)), (better, (worse, better)))
    ]
    phases = call(Phases.schedule, self=DLBC.phases, parent=node.parent)
    return (
        _vector("dlbc/schedule/phases.json", "Three phases follow each other without a gap.", phases),
        _vector("dlbc/commitment/late.json", "In time until Phase 3 begins, to the millisecond.", *late),
        _vector("dlbc/training/watermark_bits.json", "Each miner embeds its own work identity.", *works, terms),
        _vector(
            "dlbc/fork_choice/better_sibling.json", "A better candidate of the release takes the weight.", *weights
        ),
    )


def _payout_vectors() -> tuple[Vector, ...]:
    standing = started()
    wanted = started()
    play_height(wanted, Plan(posted=(sample_task("wanted", 50 * WEI_PER_ETHER),)))
    play_height(wanted)
    shares = [
        call(eq.publisher_share, queue_length=length, estimated_maximum=32, scale_millionths=MILLION)
        for length in (1, 16, 31, 32)
    ]
    return (
        _vector(
            "dlbc/payout/standing_task.json",
            "A standing task mints no publisher's share; l := 1 in Eq. 1.",
            call(eq.queue_index, queue_length=1, estimated_maximum=32, scale_millionths=MILLION),
            _payout(standing, 95),
        ),
        _vector("dlbc/payout/split.json", "Eq. 5 and 6 split the block reward.", *shares, _payout(wanted, 95)),
        _vector(
            "dlbc/payout/below_required.json",
            "89 of 100 win the block; the task, which demands 90, is refunded.",
            _payout(wanted, 90),
            _payout(wanted, 89),
        ),
    )


def _payout(node: Observer, correct: int) -> Case:
    won = node.builder.candidate(node.parent, "miner-1", correct)
    block = node.builder.block(node.parent, (won,))
    parameters = node.builder.parameters
    return call(Dlbc.payouts, self=DLBC, selection=node.round.selection, block=block, parameters=parameters)


# --- heights -----------------------------------------------------------------------------------------------------


def _heights() -> tuple[Vector, ...]:
    ended = started()
    prepare(ended, "committed")
    play_empty(ended, Deadline.RELEASE)
    return (Vector("dlbc/height/empty.json", "A publisher falls silent after commitments.", (_walk_case(ended),)),)


def _bad_input(wrong: BadInput) -> Vector:
    node = started()
    event = wrong.make(node, prepare(node, wrong.stage))
    return Vector(f"dlbc/bad_input/{wrong.name}.json", f"Refused: {wrong.reason.value}.", (_walk_case(node, event),))
