"""The one door to execution: build, judge and choose payloads, and ask about accounts; everything in it is synchronous.

The vocabulary is Ethereum's Engine API, so that a stock client can stand behind the same door. Clock, disk and
threads stay outside: a payload's time comes with its attributes, its bytes go to an injected store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.payload import ExecutionPayload, Log, PayloadAttributes, PayloadStatus
from learnchain.primitives.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Describe an engine and where it stands."""

    name: str
    version: str
    fork: str
    chain_id: int
    genesis_hash: Hash32
    head: Hash32
    head_number: int
    gas_limit: int


class Reverted(Rejected):
    """Say that a call was executed and reverted; `data` are the bytes that the contract gave as its reason."""

    def __init__(self, data: bytes, detail: str) -> None:
        super().__init__(RejectionReason.EXECUTION_REVERTED, detail)
        self.data = data


class ExecutionDoor(Protocol):
    """Do what every execution engine does for consensus."""

    def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""
        ...

    def build(
        self, parent_hash: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload: the given transactions first, then the pool's; what cannot run is left out.

        Raises `Unavailable` when the parent is unknown and `Rejected` when the attributes break a rule.
        """
        ...

    def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Execute a payload in full and keep it when it is valid; a second time changes nothing."""
        ...

    def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch; transactions of left blocks return to the pool."""
        ...

    def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload; raise `Unavailable` for an unknown one."""
        ...

    def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload; raise `Unavailable` for an unknown one."""
        ...

    def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one `eth_*`, `net_*` or `web3_*` call with JSON values; raise `Rejected` for a wrong one."""
        ...
