"""Choose what the vectors of proof of work show: its readings, whole heights, and every bad input it shares or adds."""

from dataclasses import replace

from learnchain.engines.proof_of_work import ProofOfWork
from learnchain.engines.proof_of_work.scenario import (
    PROOF_OF_WORK,
    make_unsolved_digest,
    start_proof_of_work_node,
)
from learnchain.protocol.messages import Deadline
from learnchain.simulation.chain_builder import alter
from learnchain.simulation.scenario import run_empty_height, run_height
from learnchain_conformance.bad_inputs import PLAN, prepare
from learnchain_conformance.vectors import Vector, build_call_case, build_vector, build_walk_case


def build_vectors() -> tuple[Vector, ...]:
    """Return the vectors of proof of work."""
    return (*_interpretation_vectors(), *_heights())


def _interpretation_vectors() -> tuple[Vector, ...]:
    node, engine = start_proof_of_work_node(), PROOF_OF_WORK
    parameters, selection = node.builder.parameters, node.round.selection
    found = prepare(node, "begun")
    solved = found[0].commitment
    unsolved = alter(solved, digest=make_unsolved_digest(node, solved))
    shared = {"self": engine, "selection": selection, "parameters": parameters, "at_milliseconds": 1}
    first, second = (node.builder.build_block(node.parent, (each,)) for each in found)
    paid = [
        build_call_case(
            ProofOfWork.compute_reward, self=engine, selection=selection, block=block, parameters=parameters
        )
        for block in (first, node.builder.build_empty_block(node.parent, Deadline.KEY))
    ]
    late = replace(first, release=replace(first.release, released_milliseconds=selection.schedule.key_milliseconds))
    slow = build_call_case(
        ProofOfWork.compute_reward, self=engine, selection=selection, block=late, parameters=parameters
    )
    return (
        build_vector(
            "commitment/unsolved.json",
            "A digest below the target is a solution, the target itself is none.",
            build_call_case(ProofOfWork.training_terms, self=engine, selection=selection, work=b"\0" * 32),
            *(build_call_case(ProofOfWork.check_commitment, commitment=each, **shared) for each in (solved, unsolved)),
        ),
        build_vector(
            "payout/target.json",
            "A solution at once makes the next puzzle harder; a height without one makes it easier.",
            *paid,
            slow,
        ),
        build_vector(
            "fork_choice/longest.json",
            "Solved siblings weigh the same.",
            *(
                build_call_case(ProofOfWork.weigh, self=engine, block=each, siblings=(first, second))
                for each in (first, second)
            ),
        ),
    )


def _heights() -> tuple[Vector, ...]:
    solved, ended = start_proof_of_work_node(), start_proof_of_work_node()
    for _ in range(2):
        run_height(solved, PLAN)
    prepare(ended, "opened")
    run_empty_height(ended, Deadline.COMMITMENT)
    return (
        build_vector("height/solved.json", "Two heights end with a solution.", build_walk_case(solved)),
        build_vector("height/empty.json", "Nobody finds a solution in time.", build_walk_case(ended)),
    )
