"""`learn_faucet`: coins for a new wallet, on networks whose genesis funds the accounts that every developer knows."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from learnchain.execution.genesis import genesis_balances
from learnchain.node.api.chain_feed import Caller
from learnchain.node.clock import Clock
from learnchain.node.genesis import Genesis
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC
from learnchain.node.wallet import Wallet, development_accounts
from learnchain.primitives.hashing import keccak256
from learnchain.primitives.numbers import WEI_PER_ETHER
from learnchain.primitives.rejection import Rejected, RejectionReason

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
