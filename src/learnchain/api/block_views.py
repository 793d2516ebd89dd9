"""Show what repeats a winner's training: parameters, seeds, data and states, as PoDL III-A wants them published.

With these numbers and the blobs that they name nobody needs this project to train a model again; `tests` do it with
torch, numpy and hashlib alone.

Disputes as JSON values: who asks whom for which steps, until when, what became of it, what waits for a block.

Everything is read from the head's bond book, so it follows reorganisations by itself.

A block as JSON values: what won it, training or a hash puzzle, or that nobody did.
"""

from dataclasses import asdict
from typing import Any

from learnchain.encoding.content_id import cid_text
from learnchain.engines.contract import EngineParts, Rules
from learnchain.node.chain import Ports
from learnchain.protocol.audit_messages import Challenge
from learnchain.protocol.messages import AnyBlock, Block, work_id
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.puzzle import estimate_attempts
from learnchain.protocol.state import AuditEntry, BondRegistry, ChainState, Dispute, DisputeOutcome, Schedule, Selection
from learnchain.protocol.task_specification import Metric, TaskSpecification
from learnchain.protocol.training_terms import HashPuzzle
from learnchain.verification.training_chain import seeds_of


def training_view(block: Block, selection: Selection) -> dict[str, Any]:
    """Return a trained block's parameters (PODL-R3, R8); states are named by the index that lies at `trace`."""
    training, specification = block.reveal.training, selection.posted_task.specification
    seeds, part = seeds_of(block.chain_id, selection, block.reveal.miner), specification.data.training
    return {
        "height": block.height,
        "task": selection.task.task_id.hex(),
        "miner": "0x" + block.reveal.miner.hex(),
        "mode": specification.training.mode.value,
        "optimiser": specification.training.optimiser.value,
        "hyper_parameters": asdict(training.hyperparameters),
        "seeds": {"initialisation": seeds.initial.hex(), "batch_order": seeds.order.hex()},
        "block_index": selection.position.block_index,
        "checkpoint_interval_steps": specification.training.checkpoint_interval_steps,
        "data": {"cid": cid_text(part.cid), "key": block.key_release.key.hex(), "rows": part.rows},
        "trace": cid_text(training.trace_cid),
        "states": training.states,
        "model": cid_text(block.reveal.model_cid),
    }


def disputes_view(ports: Ports, height: int | None = None) -> dict[str, Any]:
    """Return disputes and audits of a height, or of all heights that the book remembers, and what waits for a block."""
    state = ports.chain.round
    book, parameters = state.parent.bonds, state.parameters
    waiting = [
        {
            "message": "challenge" if isinstance(each, Challenge) else "response",
            "height": each.height,
            "respondent": _address(each.respondent),
            "segment": each.segment if isinstance(each, Challenge) else each.disclosure.segment,
        }
        for each in state.disputes.values()
        if height in (None, each.height)
    ]
    return {
        "head": state.parent.height,
        "disputes": [_dispute(each, book, parameters) for each in book.disputes if height in (None, each.height)],
        "audits": [_audit(each) for each in book.audits if height in (None, each.height)],
        "pending": waiting,
    }


def build_carried_view(block: AnyBlock) -> dict[str, Any]:
    """Return what a block carries of audits and disputes."""
    found: dict[str, Any] = {
        "challenges": [
            {
                "height": each.height,
                "respondent": _address(each.respondent),
                "segment": each.segment,
                "challenger": _address(each.challenger),
            }
            for each in block.challenges
        ],
        "responses": [
            {
                "height": each.height,
                "respondent": _address(each.respondent),
                "segment": each.disclosure.segment,
                "states": each.disclosure.states,
            }
            for each in block.responses
        ],
    }
    if isinstance(block, Block):
        found["machine_class"] = block.reveal.training.machine_class.hex()
        found["audits"] = [{"height": each.height, "auditor": _address(each.auditor)} for each in block.audits]
        found["audit_reports"] = [
            {
                "height": each.height,
                "auditor": _address(each.auditor),
                "segments": len(each.segments),
                "reproduced": sum(line.reproduced for line in each.segments),
            }
            for each in block.audit_reports
        ]
    return found


def _dispute(dispute: Dispute, book: BondRegistry, parameters: ChainParameters) -> dict[str, Any]:
    fact = book.height_record(dispute.height, dispute.parent)
    until = {
        DisputeOutcome.CHALLENGED: dispute.challenged_height + parameters.response_blocks,
        DisputeOutcome.RESPONDED: dispute.responded_height + parameters.proof_blocks,
    }
    return {
        "height": dispute.height,
        "segment": dispute.segment,
        "respondent": _address(dispute.respondent),
        "role": "winner" if fact is not None and fact.winner == dispute.respondent else "auditor",
        "challenger": _address(dispute.challenger),
        "outcome": dispute.outcome.value,
        "open": dispute.is_open,
        "until_height": until.get(dispute.outcome, 0),
        "challenged_height": dispute.challenged_height,
        "responded_height": dispute.responded_height,
        "decided_height": dispute.decided_height,
        "response": dispute.disclosure_hash.hex() if dispute.responded_height else "",
    }


def _audit(entry: AuditEntry) -> dict[str, Any]:
    return {
        "height": entry.height,
        "auditor": _address(entry.auditor),
        "committed_height": entry.committed_height,
        "opened_height": entry.opened_height,
    }


def _address(address: bytes) -> str:
    return "0x" + address.hex()


def find_solved_puzzle(rules: Rules, selection: Selection, block: AnyBlock) -> HashPuzzle | None:
    """Return the puzzle that won a block; nothing where a model did, or nobody."""
    # Terms may take a mapping layer to draw. A hash is right about nothing, so whoever was right has trained.
    if not isinstance(block, Block) or block.verdict.correct:
        return None
    work = work_id(block.chain_id, block.parent, selection.task.task_id, block.proposer)
    return rules.training_terms(selection, work).puzzle


def block_view(
    block: AnyBlock,
    parent: ChainState,
    state: ChainState,
    selection: Selection,
    parts: EngineParts,
    puzzle: HashPuzzle | None = None,
) -> dict[str, Any]:
    """Return a block as JSON values; `won_by` says whether a model, a hash or nobody won it."""
    view = _describe_content(block, parent, state, selection)
    if not isinstance(block, Block):
        return {**view, "empty": True, "won_by": None, "trained": False, "missed": block.missed.value}
    won = {**view, "empty": False, **_describe_winner(block, selection.schedule, parts)}
    return {
        **won,
        **(
            _describe_trained_block(block, selection, parts)
            if puzzle is None
            else _describe_hashed_block(block, selection, puzzle)
        ),
    }


def _describe_content(block: AnyBlock, parent: ChainState, state: ChainState, selection: Selection) -> dict[str, Any]:
    """Return what blocks of every kind say."""
    return {
        "height": block.height,
        "hash": state.block_hash.hex(),
        "parent": block.parent.hex(),
        "proposer": "0x" + block.proposer.hex(),
        "task": {"id": selection.task.task_id.hex(), "name": selection.posted_task.specification.name},
        "is_standing": selection.task.is_standing,
        "score": selection.score,
        "interval_seconds": (block.end_milliseconds - parent.end_milliseconds) / 1000,
        "payload": block.payload_hash.hex(),
        "queued_tasks": [each.hex() for each in block.queued_tasks],
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
        **build_carried_view(block),
    }


def _describe_winner(block: Block, schedule: Schedule, parts: EngineParts) -> dict[str, Any]:
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
        "waived": parts.is_waived(block.verdict),
        "ommers": [
            {"height": each.height, "miner": "0x" + each.miner.hex(), "correct": each.claim_correct}
            for each in parts.list_cited_losers(block)
        ],
    }


def _describe_trained_block(block: Block, selection: Selection, parts: EngineParts) -> dict[str, Any]:
    """Return the model that won, what it is worth, and the record of its training."""
    training, (correct, total) = block.reveal.training, parts.baseline_count(block.verdict)
    reached, rows = parts.training_count(training)
    return {
        "won_by": "training",
        "trained": True,
        "accuracy": {"correct": block.verdict.correct, "total": block.verdict.total},
        "label": count_label(selection.posted_task.specification),
        "training_mode": selection.posted_task.specification.training.mode.value,
        "model": cid_text(block.reveal.model_cid),
        "trace": cid_text(training.trace_cid),
        "mapping": parts.mapping_identity(training).hex() or None,
        "epochs": training.hyperparameters.epochs,
        "block_index": selection.position.block_index,
        "best_before": {"correct": correct, "total": total},
        "training_accuracy": {"correct": reached, "total": rows} if rows else None,
    }


def _describe_hashed_block(block: Block, selection: Selection, puzzle: HashPuzzle) -> dict[str, Any]:
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
            "expected_attempts": estimate_attempts(puzzle.target),
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
            "training_phase_milliseconds": [schedule.start_milliseconds, closed],
            "released_milliseconds": released,
            "judging_phase_milliseconds": [closed, block.end_milliseconds],
        },
    }


def count_label(specification: TaskSpecification) -> str:
    """Return what a block's exact count is worth: made-up and public data are never called unseen."""
    metric = "Dice" if specification.metric is Metric.DICE else "accuracy"
    data = specification.data
    kind = "synthetic" if data.synthetic else "public" if data.public else "unseen"
    return f"{metric} on {kind} data"
