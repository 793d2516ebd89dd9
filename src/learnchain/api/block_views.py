"""A block as JSON values: what won it, training or a hash puzzle, or that nobody did."""

from typing import Any

from learnchain.node.api.dispute_views import carried_view
from learnchain.primitives.block_checks import NOBODY
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.content_id import cid_text
from learnchain.primitives.messages import AnyBlock, Block, work_id
from learnchain.primitives.puzzle import expected_attempts
from learnchain.primitives.selection import Schedule, Selection
from learnchain.primitives.task_specification import Metric, TaskSpecification
from learnchain.primitives.training_terms import HashPuzzle
from learnchain.rules.contract import Rules


def solved_puzzle(rules: Rules, selection: Selection, block: AnyBlock) -> HashPuzzle | None:
    """Return the puzzle that won a block; nothing where a model did, or nobody."""
    # Terms may take a mapping layer to draw. A hash is right about nothing, so whoever was right has trained.
    if not isinstance(block, Block) or block.verdict.correct:
        return None
    work = work_id(block.chain_id, block.parent, selection.task.task_id, block.proposer)
    terms = rules.training_terms(selection, work)
    return terms if isinstance(terms, HashPuzzle) else None


def block_view(
    block: AnyBlock, parent: ChainState, state: ChainState, selection: Selection, puzzle: HashPuzzle | None = None
) -> dict[str, Any]:
    """Return a block as JSON values; `won_by` says whether a model, a hash or nobody won it."""
    view = _carried(block, parent, state, selection)
    if not isinstance(block, Block):
        return {**view, "empty": True, "won_by": None, "trained": False, "missed": block.missed.value}
    won = {**view, "empty": False, **_won(block, selection.schedule)}
    return {**won, **(_trained(block, selection) if puzzle is None else _hashed(block, selection, puzzle))}


def _carried(block: AnyBlock, parent: ChainState, state: ChainState, selection: Selection) -> dict[str, Any]:
    """Return what blocks of every kind say."""
    return {
        "height": block.height,
        "hash": state.block_hash.hex(),
        "parent": block.parent.hex(),
        "proposer": "0x" + block.proposer.hex(),
        "task": {"id": selection.task.task_id.hex(), "name": selection.posted.specification.name},
        "standing": selection.task.standing,
        "score": selection.score,
        "interval_seconds": (block.end_milliseconds - parent.end_milliseconds) / 1000,
        "payload": block.payload_hash.hex(),
        "unselected": [each.hex() for each in block.unselected],
        "payouts": [
            {"recipient": "0x" + each.recipient.hex(), "amount_gwei": each.amount_gwei, "kind": each.kind}
            for each in state.reward.payouts
        ],
        "settlements": [
            {
                "outcome": each.outcome.value,
                "recipient": "0x" + each.recipient.hex(),
                "amount_wei": each.amount_wei,
            }
            for each in state.reward.settlements
        ],
        "evidence": [
            {
                "fault": each.fault.value,
                "height": each.height,
                "offender": "0x" + each.offender.hex(),
                "reporter": "0x" + each.reporter.hex(),
            }
            for each in block.evidence
        ],
        **carried_view(block),
    }


def _won(block: Block, schedule: Schedule) -> dict[str, Any]:
    """Return who won, by whose verdict, and when the phases of the height ended."""
    entries = [
        {
            "miner": "0x" + each.miner.hex(),
            "outcome": each.outcome.value,
            "correct": each.claim_correct,
            "reason": each.reason,
        }
        for each in block.verdict.entries
    ]
    return {
        "winner": "0x" + block.reveal.miner.hex(),
        **_phases(schedule, block),
        "verdict": entries,
        "waived": block.verdict.waived,
        "ommers": [
            {"height": each.height, "miner": "0x" + each.miner.hex(), "correct": each.claim_correct}
            for each in block.ommers
        ],
    }


def _trained(block: Block, selection: Selection) -> dict[str, Any]:
    """Return the model that won, what it is worth, and the record of its training."""
    training = block.reveal.training
    return {
        "won_by": "training",
        "trained": True,
        "accuracy": {"correct": block.verdict.correct, "total": block.verdict.total},
        "label": count_label(selection.posted.specification),
        "training_mode": selection.posted.specification.training.mode.value,
        "model": cid_text(block.reveal.model_cid),
        "trace": cid_text(training.trace_cid),
        "mapping": None if training.mapping == NOBODY else training.mapping.hex(),
        "epochs": training.hyperparameters.epochs,
        "turn": selection.course.turn,
        "champion_before": {"correct": block.verdict.baseline_correct, "total": block.verdict.baseline_total},
        "training_accuracy": {"correct": training.correct, "total": training.total} if training.total else None,
    }


def _hashed(block: Block, selection: Selection, puzzle: HashPuzzle) -> dict[str, Any]:
    """Return the puzzle that was solved. There is no model: what the reveal names in its place says nothing."""
    phases = _phases(selection.schedule, block)["phase_seconds"]
    digests = (each.digest for each in block.commitments if each.miner == block.reveal.miner)
    return {
        "won_by": "hashing",
        "trained": False,
        # Nobody waits for a key here: the search begins with the height.
        "phase_seconds": {"hashing": phases["key"] + phases["training"], "judging": phases["judging"]},
        "puzzle": {
            "digest": next(digests, b"").hex(),
            "target": f"{puzzle.target:064x}",
            "expected_attempts": expected_attempts(puzzle.target),
        },
    }


def _phases(schedule: Schedule, block: Block) -> dict[str, Any]:
    """Return when the phases of a block ended: commitments close with their deadline, or with an earlier release.

    "key" is the time that the engine sets aside for key and probe; an engine that does not trains from the start.
    """
    released = block.release.released_milliseconds
    closed = min(schedule.commitment_milliseconds, released)
    opened = min(max(schedule.training_milliseconds, schedule.start_milliseconds), closed)
    return {
        "phase_seconds": {
            "key": (opened - schedule.start_milliseconds) / 1000,
            "training": (closed - opened) / 1000,
            "judging": (block.end_milliseconds - closed) / 1000,
        },
        "timeline": {
            "phase_one_milliseconds": [schedule.start_milliseconds, closed],
            "released_milliseconds": released,
            "phase_two_milliseconds": [closed, block.end_milliseconds],
        },
    }


def count_label(specification: TaskSpecification) -> str:
    """Return what a block's exact count is worth: made-up and public data are never called unseen."""
    metric = "Dice" if specification.metric is Metric.DICE else "accuracy"
    data = specification.data
    kind = "synthetic" if data.synthetic else "public" if data.public else "unseen"
    return f"{metric} on {kind} data"
