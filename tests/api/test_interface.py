"""The faucet gives a little, not too often, and only where the genesis is for development."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from learnchain.api.interface import GIFT_WEI, GIFTS_PER_MINUTE, Faucet, faucet_wallet
from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.genesis import execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import development_accounts
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.genesis import Genesis
from tests.execution.pyevm.chain import CHAIN_ID, ETHER, Chain

ACCOUNTS = development_accounts(DEVELOPMENT_MNEMONIC, 3)


class Hand:
    seconds = 0.0

    def now_milliseconds(self) -> int:
        return 0

    def monotonic_seconds(self) -> float:
        return self.seconds

    async def sleep_until(self, milliseconds: int) -> None:
        raise AssertionError(milliseconds)


def run(scenario: Callable[[Faucet, Chain, Hand], Awaitable[None]]) -> None:
    async def main() -> None:
        balances = {wallet.address: 1_000 * ETHER for wallet in ACCOUNTS}
        door = PyEvmEngine(MemoryStore(), execution_genesis(CHAIN_ID, 1_000, 6_000_000, balances))
        async with WorkerEngine(door) as engine:
            clock = Hand()

            async def send(raw: bytes) -> None:
                await engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])

            await scenario(Faucet(engine, ACCOUNTS[2], CHAIN_ID, clock, send), Chain(door), clock)

    asyncio.run(main())


def test_a_new_wallet_gets_the_gift_and_a_rich_one_nothing():
    async def scenario(faucet: Faucet, chain: Chain, _clock: Hand) -> None:
        poor = b"\x42" * 20
        digest = await faucet.give("0x" + poor.hex())
        await faucet.give("0x" + poor.hex())
        payload = chain.extend()
        assert chain.door.balance(payload.block_hash, poor) == 2 * GIFT_WEI
        assert chain.door.rpc("eth_getTransactionReceipt", [digest])["status"] == "0x1"
        with pytest.raises(Rejected) as caught:
            await faucet.give("0x" + ACCOUNTS[0].address.hex())
        assert caught.value.reason == RejectionReason.RATE_LIMITED
        for wrong in ("0x1", None, 7, "0x" + "zz" * 20):
            with pytest.raises(Rejected) as caught:
                await faucet.give(wrong)
            assert caught.value.reason == RejectionReason.ARGUMENT_INVALID

    run(scenario)


def test_gifts_are_counted_by_the_minute():
    async def scenario(faucet: Faucet, _chain: Chain, clock: Hand) -> None:
        for index in range(GIFTS_PER_MINUTE):
            await faucet.give("0x" + bytes([index + 1] * 20).hex())
        with pytest.raises(Rejected) as caught:
            await faucet.give("0x" + "42" * 20)
        assert caught.value.reason == RejectionReason.RATE_LIMITED
        clock.seconds = 61.0
        await faucet.give("0x" + "42" * 20)

    run(scenario)


def test_only_a_development_genesis_has_a_faucet():
    def genesis(*funded: bytes) -> Genesis:
        balances = dict.fromkeys(funded, 1_000 * ETHER)
        return Genesis(None, None, execution_genesis(CHAIN_ID, 1_000, 6_000_000, balances))  # type: ignore[arg-type]

    wallet = faucet_wallet(genesis(ACCOUNTS[0].address, ACCOUNTS[1].address))
    assert wallet is not None
    assert wallet.address == ACCOUNTS[1].address
    assert faucet_wallet(genesis(b"\x01" * 20)) is None
