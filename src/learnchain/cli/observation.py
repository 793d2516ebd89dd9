"""Look at all nodes of a local network at once: one snapshot feeds the live table, the plain lines and the report.

Report a local network as JSON values: blocks, balances, supply, tasks with the contract's own word, head.
"""

import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnchain.cli.rpc import NodeClient
from learnchain.rejection import Rejected, Unavailable

BLOCKS_AT_ONCE = 16
_LOOK_TIMEOUT_SECONDS = 5.0
View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeView:
    """Show one node; `status` is None while it does not answer."""

    name: str
    role: str
    address: str
    status: View | None
    balance_wei: int

    @property
    def height(self) -> int:
        """Return the height of the node's head, 0 while it does not answer."""
        return 0 if self.status is None else int(self.status["head"]["height"])

    @property
    def head(self) -> str:
        """Return the hash of the node's head, empty while it does not answer."""
        return "" if self.status is None else str(self.status["head"]["hash"])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hold what all nodes said at one moment; `blocks` are those above the base height, lowest first."""

    nodes: tuple[NodeView, ...]
    blocks: tuple[View, ...]
    ledger: View

    @property
    def leader(self) -> NodeView | None:
        """Return the first node that answers."""
        return next((each for each in self.nodes if each.status is not None), None)

    @property
    def won_blocks(self) -> tuple[View, ...]:
        """Return the blocks that somebody won, by training or by hashing."""
        return tuple(each for each in self.blocks if not each["empty"])

    @property
    def agree(self) -> bool:
        """Return whether all nodes answer and stand on one head."""
        return len({each.head for each in self.nodes}) == 1 and self.nodes[0].head != ""


@dataclass(slots=True)
class NetworkObserver:
    """Ask all nodes, remember their blocks, and follow reorganisations of the first that answers."""

    clients: tuple[NodeClient, ...]
    names: tuple[str, ...]
    accounts: tuple[str, ...]
    base_height: int = 0
    _blocks: dict[int, View] = field(default_factory=dict)
    _head: str = ""
    _balances: dict[str, int] = field(default_factory=dict)
    _ledger: View = field(default_factory=dict)

    @classmethod
    def of(cls, settings: tuple[Path, ...], ports: tuple[int, ...], accounts: tuple[str, ...]) -> "NetworkObserver":
        """Return the observer of a local network."""
        clients = tuple(NodeClient(f"http://127.0.0.1:{port}", _LOOK_TIMEOUT_SECONDS) for port in ports)
        return cls(clients, tuple(path.parent.name for path in settings), accounts)

    def look(self) -> Snapshot:
        """Return the state of all nodes now."""
        with ThreadPoolExecutor(len(self.clients)) as pool:
            statuses = list(pool.map(_status, self.clients))
        leading = next((index for index, each in enumerate(statuses) if each is not None), None)
        if leading is not None:
            try:
                self._follow(self.clients[leading], statuses[leading] or {})
            except (Rejected, Unavailable):
                # The node moved or ended between two calls; the next look asks again.
                self._head = ""
        self._add_training(statuses)
        nodes = tuple(
            NodeView(
                name,
                "publisher, steward" if index == 0 else "miner",
                self.accounts[index],
                statuses[index],
                self._balances.get(self.accounts[index], 0),
            )
            for index, name in enumerate(self.names)
        )
        return Snapshot(nodes, tuple(self._blocks[key] for key in sorted(self._blocks)), dict(self._ledger))

    def _follow(self, client: NodeClient, status: View) -> None:
        head = status["head"]
        if head["hash"] == self._head:
            return
        for key in [key for key in self._blocks if key > head["height"]]:
            del self._blocks[key]
        # Walk down until a known block is met, so that a branch that lost leaves nothing behind.
        first = self.base_height + 1
        upper = int(head["height"])
        while upper >= first:
            views = client.call("learn_blocks", max(first, upper - BLOCKS_AT_ONCE + 1), upper)
            known = any(self._blocks.get(each["height"], {}).get("hash") == each["hash"] for each in views)
            self._blocks.update({each["height"]: each for each in views})
            if known or not views:
                break
            upper = views[0]["height"] - 1
        for address in self.accounts:
            self._balances[address] = int(client.call("eth_getBalance", address, "latest"), 16)
        self._ledger = client.call("learn_ledger")
        self._head = head["hash"]

    def _add_training(self, statuses: list[View | None]) -> None:
        """Join each block with what its winner says about its own training."""
        by_address = {each["address"]: each.get("trainings", {}) for each in statuses if each is not None}
        for view in self._blocks.values():
            facts = by_address.get(view.get("winner", ""), {}).get(str(view["height"]))
            if facts is not None:
                view["training"] = facts


def _status(client: NodeClient) -> View | None:
    try:
        answer: View = client.call("learn_status")
    except (Rejected, Unavailable, RuntimeError):
        return None
    return answer


CONTRACT_STATUS = {0: "unknown", 1: "paid", 2: "refunded", 3: "struck", 4: "open"}

MAXIMUM_SUPPLY_BLOCKS = 2_000
"""Beyond so many blocks the fees are not added up: that many calls would take longer than anybody waits."""

_WEI_PER_GWEI = 10**9
_ZERO_ADDRESS = "0x" + "0" * 40
_BURN_ADDRESS = "0x" + "dead".rjust(40, "0")


def block_report(view: View) -> View:
    """Return one block as `up --json` prints it."""
    training = view.get("training", {})
    return {
        "height": view["height"],
        "hash": view["hash"],
        "empty": view["empty"],
        "won_by": view["won_by"],
        "trained": view["trained"],
        "missed": view.get("missed"),
        "task": view["task"],
        "is_standing": view["is_standing"],
        "winner": view.get("winner"),
        "accuracy": view.get("accuracy"),
        "label": view.get("label"),
        "model": view.get("model"),
        "epochs": view.get("epochs"),
        "training_accuracy": view.get("training_accuracy"),
        "waived": view.get("waived"),
        "ommers": view.get("ommers"),
        "interval_seconds": view["interval_seconds"],
        "phase_seconds": view.get("phase_seconds"),
        "timeline": {
            **view.get("timeline", {}),
            "winner_trained_milliseconds": training.get("training_milliseconds"),
        },
        "block_index": view.get("block_index"),
        "best_before": view.get("best_before"),
        "training_share": training.get("training_share"),
        "training_seconds": training.get("training_seconds"),
        **_hashing(view, training),
    }


def _hashing(view: View, training: View) -> View:
    """Return what a puzzle asked for and what its winner says it took; nothing of a block that was not hashed."""
    if "puzzle" not in view:
        return {}
    took = {"attempts": training.get("attempts"), "search_seconds": training.get("search_seconds")}
    return {"puzzle": view["puzzle"], **took}


def contract_status(client: NodeClient, escrow: str, task_id: str) -> View:
    """Return what the escrow contract itself says of a task."""
    # Loaded when needed: encoding a call needs the ABI library.
    from learnchain.execution.escrow import decode_task, task_calldata

    call = {"to": escrow, "data": "0x" + task_calldata(bytes.fromhex(task_id)).hex()}
    answer = client.call("eth_call", call, "latest")
    task = decode_task(bytes.fromhex(answer.removeprefix("0x")))
    return {
        "contract_status": CONTRACT_STATUS.get(task.status, str(task.status)),
        "reward_wei": task.reward_wei,
        "bond_wei": task.bond_wei,
    }


def task_reports(client: NodeClient) -> list[View]:
    """Return every task that somebody posted: what consensus decided and what the contract has carried out."""
    escrow, tasks = client.call("learn_network")["escrow"], client.call("learn_tasks")
    found: list[View] = []
    for each in tasks["settled"]:
        name = client.call("learn_block", each["height"])["task"]["name"]
        found.append(_task_report(client, escrow, each["task"], name, each))
    undecided = [*tasks["queued_tasks"], *tasks["posted_tasks"]]
    if not tasks["selected"]["is_standing"]:
        undecided.insert(0, tasks["selected"])
    seen = {each["id"] for each in found}
    for each in undecided:
        if not each["is_standing"] and each["id"] not in seen:
            seen.add(each["id"])
            found.append(_task_report(client, escrow, each["id"], each["name"], {}))
    return found


def _task_report(client: NodeClient, escrow: str, task_id: str, name: str, settled: View) -> View:
    contract = contract_status(client, escrow, task_id)
    outcome = settled.get("outcome", "waiting")
    reward, bond = contract["reward_wei"], contract["bond_wei"]
    # Paid: the reward to the winner, the bond back after a delay. Struck: the reward back, the bond lost.
    refunded = {"paid": bond, "refunded": reward + bond, "struck": reward}.get(outcome, 0)
    return {
        "id": task_id,
        "name": name,
        "height": settled.get("height"),
        "escrowed_wei": reward + bond,
        "paid_wei": reward if outcome == "paid" else 0,
        "refunded_wei": refunded,
        "outcome": outcome,
        "recipient": settled.get("recipient"),
        "contract_status": contract["contract_status"],
    }


def supply_report(client: NodeClient, genesis: Path) -> View:
    """Return where all coins came from and went, exactly; `conserved` says whether the books balance."""
    initial = {
        _address(key): int(str(value.get("balance", "0x0")), 0)
        for key, value in json.loads(genesis.read_text())["execution"]["alloc"].items()
    }
    ledger = client.call("learn_ledger")
    report: View = {"initial_wei": sum(initial.values()), **ledger}
    head = client.call("learn_block") if int(client.call("learn_status")["head"]["height"]) else None
    if head is None or head["height"] > MAXIMUM_SUPPLY_BLOCKS:
        return report
    holders, fees = {*initial, _ZERO_ADDRESS, _BURN_ADDRESS}, 0
    for first in range(1, head["height"] + 1, 100):
        for view in client.call("learn_blocks", first, min(head["height"], first + 99)):
            holders.update(each["recipient"] for each in view["payouts"])
            holders.update(each["recipient"] for each in view["settlements"] if "recipient" in each)
    for number in range(1, head["height"] + 1):
        block = client.call("eth_getBlockByNumber", hex(number), True)
        fees += int(block["baseFeePerGas"], 16) * int(block["gasUsed"], 16)
        holders.add(_address(block["miner"]))
        # People may have paid whomever they liked; coins that a contract sends on are counted with the contract alone.
        for sent in block["transactions"]:
            holders.update(_address(each) for each in (sent["from"], sent["to"]) if each)
    held = sum(int(client.call("eth_getBalance", each, hex(head["height"])), 16) for each in sorted(holders))
    # What the head's block minted reaches the accounts with the next payload.
    on_the_way = sum(each["amount_gwei"] for each in head["payouts"]) * _WEI_PER_GWEI
    minted = ledger["minted_gwei"] * _WEI_PER_GWEI
    return {
        **report,
        "base_fees_burned_wei": fees,
        "held_wei": held,
        "minted_not_yet_paid_wei": on_the_way,
        "conserved": report["initial_wei"] + minted == held + on_the_way + fees,
    }


def machine_report() -> View:
    """Say on what machine the figures were taken."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": pages * page_bytes,
        "python": platform.python_version(),
        "load_one_minute": round(os.getloadavg()[0], 2),
    }


def report(snapshot: Snapshot, client: NodeClient, directory: Path) -> dict[str, Any]:
    """Return the data of `up --json`."""
    leader = snapshot.leader
    return {
        "blocks": [block_report(each) for each in snapshot.blocks],
        "balances": {each.address: each.balance_wei for each in snapshot.nodes},
        "supply": supply_report(client, directory / "genesis.json"),
        "tasks": task_reports(client),
        "head": None if leader is None else {"hash": leader.head, "height": leader.height},
        "agree": snapshot.agree,
        "machine": machine_report(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _address(text: str) -> str:
    return "0x" + text.removeprefix("0x").lower()
