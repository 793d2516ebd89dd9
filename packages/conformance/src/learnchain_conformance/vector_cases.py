"""Choose the vectors that belong to no engine alone: every noun, a height on paper, evidence, audits, disputes."""

from dataclasses import replace

from learnchain.consensus import audits
from learnchain.consensus.validity import check_key_release, check_opening, check_release
from learnchain.engines.dlbc.scenario import DLBC, start_dlbc_node
from learnchain.protocol.events import Event, EvidenceReported
from learnchain.protocol.messages import Deadline, Evidence
from learnchain.protocol.selection import Schedule
from learnchain.simulation.chain_builder import alter
from learnchain.simulation.dispute_cases import run_audit
from learnchain.simulation.sample_tasks import build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_height
from learnchain_conformance.bad_inputs import prepare
from learnchain_conformance.dispute_vectors import audit_vectors, dispute_vectors
from learnchain_conformance.engine_scenarios import engine_vectors, shipped_engines
from learnchain_conformance.evidence_cases import build_double_commitment
from learnchain_conformance.reference_cases import reference_vectors
from learnchain_conformance.vectors import Case, Vector, build_call_case, build_message_case, build_walk_case


def all_vectors() -> tuple[Vector, ...]:
    """Return every vector, in the order of their paths."""
    found = (
        *_messages(),
        *_heights(),
        *_evidence(),
        *audit_vectors(start_dlbc_node()),
        *dispute_vectors((start_dlbc_node(), start_dlbc_node(), start_dlbc_node(), start_dlbc_node())),
        *reference_vectors(),
        *(vector for name in shipped_engines() for vector in engine_vectors(name)),
    )
    return tuple(sorted(found, key=lambda each: each.path))


def _walk_case(node: ScenarioNode, *last: Event) -> Case:
    return build_walk_case(DLBC, node.builder.parameters, node.builder.build_genesis(), (*node.events, *last))


# --- messages and heights ----------------------------------------------------------------------------------------


def _height_messages(node: ScenarioNode) -> tuple[object, ...]:
    """Return one of every noun of a height, in the order in which they appear."""
    parent, builder = node.parent, node.builder
    found = prepare(node, "begun")
    announcement, block = builder.build_announcement(parent, found), builder.build_block(parent, found)
    reward = builder.rules.compute_reward(node.round.selection, block, builder.parameters)
    return (
        node.round.selection.task,
        builder.rules.required_escrow(build_sample_task("wanted").task),
        builder.build_key_release(parent),
        found[0].model.training,
        found[0].model,
        found[0].commitment,
        announcement.release,
        announcement,
        builder.build_reveal(parent, found[0]),
        block.verdict.entries[0],
        block.verdict,
        block,
        builder.build_empty_block(parent, Deadline.RELEASE),
        build_block_evidence(),
        node.round.head,
        reward.payouts[0],
    )


def build_block_evidence() -> Evidence:
    """Return two commitments of one miner on genesis, reported after the first block."""
    node = start_dlbc_node()
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 93}))
    return build_double_commitment(node)


def _evidence() -> tuple[Vector, ...]:
    """Walk a fault from two signed commitments to the bond, and a challenge from blocks to its seed."""
    node = start_dlbc_node()
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 93}))
    node.feed(EvidenceReported(build_double_commitment(node), node.parent.end_milliseconds))
    run_height(node, HeightPlan({"miner-3": 96}))
    for plan in (HeightPlan({"miner-2": 91}), HeightPlan({"miner-3": 92})):
        run_height(node, plan)
    facts = node.parent.bonds.height_records
    seeds = [
        build_call_case(audits.audit_seed, chain_id=31_337, audited=facts[0], later=each)
        for each in (facts, facts[:3], ())
    ]
    return (
        Vector(
            "dlbc/height/audit.json",
            "A height is audited: committed, opened, paid.",
            (_walk_case(run_audit(start_dlbc_node())),),
        ),
        Vector("dlbc/height/evidence.json", "A miner commits twice, is reported and pays.", (_walk_case(node),)),
        Vector("messages/challenge_seed.json", "Three trained blocks fix what is audited; two do not.", tuple(seeds)),
    )


def _messages() -> tuple[Vector, ...]:
    return tuple(
        Vector(
            f"messages/{type(each).__name__}.json",
            f"Canonical bytes of {type(each).__name__}.",
            (build_message_case(each),),
        )
        for each in _height_messages(start_dlbc_node())
    )


def _heights() -> tuple[Vector, ...]:
    trained = start_dlbc_node()
    run_height(trained, HeightPlan({"miner-1": 95, "miner-2": 97}, claims={"miner-2": 99}))
    every = tuple(build_message_case(each) for each in _height_messages(start_dlbc_node()))
    return (
        Vector(
            "dlbc/height/trained.json",
            "A height on paper: two miners, one of whom lies.",
            (*every, _walk_case(trained)),
        ),
        Vector(
            "pole/height/messages.json", "A PoLe height on paper: the same nouns, deadlines by event.", _pole_height()
        ),
    )


def _pole_height() -> tuple[Case, ...]:
    """Walk a height whose deadlines follow the release: commitments until somebody releases, then a fixed time."""
    node = start_dlbc_node()
    parent, start = node.parent, node.parent.end_milliseconds
    schedule = Schedule(
        start_milliseconds=start,
        key_milliseconds=start + 10_000,
        release_opens_milliseconds=start + 20_000,
        commitment_milliseconds=start + 600_000,
        release_milliseconds=start + 600_000,
        reveal_after_milliseconds=20_000,
        block_after_milliseconds=60_000,
        is_clocked=False,
        payload_timestamp_seconds=start // 1000 + 20,
    )
    chosen = replace(node.round.selection, schedule=schedule)
    found = prepare(node, "begun")
    builder = node.builder
    announcement = builder.build_announcement(parent, found)
    early = alter(announcement.release, "steward", released_milliseconds=start + 45_000)
    announcement = replace(announcement, release=early)
    shared = {"selection": chosen, "parameters": builder.parameters}
    reveals = [builder.build_reveal(parent, each) for each in found]
    openings = zip(found, reveals, strict=True)
    after = [(Deadline.KEY, None), (Deadline.COMMITMENT, None), (Deadline.RELEASE, None)]
    deadlines = [*after, (Deadline.REVEAL, start + 45_000), (Deadline.BLOCK, start + 45_000), (Deadline.BLOCK, None)]
    nouns: tuple[object, ...] = (
        builder.build_key_release(parent),
        found[0].model,
        *(each.commitment for each in found),
        announcement.release,
        announcement,
        *reveals,
    )
    return (
        *(
            build_call_case(Schedule.deadline, self=schedule, which=which, released_milliseconds=at)
            for which, at in deadlines
        ),
        *(build_message_case(each) for each in nouns),
        build_call_case(check_key_release, message=builder.build_key_release(parent), **shared),
        build_call_case(check_release, announcement=announcement, **shared),
        *(
            build_call_case(check_opening, commitment=each.commitment, reveal=opened, **shared)
            for each, opened in openings
        ),
    )
