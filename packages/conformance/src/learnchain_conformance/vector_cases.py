"""Choose the vectors that belong to no engine alone: every message, a height by event, evidence, audits, disputes."""

from dataclasses import replace

from learnchain.consensus import audits
from learnchain.consensus.audits import AuditFinding
from learnchain.consensus.validity import check_key_release, check_opening, check_release
from learnchain.engines.dlbc.scenario import start_dlbc_node
from learnchain.protocol import audit_messages
from learnchain.protocol.audit_messages import Challenge, ChallengeResponse
from learnchain.protocol.events import EvidenceReported
from learnchain.protocol.messages import Deadline
from learnchain.protocol.state import Dispute, Schedule
from learnchain.simulation.chain_builder import alter
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    build_audit_commitment,
    build_audit_report,
    build_challenge,
    build_forgery_evidence,
    build_response,
    carry_challenge,
    first_height_record,
    forge_steps,
    run_audit,
    run_until_seeded,
    send_message,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_height
from learnchain_conformance.bad_inputs import prepare
from learnchain_conformance.engine_scenarios import engine_vectors, find_scenario, shipped_engines
from learnchain_conformance.evidence_cases import build_double_commitment
from learnchain_conformance.vectors import (
    Case,
    Vector,
    VectorFolder,
    build_call_case,
    build_message_case,
    build_vector,
    build_walk_case,
    engine_folder,
)

OTHER = "node-2"


MESSAGES = "protocol/vectors"
"""Where the vectors of messages and of the functions of all engines lie in the package."""


def all_folders() -> tuple[VectorFolder, ...]:
    """Return the vectors of messages, and of each engine; what every engine shares is walked under DLBC."""
    folders = [VectorFolder(MESSAGES, (*_messages(), *_shared_functions()), {}, {}, start_dlbc_node)]
    for name in shipped_engines():
        shared = _walks() if name == "dlbc" else ()
        folders.append(engine_folder(find_scenario(name), (*engine_vectors(name), *shared), f"engines/{name}/vectors"))
    return tuple(folders)


# --- messages ------------------------------------------------------------------------------------------------------


def _messages() -> tuple[Vector, ...]:
    """Return one of every message of a height, of an audit and of a dispute."""
    node = start_dlbc_node()
    parent, builder = node.parent, node.builder
    found = prepare(node, "begun")
    announcement, block = builder.build_announcement(parent, found), builder.build_block(parent, found)
    reward = builder.rules.compute_reward(node.round.selection, block, builder.parameters)
    reported = start_dlbc_node()
    run_height(reported, HeightPlan({"miner-1": 95, "miner-2": 93}))
    report = build_audit_report(run_until_seeded(start_dlbc_node()))
    challenge, response = _run_response(start_dlbc_node())
    values: tuple[object, ...] = (
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
        build_double_commitment(reported),
        node.round.head,
        reward.payouts[0],
        build_audit_commitment(report),
        report.segments[0],
        report,
        challenge,
        response.opening.first,
        response.opening,
        response.disclosure,
        response,
    )
    return tuple(
        build_vector(
            f"{type(each).__name__}.json", f"Canonical bytes of {type(each).__name__}.", build_message_case(each)
        )
        for each in values
    )


# --- functions of all engines --------------------------------------------------------------------------------------


def _shared_functions() -> tuple[Vector, ...]:
    node = run_until_seeded(start_dlbc_node())
    records = node.parent.bonds.height_records
    seeds = [
        build_call_case(audits.audit_seed, chain_id=31_337, audited=records[0], later=each)
        for each in (records, records[:3], ())
    ]
    facts = {"book": node.parent.bonds, "fact": first_height_record(node), "parameters": node.builder.parameters}
    given = [build_call_case(audits.assign_segments, auditor=address(name), **facts) for name in (AUDITOR, OTHER)]
    digest = build_call_case(audit_messages.report_digest, report=build_audit_report(node))
    about = "Two auditors of one height replay segments of their own; forced errors follow from the seed."
    return (
        build_vector("audit_seed.json", "Three trained blocks fix what is audited; two do not.", *seeds),
        build_vector("audit_assignment.json", about, *given, digest),
        build_vector("machine_class.json", "A chain names the classes that it accepts.", *_classes()),
        build_vector(
            "event_driven_height.json",
            "Deadlines that follow the release instead of the clock, and the same messages.",
            *_event_driven_height(),
        ),
    )


def _classes() -> tuple[Case, ...]:
    node = start_dlbc_node()
    builder, parent = node.builder, node.parent
    found = builder.build_candidate(parent, "miner-1", 95)
    reveal, own = builder.build_reveal(parent, found), found.model.training.machine_class
    lists = ((), (own,), (b"\x02" * 32,))
    return tuple(
        build_call_case(
            check_opening,
            commitment=found.commitment,
            reveal=reveal,
            selection=node.round.selection,
            parameters=replace(builder.parameters, accepted_classes=each),
        )
        for each in lists
    )


def _event_driven_height() -> tuple[Case, ...]:
    """Walk a height whose deadlines follow the release: commitments until the release, then a fixed time."""
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
    return (
        *(
            build_call_case(Schedule.deadline, self=schedule, which=which, released_milliseconds=at)
            for which, at in deadlines
        ),
        build_call_case(check_key_release, message=builder.build_key_release(parent), **shared),
        build_call_case(check_release, announcement=announcement, **shared),
        *(
            build_call_case(check_opening, commitment=each.commitment, reveal=opened, **shared)
            for each, opened in openings
        ),
    )


# --- heights, evidence, audits, disputes ---------------------------------------------------------------------------


def _walks() -> tuple[Vector, ...]:
    """Walk a height, a fault from two signed commitments to the bond, an audit, and the three ends of a dispute."""
    trained, reported, paid, silent, proven = (start_dlbc_node() for _ in range(5))
    run_height(trained, HeightPlan({"miner-1": 95, "miner-2": 97}, claims={"miner-2": 99}))
    run_height(reported, HeightPlan({"miner-1": 95, "miner-2": 93}))
    reported.feed(EvidenceReported(build_double_commitment(reported), reported.parent.end_milliseconds))
    for claims in ({"miner-3": 96}, {"miner-2": 91}, {"miner-3": 92}):
        run_height(reported, HeightPlan(claims))
    _run_response(paid)
    for _ in range(paid.builder.parameters.proof_blocks):
        run_height(paid)
    _run_challenge(silent)
    for _ in range(silent.builder.parameters.response_blocks + 1):
        run_height(silent)
    _run_fraud_proof(proven)
    walks = (
        ("trained", "A height on paper: two miners, one of whom lies.", trained),
        ("audit", "A height is audited: committed, opened, paid.", run_audit(start_dlbc_node())),
        ("evidence", "A miner commits twice, is reported and pays.", reported),
        ("dispute_defended", "Steps are asked for, shown and not disproved: the challenger pays.", paid),
        ("dispute_timed_out", "Steps are asked for and not shown: the bond is lost.", silent),
        ("dispute_fraud_proven", "Steps are shown that cannot have been taken: the bond is lost.", proven),
    )
    return tuple(build_vector(f"height/{name}.json", about, build_walk_case(node)) for name, about, node in walks)


def _run_challenge(node: ScenarioNode) -> tuple[Challenge, Dispute]:
    stake_challenger(node)
    run_height(node)
    accusation = build_challenge(first_height_record(node))
    return accusation, carry_challenge(node, accusation)


def _run_response(node: ScenarioNode) -> tuple[Challenge, ChallengeResponse]:
    accusation, dispute = _run_challenge(node)
    answer = build_response(node, dispute)
    send_message(node, answer)
    run_height(node)
    return accusation, answer


def _run_fraud_proof(node: ScenarioNode) -> None:
    _, dispute = _run_challenge(node)
    answer = build_response(node, dispute, forge_steps(node, dispute))
    send_message(node, answer)
    run_height(node)
    evidence = build_forgery_evidence(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS)
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))
    run_height(node)
