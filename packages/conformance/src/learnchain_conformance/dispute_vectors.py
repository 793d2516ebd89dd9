"""Show as vectors what is said in a dispute, and how each of its ends comes about."""

from dataclasses import replace

from learnchain.primitives.audit import AuditFinding
from learnchain.primitives.block_checks import check_opening
from learnchain.primitives.bonds import Dispute
from learnchain.primitives.dispute_messages import Accusation, DisputeAnswer
from learnchain.primitives.events import EvidenceReported
from learnchain.testing.audit_cases import first_fact
from learnchain.testing.dispute_cases import (
    accusation_of,
    accused,
    answer_to,
    forged_steps,
    forgery,
    said,
    staked_accuser,
)
from learnchain.testing.play import Observer, play_height
from learnchain.testing.vectors import Case, Vector, call, noun, walk


def dispute_vectors(begun: tuple[Observer, Observer, Observer, Observer]) -> tuple[Vector, ...]:
    """Return the nouns of a dispute, its three ends, and a winner of a class that the chain does not accept."""
    paid, silent, proven, foreign = begun
    accusation, answer = _answered(paid)
    for _ in range(paid.builder.parameters.proof_blocks):
        play_height(paid)
    _asked(silent)
    for _ in range(silent.builder.parameters.answer_blocks + 1):
        play_height(silent)
    _proven(proven)
    nouns = (accusation, answer.opening.first, answer.opening, answer.answer, answer)
    ends = (
        ("unproven", "Steps are asked for, shown and not disproved: the accuser pays.", paid),
        ("unanswered", "Steps are asked for and not shown: the bond is lost.", silent),
        ("proven", "Steps are shown that nobody can have taken: the bond is lost.", proven),
    )
    return (
        *(_canonical(each) for each in nouns),
        *(Vector(f"dlbc/height/dispute_{name}.json", about, (_walked(node),)) for name, about, node in ends),
        Vector("messages/machine_class.json", "A chain names the classes that it accepts.", _classes(foreign)),
    )


def _canonical(value: object) -> Vector:
    name = type(value).__name__
    return Vector(f"messages/{name}.json", f"Canonical bytes of {name}.", (noun(value),))


def _asked(node: Observer) -> tuple[Accusation, Dispute]:
    staked_accuser(node)
    play_height(node)
    accusation = accusation_of(first_fact(node))
    return accusation, accused(node, accusation)


def _answered(node: Observer) -> tuple[Accusation, DisputeAnswer]:
    accusation, dispute = _asked(node)
    answer = answer_to(node, dispute)
    said(node, answer)
    play_height(node)
    return accusation, answer


def _proven(node: Observer) -> None:
    _, dispute = _asked(node)
    answer = answer_to(node, dispute, forged_steps(node, dispute))
    said(node, answer)
    play_height(node)
    evidence = forgery(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS)
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))
    play_height(node)


def _walked(node: Observer) -> Case:
    return walk(node.builder.rules, node.builder.parameters, node.builder.genesis(), tuple(node.events))


def _classes(node: Observer) -> tuple[Case, ...]:
    builder, parent = node.builder, node.parent
    found = builder.candidate(parent, "miner-1", 95)
    reveal, own = builder.reveal(parent, found), found.model.training.machine_class
    lists = ((), (own,), (b"\x02" * 32,))
    return tuple(
        call(
            check_opening,
            commitment=found.commitment,
            reveal=reveal,
            selection=node.round.selection,
            parameters=replace(builder.parameters, accepted_classes=each),
        )
        for each in lists
    )
