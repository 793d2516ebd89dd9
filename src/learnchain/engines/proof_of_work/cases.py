"""Choose what the vectors of proof of work show: its readings, whole heights, and every bad input it shares or adds."""

from dataclasses import replace

from learnchain.engines.proof_of_work import READINGS, ProofOfWork
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK, PROOF_OF_WORK_BAD_INPUTS, solving, unsolved_digest
from learnchain.protocol.events import Event
from learnchain.protocol.messages import Deadline
from learnchain.simulation.chain_builder import altered
from learnchain.simulation.scenario import Observer, play_empty, play_height
from learnchain_conformance.bad_inputs import PLAN, BadInput, prepare
from learnchain_conformance.vectors import Case, Vector, call, walk

_INTERPRETATIONS: dict[str, tuple[str, ...]] = {}


for _each in READINGS:
    _INTERPRETATIONS[_each.vector] = (*_INTERPRETATIONS.get(_each.vector, ()), _each.identifier)


def proof_of_work_vectors() -> tuple[Vector, ...]:
    """Return the vectors of proof of work."""
    return (*_interpretation_vectors(), *_heights(), *(_bad_input(each) for each in PROOF_OF_WORK_BAD_INPUTS))


def _vector(path: str, about: str, *cases: Case) -> Vector:
    return Vector(path, about, cases, ", ".join(_INTERPRETATIONS.get(path, ())))


def _interpretation_vectors() -> tuple[Vector, ...]:
    node, engine = solving(), PROOF_OF_WORK
    parameters, selection = node.builder.parameters, node.round.selection
    found = prepare(node, "begun")
    solved = found[0].commitment
    unsolved = altered(solved, digest=unsolved_digest(node, solved))
    shared = {"self": engine, "selection": selection, "parameters": parameters, "at_milliseconds": 1}
    first, second = (node.builder.block(node.parent, (each,)) for each in found)
    paid = [
        call(ProofOfWork.payouts, self=engine, selection=selection, block=block, parameters=parameters)
        for block in (first, node.builder.empty_block(node.parent, Deadline.KEY))
    ]
    late = replace(first, release=replace(first.release, released_milliseconds=selection.schedule.key_milliseconds))
    slow = call(ProofOfWork.payouts, self=engine, selection=selection, block=late, parameters=parameters)
    return (
        _vector(
            "proof_of_work/commitment/unsolved.json",
            "A digest below the target is a solution, the target itself is none.",
            call(ProofOfWork.training_terms, self=engine, selection=selection, work=b"\0" * 32),
            *(call(ProofOfWork.check_commitment, commitment=each, **shared) for each in (solved, unsolved)),
        ),
        _vector(
            "proof_of_work/payout/target.json",
            "A solution at once makes the next puzzle harder; a height without one makes it easier.",
            *paid,
            slow,
        ),
        _vector(
            "proof_of_work/fork_choice/longest.json",
            "Solved siblings weigh the same.",
            *(call(ProofOfWork.weigh, self=engine, block=each, siblings=(first, second)) for each in (first, second)),
        ),
    )


def _walk_case(node: Observer, *last: Event) -> Case:
    return walk(PROOF_OF_WORK, node.builder.parameters, node.builder.genesis(), (*node.events, *last))


def _heights() -> tuple[Vector, ...]:
    solved, ended = solving(), solving()
    for _ in range(2):
        play_height(solved, PLAN)
    prepare(ended, "opened")
    play_empty(ended, Deadline.COMMITMENT)
    return (
        _vector("proof_of_work/height/solved.json", "Two heights end with a solution.", _walk_case(solved)),
        _vector("proof_of_work/height/empty.json", "Nobody finds a solution in time.", _walk_case(ended)),
    )


def _bad_input(wrong: BadInput) -> Vector:
    node = solving()
    event = wrong.make(node, prepare(node, wrong.stage))
    path = f"proof_of_work/bad_input/{wrong.name}.json"
    return Vector(path, f"Refused: {wrong.reason.value}.", (_walk_case(node, event),))
