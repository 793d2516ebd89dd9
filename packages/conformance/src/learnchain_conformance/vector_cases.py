"""Choose the vectors that belong to no engine alone: every noun, a height on paper, evidence, audits, disputes."""

from dataclasses import replace

from learnchain.consensus import audits
from learnchain.consensus.validity import check_key_release, check_opening, check_release
from learnchain.engines.dlbc.scenario import DLBC, started
from learnchain.protocol.events import Event, EvidenceReported
from learnchain.protocol.messages import Deadline, Evidence
from learnchain.protocol.selection import Schedule
from learnchain.simulation.chain_builder import altered
from learnchain.simulation.dispute_cases import audited
from learnchain.simulation.sample_tasks import sample_task
from learnchain.simulation.scenario import Observer, Plan, play_height
from learnchain_conformance.bad_inputs import prepare
from learnchain_conformance.dispute_vectors import audit_vectors, dispute_vectors
from learnchain_conformance.engine_cases import engine_vectors
from learnchain_conformance.evidence_cases import double_commitment
from learnchain_conformance.reference_cases import reference_vectors
from learnchain_conformance.vectors import Case, Vector, call, noun, walk


def all_vectors() -> tuple[Vector, ...]:
    """Return every vector, in the order of their paths."""
    found = (
        *_messages(),
        *_heights(),
        *_evidence(),
        *audit_vectors(started()),
        *dispute_vectors((started(), started(), started(), started())),
        *reference_vectors(),
        *engine_vectors(),
    )
    return tuple(sorted(found, key=lambda each: each.path))


def _walk_case(node: Observer, *last: Event) -> Case:
    return walk(DLBC, node.builder.parameters, node.builder.genesis(), (*node.events, *last))


# --- messages and heights ----------------------------------------------------------------------------------------


def _height_messages(node: Observer) -> tuple[object, ...]:
    """Return one of every noun of a height, in the order in which they appear."""
    parent, builder = node.parent, node.builder
    found = prepare(node, "begun")
    announcement, block = builder.announcement(parent, found), builder.block(parent, found)
    reward = builder.rules.payouts(node.round.selection, block, builder.parameters)
    return (
        node.round.selection.task,
        builder.rules.escrow(sample_task("wanted").task),
        builder.key_release(parent),
        found[0].model.training,
        found[0].model,
        found[0].commitment,
        announcement.release,
        announcement,
        builder.reveal(parent, found[0]),
        block.verdict.entries[0],
        block.verdict,
        block,
        builder.empty_block(parent, Deadline.RELEASE),
        evidence_on_a_block(),
        node.round.head,
        reward.payouts[0],
    )


def evidence_on_a_block() -> Evidence:
    """Return two commitments of one miner on genesis, reported after the first block."""
    node = started()
    play_height(node, Plan({"miner-1": 95, "miner-2": 93}))
    return double_commitment(node)


def _evidence() -> tuple[Vector, ...]:
    """Walk a fault from two signed commitments to the bond, and a challenge from blocks to its seed."""
    node = started()
    play_height(node, Plan({"miner-1": 95, "miner-2": 93}))
    node.feed(EvidenceReported(double_commitment(node), node.parent.end_milliseconds))
    play_height(node, Plan({"miner-3": 96}))
    for plan in (Plan({"miner-2": 91}), Plan({"miner-3": 92})):
        play_height(node, plan)
    facts = node.parent.bonds.facts
    seeds = [
        call(audits.challenge_seed, chain_id=31_337, audited=facts[0], later=each) for each in (facts, facts[:3], ())
    ]
    return (
        Vector(
            "dlbc/height/audit.json", "A height is audited: committed, opened, paid.", (_walk_case(audited(started())),)
        ),
        Vector("dlbc/height/evidence.json", "A miner commits twice, is reported and pays.", (_walk_case(node),)),
        Vector("messages/challenge_seed.json", "Three trained blocks fix what is audited; two do not.", tuple(seeds)),
    )


def _messages() -> tuple[Vector, ...]:
    return tuple(
        Vector(f"messages/{type(each).__name__}.json", f"Canonical bytes of {type(each).__name__}.", (noun(each),))
        for each in _height_messages(started())
    )


def _heights() -> tuple[Vector, ...]:
    trained = started()
    play_height(trained, Plan({"miner-1": 95, "miner-2": 97}, claims={"miner-2": 99}))
    every = tuple(noun(each) for each in _height_messages(started()))
    return (
        Vector(
            "dlbc/height/trained.json", "A height on paper: two miners, one of whom lies.", (*every, _walk_case(trained))
        ),
        Vector(
            "pole/height/messages.json", "A PoLe height on paper: the same nouns, deadlines by event.", _pole_height()
        ),
    )


def _pole_height() -> tuple[Case, ...]:
    """Walk a height whose deadlines follow the release: commitments until somebody releases, then a fixed time."""
    node = started()
    parent, start = node.parent, node.parent.end_milliseconds
    schedule = Schedule(
        start_milliseconds=start,
        key_milliseconds=start + 10_000,
        release_opens_milliseconds=start + 20_000,
        commitment_milliseconds=start + 600_000,
        release_milliseconds=start + 600_000,
        reveal_after_milliseconds=20_000,
        block_after_milliseconds=60_000,
        clocked=False,
        payload_timestamp_seconds=start // 1000 + 20,
    )
    chosen = replace(node.round.selection, schedule=schedule)
    found = prepare(node, "begun")
    builder = node.builder
    announcement = builder.announcement(parent, found)
    early = altered(announcement.release, "steward", released_milliseconds=start + 45_000)
    announcement = replace(announcement, release=early)
    shared = {"selection": chosen, "parameters": builder.parameters}
    reveals = [builder.reveal(parent, each) for each in found]
    openings = zip(found, reveals, strict=True)
    after = [(Deadline.KEY, None), (Deadline.COMMITMENT, None), (Deadline.RELEASE, None)]
    deadlines = [*after, (Deadline.REVEAL, start + 45_000), (Deadline.BLOCK, start + 45_000), (Deadline.BLOCK, None)]
    nouns: tuple[object, ...] = (
        builder.key_release(parent),
        found[0].model,
        *(each.commitment for each in found),
        announcement.release,
        announcement,
        *reveals,
    )
    return (
        *(call(Schedule.deadline, self=schedule, which=which, released_milliseconds=at) for which, at in deadlines),
        *(noun(each) for each in nouns),
        call(check_key_release, message=builder.key_release(parent), **shared),
        call(check_release, announcement=announcement, **shared),
        *(call(check_opening, commitment=each.commitment, reveal=opened, **shared) for each, opened in openings),
    )
