"""Show what a decision rests on: candidates, tasks, and the signed trace of a block, which anybody can check again."""

from collections.abc import Iterable
from typing import Any

from learnchain.api.block_views import disputes_view, training_view
from learnchain.api.json_rpc import JsonRpcServer, is_hash, read_hash, read_height
from learnchain.encoding.codec import Address, Hash32, encode
from learnchain.encoding.cryptography import message_hash, recover, signing_hash
from learnchain.node.chain import Ports
from learnchain.protocol.messages import AnyBlock, Block, Commitment, VerdictEntry
from learnchain.protocol.payload import SettlementOutcome
from learnchain.protocol.state import ChainState, PostedTask, Selection
from learnchain.rejection import Rejected, RejectionReason


class Inspection:
    """Answer the `learn_*` calls that look into one decision; every answer comes from what this node stored."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def register(self, server: JsonRpcServer) -> None:
        """Add the methods to a server."""
        server.register("learn_trace", self.trace)
        server.register("learn_candidates", self.candidates)
        server.register("learn_task", self.task)
        server.register("learn_disputes", self.disputes)
        server.register("learn_training", self.training)

    async def trace(self, *params: Any) -> dict[str, Any]:
        """Return the signed messages that made a block, by height or hash: the receipts of its decision.

        `bytes` is the canonical encoding, `signing_hash` what the signature covers; `holds` says whether the key that
        recovers from it belongs to who had to sign.
        """
        state = self._state(params)
        block, parent = self._ports.archive.block(state.block_hash), self._ports.archive.state(state.parent)
        selection = self._selection(parent)
        return {
            "height": block.height,
            "hash": state.block_hash.hex(),
            "selected": {
                "task": selection.task.task_id.hex(),
                "score": selection.score,
                "ranking": [[score, task_id.hex()] for score, task_id in selection.ranking],
            },
            "messages": list(_list_signed_messages(block, selection)),
        }

    async def candidates(self, *params: Any) -> list[dict[str, Any]]:
        """Return every commitment of a height with what became of it; of the open height without an argument."""
        if not params:
            return self._open_candidates()
        block = self._ports.archive.block(self._state(params).block_hash)
        if not isinstance(block, Block):
            return [_candidate(each) | {"outcome": "height missed"} for each in block.commitments]
        entries = {each.commitment: each for each in block.verdict.entries}
        found: list[dict[str, Any]] = []
        for commitment in block.commitments:
            entry = entries.get(message_hash(commitment))
            found.append(_candidate(commitment) if entry is None else _candidate(commitment) | _fate(entry))
        return found

    async def task(self, *params: Any) -> dict[str, Any]:
        """Return one task of the head's branch by its id: where it stands, and its whole specification."""
        task_id = read_hash(params[0] if params else None, "task id")
        parent = self._ports.chain.round.parent
        places: tuple[tuple[str, Iterable[PostedTask]], ...] = (
            ("selected", (self._ports.chain.round.selection.posted_task,)),
            ("queued_tasks", parent.queued_tasks),
            ("posted_tasks", parent.posted_tasks),
        )
        for name, tasks in places:
            for posted in tasks:
                if posted.task.task_id == task_id:
                    return _task(posted, name)
        for settled in self._ports.archive.settlements(parent.block_hash):
            if settled.task_id == task_id and settled.outcome is not SettlementOutcome.SLASHED:
                before = self._canonical(settled.height - 1)
                found = self._selection(before).posted_task if before.height == settled.height - 1 else None
                named = {"settled": settled.outcome.value, "height": settled.height}
                if found is not None and found.task.task_id == task_id:
                    return _task(found, "settled") | named
                return {"id": task_id.hex(), "state": "settled", **named}
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no task {task_id.hex()} on the head's branch")

    async def training(self, *params: Any) -> dict[str, Any]:
        """Return what repeats the winner's training of a block, by height or hash (PoDL III-A)."""
        state = self._state(params)
        block = self._ports.archive.block(state.block_hash)
        if not isinstance(block, Block):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"block {block.height} is empty: nobody trained for it")
        return training_view(block, self._selection(self._ports.archive.state(state.parent)))

    async def disputes(self, *params: Any) -> dict[str, Any]:
        """Return what is disputed, or was, as far as the head's book remembers; of one height with an argument."""
        return disputes_view(self._ports, read_height(params[0]) if params else None)

    def _open_candidates(self) -> list[dict[str, Any]]:
        state = self._ports.chain.round
        revealed = {each.miner: each for each in state.reveals.values()}
        found: list[dict[str, Any]] = []
        for commitment in state.commitments.values():
            reveal = revealed.get(commitment.miner)
            view = _candidate(commitment) | {"outcome": "committed" if reveal is None else "revealed"}
            if reveal is not None:
                view |= {"correct": reveal.claim_correct, "total": reveal.claim_total}
            found.append(view)
        return found

    def _state(self, params: tuple[Any, ...]) -> ChainState:
        wanted = params[0] if params else self._ports.chain.round.head.height
        if is_hash(wanted):
            return self._ports.archive.state(read_hash(wanted))
        height = read_height(wanted)
        if height < 1:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "heights of blocks begin at 1")
        return self._canonical(height)

    def _canonical(self, height: int) -> ChainState:
        head = self._ports.chain.round.head
        if not 0 <= height <= head.height:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the chain has heights 1 to {head.height}")
        return self._ports.archive.on_branch(head, height)

    def _selection(self, parent: ChainState) -> Selection:
        return self._ports.chain.rules.select_task(parent, self._ports.chain.parameters)


def _list_signed_messages(block: AnyBlock, selection: Selection) -> Iterable[dict[str, Any]]:
    """Yield what was signed, in the order of the steps."""
    publisher = selection.task.publisher
    if isinstance(block, Block):
        yield _message("key release", block.key_release, publisher)
        for commitment in block.commitments:
            yield _message("commitment", commitment, commitment.miner)
        yield _message("release", block.release, publisher)
        yield _message("reveal", block.reveal, block.reveal.miner)
    else:
        for commitment in block.commitments:
            yield _message("commitment", commitment, commitment.miner)
    for evidence in block.evidence:
        yield _message("evidence", evidence, evidence.reporter)
    for accusation in block.challenges:
        yield _message("challenge", accusation, accusation.challenger)
    for answer in block.responses:
        yield _message("steps shown", answer.disclosure, answer.respondent)
    if isinstance(block, Block):
        for audit in (*block.audits, *block.audit_reports):
            yield _message("audit", audit, audit.auditor)
    yield _message("block", block, block.proposer)


def _message(step: str, message: Any, expected: Address) -> dict[str, Any]:
    digest: Hash32 = signing_hash(message)
    try:
        signer: Address | None = recover(digest, message.signature)
    except Rejected:
        signer = None
    return {
        "step": step,
        "message": type(message).__name__,
        "hash": message_hash(message).hex(),
        "signer": None if signer is None else "0x" + signer.hex(),
        "holds": signer == expected,
        "signing_hash": digest.hex(),
        "signature": message.signature.hex(),
        "bytes": encode(message).hex(),
    }


def _candidate(commitment: Commitment) -> dict[str, Any]:
    return {
        "commitment": message_hash(commitment).hex(),
        "miner": "0x" + commitment.miner.hex(),
        "bond_wei": commitment.bond_wei,
    }


def _fate(entry: VerdictEntry) -> dict[str, Any]:
    counts = {"correct": entry.claim_correct, "total": entry.claim_total}
    return {"outcome": entry.outcome.value, "reason": entry.reason, **counts}


def _task(posted: PostedTask, state: str) -> dict[str, Any]:
    task = posted.task
    return {
        "id": task.task_id.hex(),
        "state": state,
        "name": posted.specification.name,
        "publisher": "0x" + task.publisher.hex(),
        "reward_wei": task.reward_wei,
        "bond_wei": task.bond_wei,
        "deadline_seconds": task.deadline_seconds,
        "is_standing": task.is_standing,
        "specification_hash": message_hash(posted.specification).hex(),
        "specification": encode(posted.specification).hex(),
    }
