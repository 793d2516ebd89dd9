"""A chain of one process: the embedded engine, a block for every transaction, time that a test moves on."""

from typing import Any

from learnchain.execution.genesis import DEFAULT_GAS_LIMIT, execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.primitives.codec import Address
from learnchain.primitives.hashing import keccak256
from learnchain.primitives.key_value import MemoryStore
from learnchain.primitives.numbers import WEI_PER_ETHER
from learnchain.primitives.payload import PayloadAttributes, PayloadVerdict

LOCAL_CHAIN_ID = 1_337
GENESIS_SECONDS = 1_000_000
BLOCK_SECONDS = 1
_NONE = b"\0" * 32


class LocalChain:
    """Answer `eth_*` calls and mine at once; the blocks are the ones that the real network's engine builds."""

    def __init__(self, accounts: tuple[Address, ...], ether: int = 1_000) -> None:
        balances = dict.fromkeys(accounts, ether * WEI_PER_ETHER)
        self._engine = PyEvmEngine(
            MemoryStore(), execution_genesis(LOCAL_CHAIN_ID, GENESIS_SECONDS, DEFAULT_GAS_LIMIT, balances)
        )
        self._head = self._engine.capabilities().head
        self.seconds = GENESIS_SECONDS
        self.height = 0
        self.gas_used = 0

    async def rpc(self, method: str, params: list[Any]) -> Any:
        """Answer one call; a transaction is in a block when this returns."""
        answer = self._engine.rpc(method, params)
        if method == "eth_sendRawTransaction":
            self.mine()
        return answer

    async def pause(self) -> None:
        """Let one empty block pass."""
        self.mine()

    def mine(self, seconds: int = BLOCK_SECONDS) -> None:
        """Build, judge and choose one block, `seconds` after the last."""
        self.seconds += seconds
        self.height += 1
        randao = keccak256(b"local-chain" + self.height.to_bytes(8, "big"))
        attributes = PayloadAttributes(self.seconds, randao, b"\xfe" * 20, (), _NONE)
        payload = self._engine.build(self._head, attributes)
        status = self._engine.new_payload(payload, payload.beacon_root)
        if status.status is not PayloadVerdict.VALID:
            raise RuntimeError(f"the engine refuses its own block: {status.detail}")
        self._engine.set_head(payload.block_hash, _NONE, _NONE)
        self._head = payload.block_hash
        self.gas_used += payload.gas_used
