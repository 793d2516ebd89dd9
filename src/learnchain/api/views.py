"""The `learn_*` namespace: what consensus knows, as JSON values; the explorer, the CLI and the live table read it."""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from learnchain.api.block_views import block_view, find_solved_puzzle
from learnchain.api.json_rpc import JsonRpcServer, is_hash, read_hash, read_height
from learnchain.encoding.content_id import Cid, cid_from_text, cid_text
from learnchain.encoding.cryptography import message_hash
from learnchain.encoding.files import write_whole
from learnchain.network.network import Network
from learnchain.node.chain import Ports
from learnchain.protocol.messages import Block, Deadline, Task, work_id
from learnchain.protocol.model_specification import model_bytes, parameter_count, training_flops_per_sample
from learnchain.protocol.payload import SettlementOutcome
from learnchain.protocol.state import ZERO_HASH, ChainState, PostedTask, Selection
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.genesis import Genesis
from learnchain.tasks.publishing import TaskPublisher, prepare_task
from learnchain.tasks.task_file import task_draft
from learnchain.verification.assurance import Level
from learnchain.verification.measurer import NamedBlobs

MAXIMUM_BLOCKS = 128
CHUNK_BYTES = 1 << 19
TOKEN_NAME = "admin.token"
Handler = Callable[..., Awaitable[Any]]


class LearnInterface:
    """Answer `learn_*` calls; those that spend the node's coins need the token that lies in its data directory."""

    def __init__(self, ports: Ports, network: Network, genesis: Genesis, directory: Path) -> None:
        self._ports, self._network, self._genesis, self._directory = ports, network, genesis, directory
        self._posting = asyncio.Lock()
        self._named = NamedBlobs(ports.archive, ports.chain.rules, ports.chain.parameters)
        token = directory / TOKEN_NAME
        if not token.is_file() or not token.stat().st_size:
            write_whole(token, secrets.token_hex(16).encode())
        self._token = token.read_text()

    def register(self, server: JsonRpcServer, publishes: bool = True) -> None:
        """Add all methods to a server; a node that does not publish refuses tasks before anything is paid."""
        methods: dict[str, Handler] = {
            "learn_status": self.status,
            "learn_network": self.network,
            "learn_block": self.block,
            "learn_blocks": self.blocks,
            "learn_tasks": self.tasks,
            "learn_round": self.round,
            "learn_decisions": self.decisions,
            "learn_ledger": self.ledger,
            "learn_peers": self.peers,
            "learn_refusedPeers": self.list_refused_peers,
            "learn_blob": self.blob,
            "learn_publishTask": self.publish_task if publishes else _refuse_to_publish,
        }
        for name, handler in methods.items():
            pages = self.blob_here if name == "learn_blob" else None
            server.register(name, handler, sensitive=name == "learn_publishTask", for_pages=pages)

    async def status(self, *_params: Any) -> dict[str, Any]:
        """Return head, phase, training curve and peers: one call feeds the live table."""
        state = self._ports.chain.round
        now = self._ports.clock.now_milliseconds()
        return {
            "address": "0x" + self._ports.wallet.address.hex(),
            "head": {
                "hash": state.head.block.hex(),
                "height": state.head.height,
                "weight": state.head.weight,
                "safe": state.head.safe.hex(),
                "finalized": state.head.finalized.hex(),
            },
            "deciding": _selection_view(state.selection),
            "phase": self._phase(now),
            "now_milliseconds": now,
            "training": dict(self._ports.decisions.training),
            "trainings": {str(key): value for key, value in self._ports.decisions.trainings.items()},
            "curve": list(self._ports.decisions.curve)[-64:],
            "peers": len(self._network.peers()),
        }

    async def network(self, *_params: Any) -> dict[str, Any]:
        """Return what identifies the network, and the parameters that decide money."""
        parameters, rules = self._genesis.parameters, self._genesis.rules
        return {
            "genesis": self._genesis.hash.hex(),
            "consensus": rules.name,
            "engine": repr(rules),
            "formulas": {"score": rules.score_formula, "reward": rules.reward_formula},
            "chain_id": parameters.chain_id,
            "escrow": "0x" + parameters.escrow.hex(),
            "steward": "0x" + parameters.steward.hex(),
            "block_reward_gwei": parameters.block_reward_gwei,
            "finality_depth": parameters.finality_depth,
            "address": str(self._network.address()),
        }

    async def block(self, *params: Any) -> dict[str, Any]:
        """Return one block by height on the head's branch, or by hash on any branch."""
        wanted = params[0] if params else self._ports.chain.round.head.height
        if is_hash(wanted):
            return self._block_view(self._ports.archive.state(read_hash(wanted)))
        height = read_height(wanted)
        return self._block_view(self._canonical(height, height)[0])

    async def blocks(self, *params: Any) -> list[dict[str, Any]]:
        """Return the blocks of a range of heights on the head's branch, lowest first."""
        head = self._ports.chain.round.head.height
        first = max(1, read_height(params[0]) if params else head - 15)
        last = min(head, read_height(params[1]) if len(params) > 1 else head)
        if last - first >= MAXIMUM_BLOCKS:
            raise Rejected(RejectionReason.TOO_LARGE, f"ask for at most {MAXIMUM_BLOCKS} blocks at once")
        return [self._block_view(state) for state in self._canonical(first, last)]

    async def tasks(self, *_params: Any) -> dict[str, Any]:
        """Return waiting, selected and settled tasks of the head's branch."""
        state = self._ports.chain.round
        parent = state.parent
        settled: list[dict[str, Any]] = []
        for each in self._ports.archive.settlements(parent.block_hash):
            if each.outcome is SettlementOutcome.SLASHED:
                # A share of a bond settles no task; the block that took it shows it.
                continue
            settled.append(
                {
                    "task": each.task_id.hex(),
                    "height": each.height,
                    "outcome": each.outcome.value,
                    "recipient": "0x" + each.recipient.hex(),
                }
            )
        scores = {task_id: score for score, task_id in state.selection.ranking}
        return {
            "selected": _selection_view(state.selection),
            "queued_tasks": [_task_view(each, scores.get(each.task.task_id, "")) for each in parent.queued_tasks],
            "posted_tasks": [_task_view(each, "") for each in parent.posted_tasks],
            "settled": settled,
        }

    async def round(self, *_params: Any) -> dict[str, Any]:
        """Return the height that is being decided: commitments, reveals, verdict so far."""
        state = self._ports.chain.round
        reveals = [
            {"miner": "0x" + each.miner.hex(), "correct": each.claim_correct, "total": each.claim_total}
            for each in state.reveals.values()
        ]
        return {
            "deciding": _selection_view(state.selection),
            "key_released": state.key_release is not None,
            "commitments": ["0x" + each.miner.hex() for each in state.commitments.values()],
            "released": state.announcement is not None,
            "reveals": reveals,
            "winner": None
            if state.verdict is None or state.verdict.winner == ZERO_HASH
            else state.verdict.winner.hex(),
        }

    async def decisions(self, *params: Any) -> list[dict[str, Any]]:
        """Return what this node decided at a height, and on which numbers."""
        height = read_height(params[0]) if params else self._ports.chain.round.head.height
        found = self._ports.decisions.at_height(height)
        return [{"at": each.at_milliseconds, "step": each.step, "about": each.about, **each.facts} for each in found]

    async def ledger(self, *_params: Any) -> dict[str, Any]:
        """Return what consensus has escrowed, paid, refunded, burned and minted up to the head."""
        ledger = self._ports.chain.round.parent.ledger
        return {
            "escrowed_wei": ledger.escrowed_wei,
            "paid_wei": ledger.paid_wei,
            "refunded_wei": ledger.refunded_wei,
            "burned_wei": ledger.burned_wei,
            "compensated_wei": ledger.compensated_wei,
            "locked_wei": ledger.locked_wei,
            "bonded_wei": ledger.bonded_wei,
            "unbonded_wei": ledger.unbonded_wei,
            "slashed_wei": ledger.slashed_wei,
            "minted_gwei": ledger.minted_gwei,
            "audited_gwei": ledger.audited_gwei,
            "forfeited_gwei": ledger.forfeited_gwei,
        }

    async def peers(self, *_params: Any) -> list[dict[str, Any]]:
        """Return the connected peers."""
        return [{"id": each.peer_id.hex(), "score": each.score} for each in self._network.peers()]

    async def list_refused_peers(self, *_params: Any) -> list[dict[str, Any]]:
        """Return the peers of another format version, and those that refused this node, and why."""
        refused = self._network.list_refused_peers()
        return [{"id": peer.peer_id.hex(), "host": peer.host, "why": peer.why} for peer in refused]

    async def blob(self, *params: Any) -> dict[str, Any]:
        """Return one chunk of a blob: {size, data}; what the chain names is fetched if need be, nothing else.

        How much is fetched for a stranger is bounded by what the chain says of the blob; the caller checks the CID.
        """
        cid = _read_cid(params)
        if self._ports.blobs.path(cid) is None:
            await self._ports.blobs.fetch(cid, max_bytes=self._named.maximum_bytes(cid))
        return await self.blob_here(*params)

    async def blob_here(self, *params: Any) -> dict[str, Any]:
        """Return one chunk of a blob that lies here already: a web page fills no disk."""
        cid = _read_cid(params)
        offset = read_height(params[1], "offset") if len(params) > 1 else 0
        path = self._ports.blobs.path(cid)
        if path is None:
            raise Unavailable(f"blob {cid_text(cid)} at this node")
        size_bytes = path.stat().st_size
        data = await asyncio.to_thread(_chunk, path, min(max(0, offset), size_bytes))
        return {"size": size_bytes, "offset": offset, "data": data.hex()}

    async def publish_task(self, *params: Any) -> dict[str, Any]:
        """Commission a model from the node's own account: params are the token and the table of a task file."""
        offered = str(params[0] if params else "").encode(errors="replace")
        if len(params) != 2 or not hmac.compare_digest(offered, self._token.encode()):
            detail = f"the first parameter must be the token in {TOKEN_NAME} of the node's data directory"
            raise Rejected(RejectionReason.WRONG_SIGNATURE, detail)
        draft = await asyncio.to_thread(task_draft, params[1])
        # By this network's own rules, before anything is paid: nobody would ever select what they do not admit.
        deadline = self._ports.clock.now_milliseconds() // 1000 + draft.deadline_seconds
        amounts = (draft.reward_wei, draft.bond_wei)
        self._genesis.rules.admit_task(
            Task(bytes(32), self._ports.wallet.address, bytes(32), *amounts, deadline, 0, False),
            draft.build_expected_specification(),
            self._genesis.parameters,
        )
        async with self._posting:
            ports = self._ports
            specification = await prepare_task(
                draft, ports.blobs, ports.vault, self._directory / "publishing", ports.random_source
            )
            publishing = TaskPublisher(
                self._ports.chain.parameters, self._ports.engine, self._ports.wallet, self._ports.clock
            )
            posting = await publishing.post(draft, specification)
        await self._network.publish("transaction", posting.raw)
        return {
            "transaction": posting.transaction_hash,
            "name": draft.name,
            "reward_wei": posting.reward_wei,
            "bond_wei": posting.bond_wei,
            "value_wei": posting.value_wei,
        }

    def _canonical(self, first: int, last: int) -> tuple[ChainState, ...]:
        head = self._ports.chain.round.head
        if not 1 <= first <= last <= head.height:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the chain has heights 1 to {head.height}")
        return self._ports.archive.branch(self._ports.archive.on_branch(head, last).block_hash, first - 1)

    def _block_view(self, state: ChainState) -> dict[str, Any]:
        block = self._ports.archive.block(state.block_hash)
        parent = self._ports.archive.state(state.parent)
        selection = self._ports.chain.rules.select_task(parent, self._ports.chain.parameters)
        believed = isinstance(block, Block) and self._ports.archive.is_trusted(block.verdict.winner)
        level = Level.HEADERS if believed else Level.ACCURACY
        rules = self._ports.chain.rules
        puzzle = find_solved_puzzle(rules, selection, block)
        return {**block_view(block, parent, state, selection, rules.parts, puzzle), "level": level.value}

    def _phase(self, now: int) -> dict[str, Any]:
        """Return the phase of the height, and when it ends at the latest; what has come ends a phase early."""
        state = self._ports.chain.round
        schedule = state.selection.schedule
        released = None if state.announcement is None else state.announcement.release.released_milliseconds
        closing = schedule.commitment_milliseconds if released is None else min(schedule.commitment_milliseconds, now)
        opened = schedule.key_milliseconds if state.key_release is None else schedule.training_milliseconds
        bounds = (
            ("queued_tasks", schedule.start_milliseconds),
            ("key", opened),
            (self._searching(), closing),
            ("judging", schedule.deadline(Deadline.BLOCK, released)),
        )
        for name, end in bounds:
            if now < end:
                return {"name": name, "ends_in_milliseconds": end - now}
        return {"name": "overdue", "ends_in_milliseconds": 0}

    def _searching(self) -> str:
        """Name what miners do at this height, as the engine's terms say."""
        chain = self._ports.chain
        selection, parameters = chain.round.selection, chain.parameters
        work = work_id(parameters.chain_id, selection.parent, selection.task.task_id, self._ports.wallet.address)
        return "training" if chain.rules.training_terms(selection, work).puzzle is None else "hashing"


def _read_cid(params: tuple[Any, ...]) -> Cid:
    return cid_from_text(str(params[0]) if params else "")


def _chunk(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _selection_view(selection: Selection) -> dict[str, Any]:
    return {
        "height": selection.height,
        **_task_view(selection.posted_task, selection.score),
        "queue_length": selection.queue_length,
        "start_milliseconds": selection.schedule.start_milliseconds,
        "commitment_milliseconds": selection.schedule.commitment_milliseconds,
    }


def _task_view(posted: PostedTask, score: str) -> dict[str, Any]:
    model, data = posted.specification.model, posted.specification.data
    return {
        "id": posted.task.task_id.hex(),
        "name": posted.specification.name,
        "publisher": "0x" + posted.task.publisher.hex(),
        "is_standing": posted.task.is_standing,
        "reward_wei": posted.task.reward_wei,
        "bond_wei": posted.task.bond_wei,
        "deadline_seconds": posted.task.deadline_seconds,
        "score": score,
        "parameters": parameter_count(model),
        "model_bytes": model_bytes(model),
        "flops_per_epoch": training_flops_per_sample(model) * data.training.rows,
        "training_rows": data.training.rows,
        "test_rows": data.test.rows,
        "test_sets": len(data.test_sets),
        "public_data": data.public,
        "synthetic_data": data.synthetic,
        "data": data.name,
        "metric": posted.specification.metric.value,
        "specification": message_hash(posted.specification).hex(),
    }


async def _refuse_to_publish(*_params: Any) -> None:
    """Refuse a task whose keys nobody would release: its bond would be lost."""
    raise Rejected(RejectionReason.ARGUMENT_INVALID, "this node publishes no tasks: set is_publisher in its settings")
