"""Choose what the vectors of PoLe show: its equations, algorithms and readings, whole heights, every bad input."""

from dataclasses import replace

from learnchain.consensus.validity import check_release
from learnchain.encoding.codec import WEI_PER_ETHER, encode
from learnchain.engines.contract import JudgementCase
from learnchain.engines.pole import Pole, scenario
from learnchain.engines.pole import mapping as maps
from learnchain.engines.pole.judging import OmmerFormula, OmmerFunding, OmmerRules, build_header, ommer_reward
from learnchain.engines.pole.mapping import MappingLayer, MappingMode, Shift, layer_shape
from learnchain.engines.pole.parts import Waiver, read_mapped_training
from learnchain.engines.pole.rules import PoleDurations
from learnchain.protocol import messages
from learnchain.protocol.events import CommitmentReceived
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import Block, Deadline
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.state import PostedTask
from learnchain.simulation.sample_tasks import address, build_sample_specification, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, build_candidates, run_empty_height, run_height
from learnchain_conformance.bad_inputs import CandidatePair, prepare
from learnchain_conformance.references import derive_public_key, encrypt_sample, functional_key, open_product
from learnchain_conformance.vectors import Case, Vector, build_call_case, build_vector, build_walk_case

_HASH = bytes.fromhex("00f3" + "9c5a" * 15)
_REWARD = 2_000_000_000
_SECRET, _NONCE, _SAMPLE = (7, 11, 13), 5, (2, 0, 3)
_QUERIES = ((1, 2, 3), (4, 0, -5), (-1, 1, 0), (0, 9, 0))

_LIMIT = 40
"""Tiny on purpose: every number of Equation 1 can be followed; the group is the real one."""


def build_vectors() -> tuple[Vector, ...]:
    """Return the vectors of PoLe."""
    return (_inner_product(), *_mathematics(), *_selections(), *_judgements(), *_payouts(), *_heights())


# --- equations and algorithms ------------------------------------------------------------------------------------


def _inner_product() -> Vector:
    published = derive_public_key(_SECRET)
    ciphertext = encrypt_sample(published, _NONCE, _SAMPLE)
    opened: list[Case] = []
    for query in _QUERIES:
        eta = functional_key(_SECRET, query)
        opened.append(build_call_case(open_product, ciphertext=ciphertext, query=query, eta=eta, sign=-1, limit=_LIMIT))
    query, eta = _QUERIES[0], functional_key(_SECRET, _QUERIES[0])
    printed = build_call_case(open_product, ciphertext=ciphertext, query=query, eta=eta, sign=1, limit=_LIMIT)
    return build_vector(
        "equations/1.json",
        "Products of one sample with queries: ct_0 to the power -eta opens them, +eta as printed finds nothing. "
        "Published is g**s; eta follows from the secret s, one number a query.",
        *opened,
        printed,
        build_call_case(derive_public_key, secret=_SECRET),
        build_call_case(encrypt_sample, published=published, nonce=_NONCE, sample=_SAMPLE),
        *(build_call_case(functional_key, secret=_SECRET, query=each) for each in _QUERIES),
    )


def _mathematics() -> tuple[Vector, ...]:
    earned = [
        build_call_case(
            ommer_reward,
            block_reward_gwei=reward,
            winning_height=winning,
            ommer_height=ommer,
            ommers=ommers,
            formula=formula,
        )
        for formula in OmmerFormula
        for reward, winning, ommer, ommers in (
            (_REWARD, 11, 10, 1),
            (_REWARD, 16, 10, 3),
            (7, 3, 1, 2),
            (_REWARD, 17, 10, 1),
            (_REWARD, 11, 10, 0),
        )
    ]
    drawn = [
        build_call_case(
            maps.query_vectors, previous_hash=_HASH, dimension=100, count=3, bits_per_weight=bits, shift=shift
        )
        for shift in maps.Shift
        for bits in (3, 8)
    ]
    full = (
        build_call_case(maps.dense_vectors, seed=_HASH, dimension=20, count=3),
        build_call_case(maps.sparse_vectors, seed=_HASH, dimension=12, count=6, entries=4),
    )
    return (
        build_vector("equations/2.json", "What an ommer earns.", *earned),
        build_vector("algorithms/3.json", "Query vectors of one previous hash.", *drawn),
        build_vector("algorithms/full_rank.json", "Signed rows from SHAKE-256, for all or for each miner.", *full),
    )


# --- selection, schedule, training -------------------------------------------------------------------------------


def _selections() -> tuple[Vector, ...]:
    node = scenario.start_pole_node()
    parent, parameters, selection = node.parent, node.builder.parameters, node.round.selection
    valued = [
        _build_task_with_limit("slow", 6, 600),
        _build_task_with_limit("fast", 2, 100),
        _build_task_with_limit("twin", 2, 100),
    ]
    waiting = replace(parent, queued_tasks=tuple(sorted(valued, key=lambda each: each.task.task_id)))
    later = replace(parent, block_hash=b"\x11" * 32)
    works = [
        messages.work_id(parameters.chain_id, selection.parent, selection.task.task_id, address(miner))
        for miner in ("miner-1", "miner-2")
    ]
    chosen = scenario.POLE.select_task(later, parameters)
    engines = [replace(scenario.POLE, layer=MappingLayer(mode, 3, Shift.TRUNCATE, 3, False, 1)) for mode in MappingMode]
    layers = [each.layer for each in engines] + [MappingLayer(MappingMode.DENSE, 3, Shift.TRUNCATE, 3, True, 1)]
    found = prepare(node, "begun")
    release = node.builder.build_announcement(parent, found)
    test_set = [
        build_call_case(check_release, announcement=each, selection=selection, parameters=parameters)
        for each in (release, replace(release, release=replace(release.release, key=_HASH)))
    ]
    return (
        build_vector(
            "selection/value.json",
            "Two coins in 100 seconds beat six in 600; the lower task id wins a tie; without tasks a standing one.",
            *(
                build_call_case(Pole.select_task, self=scenario.POLE, parent=each, parameters=parameters)
                for each in (waiting, parent)
            ),
        ),
        build_vector("selection/test_set_fixed.json", "Only the key fixed at posting opens a test set.", *test_set),
        build_vector(
            "schedule/event_driven.json",
            "Deadlines bound the height of a task; its own time limit counts within the chain's.",
            *(
                build_call_case(
                    PoleDurations.schedule_height,
                    self=scenario.POLE.times,
                    parent=parent,
                    specification=each.specification,
                )
                for each in (valued[0], valued[1], _build_task_with_limit("endless", 1, 7_000))
            ),
        ),
        build_vector(
            "training/previous_hash.json",
            "Another parent block gives other vectors: what a mapping is named after, by mode and by miner.",
            *(
                build_call_case(MappingLayer.identity, self=layer, selection=on, work=work)
                for layer in layers
                for on in (selection, chosen)
                for work in works
            ),
        ),
        build_vector(
            "training/layer.json",
            "The layer in front of a model for 16 numbers, in each mode.",
            *(build_call_case(Pole.training_terms, self=each, selection=selection, work=works[0]) for each in engines),
        ),
        build_vector(
            "training/parts.json",
            "Sixteen products of a sample in four parts: the same four vectors for each, in each mode.",
            *(
                build_call_case(
                    Pole.training_terms,
                    self=replace(each, layer=replace(each.layer, parts=4)),
                    selection=selection,
                    work=works[0],
                )
                for each in engines
            ),
        ),
        build_vector("training/layer_shape.json", "Model input and sample decide on the layer.", *_shapes()),
    )


def _build_task_with_limit(name: str, coins: int, seconds: int) -> PostedTask:
    specification = replace(build_sample_specification(name), time_limit_seconds=seconds)
    return build_sample_task(name, coins * WEI_PER_ETHER, specification=specification)


def _shapes() -> list[Case]:
    flat = build_sample_specification("shapes")
    image = replace(flat, data=replace(flat.data, sample_shape=(3, 8, 8)))
    models = (mlp((128,), 4), strided_cnn((3, 8, 8), 4, (4,), 8), strided_cnn((12, 8, 8), 4, (4,), 8), mlp((4, 4), 4))
    return [
        build_call_case(layer_shape, specification=replace(task, model=model), layer=scenario.POLE.layer)
        for task in (flat, image)
        for model in models
    ]


# --- commitment, reveal, verification ----------------------------------------------------------------------------


def _judgement_case(node: ScenarioNode, measurements: CandidatePair, closed: bool, **world: tuple[int, int]) -> Case:
    """Return a judgement of these candidates; `world` holds the counts that were measured, by miner."""
    claims = {each.miner: each.correct for each in measurements}
    reveals = {each.key: node.builder.build_reveal(node.parent, each) for each in measurements}
    schedule = node.round.selection.schedule
    measured: dict[tuple[bytes, MeasurementKind], Measurement] = {}
    for each in measurements:
        name = each.miner.replace("-", "_")
        if name not in world:
            continue
        test, training = world[name]
        said = (claims[each.miner], read_mapped_training(each.model.training).correct)
        counts = ((MeasurementKind.COUNT, test, said[0], 100), (MeasurementKind.TRAINING, training, said[1], 400))
        measured[each.key, MeasurementKind.PAYLOAD] = Measurement(each.key, MeasurementKind.PAYLOAD, Finding.ACCEPTED)
        for kind, right, claimed, total in counts:
            finding, reason = (Finding.ACCEPTED, "") if right == claimed else (Finding.REJECTED, "claim_not_exact")
            measured[each.key, kind] = Measurement(each.key, kind, finding, reason, right, total)
    released = schedule.time_limit_milliseconds if closed else schedule.release_opens_milliseconds
    listed = tuple((each.key, each.commitment) for each in sorted(measurements, key=lambda each: each.key))
    case = JudgementCase(node.round.selection, listed, reveals, measured, True, released)
    return build_call_case(Pole.judge, self=scenario.POLE, case=case)


def _judgements() -> tuple[Vector, ...]:
    node, weak = scenario.start_pole_node(), scenario.start_pole_node()
    found = build_candidates(node, scenario.THREE_SOLUTIONS)
    weak.builder.training_claims.update({"miner-1": scenario.UNABLE, "miner-2": scenario.UNABLE})
    unable = build_candidates(weak, scenario.THREE_SOLUTIONS)
    honest = {"miner_1": (95, 400), "miner_2": (93, 400), "miner_3": (60, 400)}
    both = {"miner_1": (95, scenario.UNABLE), "miner_2": (93, scenario.UNABLE), "miner_3": (60, 400)}
    return (
        build_vector(
            "verification/algorithm_2.json",
            "Asked for, verified, below its count, near chance behind this block's layer, below the requirement.",
            _judgement_case(node, found, False),
            _judgement_case(node, found, False, **honest),
            _judgement_case(node, found, False, **{**honest, "miner_1": (95, 380)}),
            _judgement_case(node, found, False, **{**honest, "miner_1": (25, 104)}),
            _judgement_case(node, found, False, **{**honest, "miner_1": (95, 104)}),
            _judgement_case(weak, unable, False, **both),
        ),
        build_vector(
            "verification/best_wins.json",
            "The highest test accuracy wins, whoever came first; a false claim leaves the next one.",
            _judgement_case(node, found, False, **honest),
            _judgement_case(node, found, False, **{**honest, "miner_1": (94, 400)}),
        ),
        build_vector(
            "verification/waived.json",
            "At the time limit the requirement is waived only if nobody who claims to reach it stands.",
            _judgement_case(weak, unable, True, **both),
            _judgement_case(weak, unable, True, **{**both, "miner_3": (60, 110)}),
        ),
        *_commitments(),
        _siblings(),
    )


def _commitments() -> tuple[Vector, ...]:
    node, opened = scenario.start_pole_node(), scenario.start_pole_node(scenario.OPEN_BROADCAST)
    found, shown = prepare(node, "begun"), prepare(opened, "opened")
    selection, parameters = node.round.selection, node.builder.parameters
    last = selection.schedule.commitment_milliseconds
    times = [
        build_call_case(
            Pole.check_commitment,
            self=scenario.POLE,
            selection=selection,
            commitment=found[0].commitment,
            at_milliseconds=at,
            parameters=parameters,
        )
        for at in (last, last + 1)
    ]
    unlisted = node.builder.build_announcement(node.parent, found[:1])
    listed = [build_call_case(messages.release_root, commitments=each) for each in (unlisted.commitments, ())]
    thief = scenario.steal_candidate(opened, shown[0], "miner-3")
    for each in (shown[0], thief):
        opened.feed(CommitmentReceived(each.commitment, opened.round.selection.schedule.start_milliseconds + 1))
    return (
        build_vector("commitment/in_time.json", "Under the root of the release, or not at all.", *times, *listed),
        build_vector(
            "commitment/open.json",
            "With open broadcast a thief commits to the model that miner-1 has shown.",
            build_walk_case(opened),
        ),
        build_vector("training/requirement.json", "A header under the requirement or out of other rows.", *_headers()),
    )


def _headers() -> list[Case]:
    cases: list[Case] = []
    for right in (400, 360, 359):
        node = scenario.start_pole_node()
        node.builder.training_claims["miner-1"] = right
        won = node.builder.build_candidate(node.parent, "miner-1", 95)
        cases.append(_judgement_case(node, (won,), False, miner_1=(95, right)))
    return cases


def _siblings() -> Vector:
    node = scenario.start_pole_node()
    found = build_candidates(node, scenario.THREE_SOLUTIONS)
    worse = node.builder.build_block(node.parent, found, winner=found[1], hidden=found[:1])
    better = node.builder.build_block(node.parent, found)
    waived = replace(better, verdict=replace(better.verdict, engine=encode(Waiver())))
    cases = [
        build_call_case(Pole.weigh, self=scenario.POLE, block=block, siblings=siblings)
        for block, siblings in (
            (worse, (worse,)),
            (worse, (worse, better)),
            (better, (worse, better)),
            (waived, (worse, waived)),
            (worse, (worse, waived)),
        )
    ]
    return build_vector("fork_choice/better_sibling.json", "Who reached the requirement, then who is right.", *cases)


# --- payouts -----------------------------------------------------------------------------------------------------


def _payouts() -> tuple[Vector, ...]:
    shares = [
        build_call_case(
            OmmerRules.shares, self=rules, block_reward_gwei=_REWARD, winning_height=9, ommer_height=8, ommers=1
        )
        for rules in _rules()
    ]
    withheld = [build_call_case(OmmerRules.withheld_gwei, self=rules, block_reward_gwei=_REWARD) for rules in _rules()]
    return (
        build_vector(
            "payout/second_identity.json",
            "Alone, with its own loser beside it, and citing it at the next height; then the shares by themselves.",
            *_two_names(),
            *withheld,
            *shares,
        ),
        build_vector(
            "payout/ommer_too_old.json",
            "What nobody cited in six heights is forgotten and never minted.",
            *_build_expiry_cases(),
        ),
        build_vector(
            "payout/escrow.json",
            "Reached: paid. Not reached at the time limit: refunded. A silent data node: struck.",
            *_settlement_cases(),
        ),
    )


def _rules() -> tuple[OmmerRules, ...]:
    return tuple(OmmerRules(formula, funding, 250) for funding in OmmerFunding for formula in OmmerFormula)


def _payout(node: ScenarioNode, block: Block) -> Case:
    parameters = node.builder.parameters
    return build_call_case(
        Pole.compute_reward, self=scenario.POLE, selection=node.round.selection, block=block, parameters=parameters
    )


def _two_names() -> list[Case]:
    node = scenario.start_pole_node()
    parent, found = node.parent, build_candidates(node, HeightPlan({"miner-1": 95, "miner-2": 94}))
    cases = [_payout(node, node.builder.build_block(parent, each)) for each in (found[:1], found)]
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 94}))
    won = (node.builder.build_candidate(node.parent, "miner-1", 95),)
    ommer = node.builder.build_reveal(parent, found[1])
    return [
        *cases,
        *(_payout(node, node.builder.build_block(node.parent, won, cited=each)) for each in ((), (ommer,))),
    ]


def _build_expiry_cases() -> list[Case]:
    node, cases = scenario.start_pole_node(), list[Case]()
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 94}))
    for _ in range(6):
        cases.append(_payout(node, node.builder.build_block(node.parent, build_candidates(node, HeightPlan()))))
        run_empty_height(node, Deadline.COMMITMENT)
    return cases


def _settlement_cases() -> list[Case]:
    node = scenario.start_pole_node()
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted", 50 * WEI_PER_ETHER),)))
    run_height(node)
    reached = node.builder.build_block(node.parent, build_candidates(node, HeightPlan()))
    node.builder.training_claims["miner-1"] = scenario.UNABLE
    unable = node.builder.build_block(node.parent, build_candidates(node, HeightPlan()))
    blocks = (reached, unable, node.builder.build_empty_block(node.parent, Deadline.RELEASE))
    parameters = node.builder.parameters
    return [
        build_call_case(
            Pole.compute_reward, self=scenario.POLE, selection=node.round.selection, block=each, parameters=parameters
        )
        for each in blocks
    ]


# --- heights -----------------------------------------------------------------------------------------------------


def _heights() -> tuple[Vector, ...]:
    cited, limited, ended = scenario.start_pole_node(), scenario.start_pole_node(), scenario.start_pole_node()
    blocks = [run_height(cited, scenario.THREE_SOLUTIONS) for _ in range(2)]
    limited.builder.training_claims.update({"miner-1": scenario.UNABLE, "miner-2": scenario.UNABLE - 50})
    scenario.run_to_limit(limited, HeightPlan({"miner-1": 80, "miner-2": 83}))
    prepare(ended, "opened")
    run_empty_height(ended, Deadline.COMMITMENT)
    return (
        build_vector(
            "height/ommer.json", "Three solutions; the next block cites the best loser.", build_walk_case(cited)
        ),
        build_vector("height/time_limit.json", "Nobody reaches the requirement in time.", build_walk_case(limited)),
        build_vector("height/empty.json", "Nobody commits at all.", build_walk_case(ended)),
        build_vector(
            "header/header.json",
            "The header of 3.3, without and with an ommer.",
            *(build_call_case(build_header, block=each) for each in blocks),
        ),
    )
