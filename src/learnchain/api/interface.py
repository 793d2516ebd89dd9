"""`learn_faucet`: coins for a new wallet, on networks whose genesis funds the accounts that every developer knows.

Open a node's interface: Ethereum's methods, the node's own, the explorer, and the faucet where coins are free.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from learnchain.api.chain_feed import Caller
from learnchain.api.explorer import Explorer
from learnchain.api.inspection import Inspection
from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.api.views import LearnInterface
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.call_process import CallProcess
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.genesis import genesis_balances
from learnchain.execution.wallet import Wallet, development_accounts
from learnchain.network.concurrency import Clock
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC
from learnchain.node.node import TRANSACTION_TOPIC, Node
from learnchain.node.settings import NodeSettings
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.genesis import Genesis

GIFT_WEI = 10 * WEI_PER_ETHER

ENOUGH_WEI = 100 * WEI_PER_ETHER
"""Who owns this much gets nothing."""

GIFTS_PER_MINUTE = 10
_ACCOUNTS = 20
_GAS = 21_000

Send = Callable[[bytes], Awaitable[object]]
"""Put raw bytes into the pool and spread them."""


def faucet_wallet(genesis: Genesis) -> Wallet | None:
    """Return the last well-known account that the genesis funds; None on every network that is not for development."""
    funded = {address for address, balance_wei in genesis_balances(genesis.execution) if balance_wei > GIFT_WEI}
    known = development_accounts(DEVELOPMENT_MNEMONIC, _ACCOUNTS)
    return next((wallet for wallet in reversed(known) if wallet.address in funded), None)


class Faucet:
    """Give a little to whoever asks, a few times a minute; the key is public, so nothing is lost."""

    __slots__ = ("_caller", "_chain_id", "_clock", "_given_seconds", "_send", "_wallet")

    def __init__(self, caller: Caller, wallet: Wallet, chain_id: int, clock: Clock, send: Send) -> None:
        self._caller = caller
        self._send = send
        self._wallet = wallet
        self._chain_id = chain_id
        self._clock = clock
        self._given_seconds: deque[float] = deque()

    async def give(self, address: Any) -> str:
        """Send the gift and return the hash of its transaction."""
        recipient = _address(address)
        self._count()
        balance_wei = int(await self._caller.rpc("eth_getBalance", ["0x" + recipient.hex(), "latest"]), 16)
        if balance_wei >= ENOUGH_WEI:
            raise Rejected(RejectionReason.RATE_LIMITED, "this address owns enough")
        price_wei = int(await self._caller.rpc("eth_gasPrice", []), 16)
        own = "0x" + self._wallet.address.hex()
        raw = self._wallet.sign_transaction(
            {
                "chainId": self._chain_id,
                "nonce": int(await self._caller.rpc("eth_getTransactionCount", [own, "pending"]), 16),
                "to": recipient,
                "value": GIFT_WEI,
                "gas": _GAS,
                "maxFeePerGas": 2 * price_wei,
                "maxPriorityFeePerGas": price_wei // 2,
            }
        )
        await self._send(raw)
        return "0x" + keccak256(raw).hex()

    def _count(self) -> None:
        now = self._clock.monotonic_seconds()
        while self._given_seconds and now - self._given_seconds[0] > 60:
            self._given_seconds.popleft()
        if len(self._given_seconds) >= GIFTS_PER_MINUTE:
            raise Rejected(RejectionReason.RATE_LIMITED, f"{GIFTS_PER_MINUTE} gifts a minute; wait a little")
        self._given_seconds.append(now)


def _address(value: Any) -> bytes:
    try:
        address = bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, TypeError, ValueError):
        address = b""
    if len(address) != 20:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the argument is an address in hex")
    return address


async def open_interface(node: Node, settings: NodeSettings, directory: Path) -> JsonRpcServer:
    """Return the listening server; whoever closes it also ends the process for calls."""
    chain_id = node.genesis.parameters.chain_id

    async def gossip(raw: bytes) -> None:
        await node.network.publish(TRANSACTION_TOPIC, raw)

    calls: Caller | None = None
    if isinstance(node.engine, WorkerEngine):
        # An external client bounds its calls itself, and its state is not in our store.
        calls = CallProcess(node.engine, directory / "execution", chain_id)
    server = JsonRpcServer(node.engine, JsonRpcSettings(port=settings.rpc_port), gossip, calls)
    learn, inspection = LearnInterface(node.ports, node.network, node.genesis, directory), Inspection(node.ports)
    learn.register(server, publishes=settings.is_publisher)
    inspection.register(server)
    server.add_pages(Explorer(learn, inspection, node.engine).routes())
    wallet = faucet_wallet(node.genesis)
    if wallet is not None:
        faucet = Faucet(node.engine, wallet, chain_id, node.ports.clock, node.submit_transaction)

        async def give(address: Any) -> str:
            return await faucet.give(address)

        server.register("learn_faucet", give, sensitive=True)
    await server.start()
    return server
