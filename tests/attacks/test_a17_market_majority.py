"""A17: one person takes all places of verifiers of a market task and sells it garbage.

The 64 places are first come and the stakes come back. So one buyer of names is every committee, votes for models that
nobody can read, and takes what the initiator deposited.

Earns: 11.48 of 11.5 coins for the stakes of 64 names, which all come back; an honest verifier is refused (`Full`).
Kind: market contract; the shipped contract on the embedded virtual machine.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from coincurve import PrivateKey
from eth_abi import encode

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.content_id import Codec, HashKind, cid_of_block
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.wallet import Wallet, development_accounts
from learnchain.market.contract import (
    announce_calldata,
    announce_model_calldata,
    calldata,
    creation_code,
    decode_task,
)
from learnchain.market.demo_stage import LOCAL_CHAIN_ID, LocalChain
from learnchain.market.terms import Payment, Terms, VoteInterpretation
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC
from learnchain.protocol.payload import address_bytes, decode_values

PLACES, MODELS, COMMITTEE = 64, 2, 3
SALT = b"\5" * 32


@dataclass(frozen=True)
class BoughtMajority:
    """What the attacker's accounts gained, all fees paid, and what the contract believes."""

    honest_verifier_enrolled: bool
    deposited_wei: int
    gained_wei: int
    judged_models: int
    accepted_correct: int


@dataclass
class Sender:
    """Send transactions of many wallets to one contract on a local chain."""

    chain: LocalChain
    contract: bytes | None = None
    nonces: dict[bytes, int] = field(default_factory=dict)

    async def send(self, wallet: Wallet, data: bytes, value: int = 0) -> dict[str, Any]:
        """Send one transaction and return its receipt."""
        nonce = self.nonces.get(wallet.address, 0)
        self.nonces[wallet.address] = nonce + 1
        fields: dict[str, Any] = {
            "chainId": LOCAL_CHAIN_ID,
            "nonce": nonce,
            "value": value,
            "gas": 5_500_000 if self.contract is None else 3_000_000,
            "maxFeePerGas": 2 * 10**9,
            "maxPriorityFeePerGas": 10**9,
            "data": data,
        }
        if self.contract is not None:
            fields["to"] = self.contract
        digest = await self.chain.rpc("eth_sendRawTransaction", ["0x" + wallet.sign_transaction(fields).hex()])
        return await self.chain.rpc("eth_getTransactionReceipt", [digest])

    async def read(self, data: bytes) -> bytes:
        """Call the contract without a transaction."""
        assert self.contract is not None
        call = {"to": "0x" + self.contract.hex(), "data": "0x" + data.hex()}
        return bytes.fromhex((await self.chain.rpc("eth_call", [call, "latest"]))[2:])

    async def balance_wei(self, wallets: tuple[Wallet, ...]) -> int:
        """Return what these wallets hold together."""
        held = [await self.chain.rpc("eth_getBalance", ["0x" + each.address.hex(), "latest"]) for each in wallets]
        return sum(int(each, 16) for each in held)


def public_key(wallet: Wallet) -> bytes:
    """Return the 64 bytes with which others encrypt to a wallet."""
    return PrivateKey(wallet.private_key).public_key.format(compressed=False)[1:]


async def vote_for(sender: Sender, task: bytes, place: int, names: dict[bytes, Wallet], correct: int) -> None:
    """Draw the committee of a model, which is one person, and let it vote for a count of its choice."""
    assert sender.contract is not None
    sender.chain.mine()
    first = next(iter(names.values()))
    await sender.send(first, calldata("draw", task, place))
    (drawn,) = decode_values(("address[]",), await sender.read(calldata("committeeOf", task, place)))
    members = [names[address_bytes(address)] for address in drawn]
    kinds = ["uint256", "address", "bytes32", "uint8", "address", "uint32", "uint8", "bytes32"]
    contract = "0x" + sender.contract.hex()
    for member in members:
        values = [LOCAL_CHAIN_ID, contract, task, place, "0x" + member.address.hex(), correct, 0, SALT]
        await sender.send(member, calldata("commitVote", task, place, keccak256(encode(kinds, values))))
    for member in members:
        await sender.send(member, calldata("revealVote", task, place, correct, 0, SALT))
    await sender.send(first, calldata("judge", task, place))


def terms_of(now_seconds: int) -> Terms:
    """Return what the initiator offers: two coins a model, whatever it gains."""
    return Terms(
        closes_seconds=now_seconds + 100_000,
        commit_seconds=600,
        reveal_seconds=600,
        rows=1_000,
        fitness=0,
        tolerance=50,
        interpretation=VoteInterpretation.GAIN,
        payment=Payment.WITHIN_TOLERANCE,
        models=MODELS,
        committee=COMMITTEE,
        model_wei=2 * WEI_PER_ETHER,
        vote_wei=WEI_PER_ETHER // 10,
        stake_wei=WEI_PER_ETHER,
        bond_wei=WEI_PER_ETHER // 2,
    )


async def play() -> BoughtMajority:
    """Buy every place of a task, sell it garbage, and take everything home."""
    wallets = development_accounts(DEVELOPMENT_MNEMONIC, PLACES + MODELS + 2)
    initiator, honest = wallets[0], wallets[-1]
    names, sellers = wallets[1 : PLACES + 1], wallets[PLACES + 1 : -1]
    sender = Sender(LocalChain(tuple(wallet.address for wallet in wallets)))
    receipt = await sender.send(initiator, creation_code())
    sender.contract = bytes.fromhex(receipt["contractAddress"][2:])
    terms = terms_of(sender.chain.seconds)
    posted = await sender.send(initiator, announce_calldata(terms, public_key(initiator), b"{}"), terms.value_wei)
    task = bytes.fromhex(posted["logs"][0]["topics"][1][2:])
    before = await sender.balance_wei((*names, *sellers))
    for name in names:
        await sender.send(name, calldata("enrol", task, public_key(name)), terms.stake_wei)
    refused = await sender.send(honest, calldata("enrol", task, public_key(honest)), terms.stake_wei)
    by_address = {name.address: name for name in names}
    for place, seller in enumerate(sellers):
        cid = cid_of_block(b"garbage %d" % place, Codec.RAW, HashKind.BLAKE3)
        offer = announce_model_calldata(task, cid, b"\1" * 32, public_key(seller))
        await sender.send(seller, offer, terms.bond_wei)
        await vote_for(sender, task, place, by_address, 200 + 150 * place)
    await sender.send(names[0], calldata("close", task))
    for name in names:
        await sender.send(name, calldata("resign", task))
        await sender.send(name, calldata("withdraw"))
    for seller in sellers:
        await sender.send(seller, calldata("withdraw"))
    state = decode_task(await sender.read(calldata("taskOf", task)))
    return BoughtMajority(
        honest_verifier_enrolled=refused["status"] == "0x1",
        deposited_wei=terms.value_wei,
        gained_wei=await sender.balance_wei((*names, *sellers)) - before,
        judged_models=state.judged_count,
        accepted_correct=state.accepted,
    )


def attack() -> BoughtMajority:
    """Run the attack on a chain of its own."""
    return asyncio.run(play())


def test_whoever_buys_every_place_takes_the_whole_deposit_for_garbage() -> None:
    result = attack()
    assert not result.honest_verifier_enrolled
    assert result.judged_models == MODELS
    assert result.accepted_correct == 200 + 150 * (MODELS - 1)
    assert result.gained_wei > result.deposited_wei * 99 // 100
