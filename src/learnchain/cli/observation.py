"""Look at all nodes of a local network at once: one snapshot feeds the live table, the plain lines and the report."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnchain.cli.rpc import NodeClient
from learnchain.primitives.rejection import Rejected, Unavailable

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
    def won(self) -> tuple[View, ...]:
        """Return the blocks that somebody won, by training or by hashing."""
        return tuple(each for each in self.blocks if not each["empty"])

    @property
    def agree(self) -> bool:
        """Return whether all nodes answer and stand on one head."""
        return len({each.head for each in self.nodes}) == 1 and self.nodes[0].head != ""


@dataclass(slots=True)
class Observer:
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
    def of(cls, settings: tuple[Path, ...], ports: tuple[int, ...], accounts: tuple[str, ...]) -> "Observer":
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
