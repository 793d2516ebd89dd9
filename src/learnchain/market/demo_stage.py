"""A chain of one process: the embedded engine, a block for every transaction, time that a test moves on.

Where a run of the market takes place: an own chain in this process, or any chain behind a JSON-RPC address.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from learnchain.encoding.codec import WEI_PER_ETHER, Address
from learnchain.encoding.cryptography import keccak256
from learnchain.encoding.files import MemoryStore
from learnchain.execution.genesis import DEFAULT_GAS_LIMIT, execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import Wallet, development_accounts
from learnchain.learning.data import DataSet
from learnchain.market.contract import http_rpc
from learnchain.market.demo import MarketChain
from learnchain.protocol.payload import PayloadAttributes, PayloadStatusCode
from learnchain.rejection import Rejected, RejectionReason

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
        if status.status is not PayloadStatusCode.VALID:
            raise RuntimeError(f"the engine refuses its own block: {status.detail}")
        self._engine.set_head(payload.block_hash, _NONE, _NONE)
        self._head = payload.block_hash
        self.gas_used += payload.gas_used


DEVELOPMENT_MNEMONIC = "test test test test test test test test test test test junk"
"""The words of every development chain: worthless on purpose."""

_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801
_IMAGE_HEADER_BYTES, _LABEL_HEADER_BYTES = 16, 8
_MAXIMUM_IDX_ROWS = 70_000
_POLL_SECONDS = 0.2


def open_local_chain(accounts: int) -> tuple[MarketChain, LocalChain]:
    """Return a chain of this process with funded accounts; time passes when the play says so."""
    wallets = development_accounts(DEVELOPMENT_MNEMONIC, accounts)
    chain = LocalChain(tuple(wallet.address for wallet in wallets))

    async def advance(seconds: int) -> None:
        chain.mine(seconds)

    return MarketChain(chain.rpc, chain.pause, advance, wallets), chain


@asynccontextmanager
async def connect_remote_chain(url: str, wallets: tuple[Wallet, ...]) -> AsyncIterator[MarketChain]:
    """Yield a chain behind an address; development chains are told to let time pass, others are waited for."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        rpc = http_rpc(session, url)

        async def pause() -> None:
            await asyncio.sleep(_POLL_SECONDS)

        async def advance(seconds: int) -> None:
            try:
                await rpc("evm_increaseTime", [seconds])
                await rpc("evm_mine", [])
            except Rejected:
                await asyncio.sleep(1)

        yield MarketChain(rpc, pause, advance, wallets)


def read_idx_data(directory: Path, part: str = "train") -> DataSet:
    """Return MNIST's training images, or its `t10k` test images, from their two IDX files, uncompressed."""
    images, labels = directory / f"{part}-images-idx3-ubyte", directory / f"{part}-labels-idx1-ubyte"
    count = _read_idx_rows(images, _IDX_IMAGES, _IMAGE_HEADER_BYTES, 28 * 28)
    if _read_idx_rows(labels, _IDX_LABELS, _LABEL_HEADER_BYTES, 1) != count:
        raise Rejected(RejectionReason.MALFORMED, f"{labels} does not fit {images}")
    pixels = np.fromfile(images, dtype=np.uint8, offset=_IMAGE_HEADER_BYTES)
    return DataSet(pixels.reshape(count, 1, 28, 28), np.fromfile(labels, dtype=np.uint8, offset=_LABEL_HEADER_BYTES))


def _read_idx_rows(path: Path, kind: int, header_bytes: int, row_bytes: int) -> int:
    try:
        with path.open("rb") as file:
            head = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} cannot be read: {error}") from error
    count = int.from_bytes(head[4:], "big")
    wrong = int.from_bytes(head[:4], "big") != kind or not 1 <= count <= _MAXIMUM_IDX_ROWS
    if wrong or size != header_bytes + count * row_bytes:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no such IDX file")
    return count
