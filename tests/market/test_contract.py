"""The bindings against the real bytecode: what the contract decides is what `votes.judge` says."""

import asyncio
import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.encoding.content_id import cid_of_block
from learnchain.execution.wallet import Wallet
from learnchain.market.contract import (
    ContractClient,
    TaskView,
    announce_calldata,
    announce_model_calldata,
    artifact,
    calldata,
    creation_code,
    decode_event,
    task_exists,
)
from learnchain.market.demo_stage import LOCAL_CHAIN_ID, LocalChain
from learnchain.market.initiator import announce_task
from learnchain.market.package import derive_public_key
from learnchain.market.terms import (
    Ballot,
    ModelStatus,
    Payment,
    Terms,
    Vote,
    VoteInterpretation,
    decide_model,
    vote_commitment,
)
from learnchain.protocol.payload import Log
from learnchain.rejection import Rejected, RejectionReason
from tests.market.samples import DESCRIPTION, TERMS

WALLETS = tuple(Wallet(bytes([index + 1]) * 32) for index in range(5))
SALT = b"\x09" * 32
SOURCE = Path(__file__).parents[2] / "contracts" / "CooperativeTask.sol"


class Bench:
    """A deployed contract, one task and three enrolled verifiers; account 4 contributes."""

    def __init__(self) -> None:
        self.chain = LocalChain(tuple(wallet.address for wallet in WALLETS))
        self.ledger = ContractClient(self.chain.rpc, self.chain.pause)
        self.contract = b""

    async def start(self, terms: Terms) -> TaskView:
        if not self.contract:
            self.contract = await self.ledger.deploy(WALLETS[0], creation_code())
        task_id, block = await announce_task(self.ledger, WALLETS[0], self.contract, terms, DESCRIPTION)
        for wallet in WALLETS[1:4]:
            data = calldata("enrol", task_id, derive_public_key(wallet.private_key))
            await self.ledger.send(wallet, self.contract, data, terms.stake_wei)
        return TaskView(self.ledger, self.contract, task_id, block)

    async def offer(self, view: TaskView, place: int, terms: Terms) -> None:
        cid = cid_of_block(view.task_id + bytes([place]))
        data = announce_model_calldata(view.task_id, cid, b"\x01" * 32, derive_public_key(WALLETS[4].private_key))
        await self.ledger.send(WALLETS[4], self.contract, data, terms.bond_wei)
        self.chain.mine()
        await self.ledger.send(WALLETS[4], self.contract, calldata("draw", view.task_id, place))

    async def vote(self, view: TaskView, place: int, votes: dict[bytes, Vote | None]) -> None:
        ballot = Ballot(LOCAL_CHAIN_ID, self.contract, view.task_id, place)
        for wallet in WALLETS[1:4]:
            vote = votes[wallet.address]
            if vote is not None:
                commitment = vote_commitment(ballot, wallet.address, vote, SALT)
                await self.ledger.send(wallet, self.contract, calldata("commitVote", view.task_id, place, commitment))
        self.chain.mine(101)
        for wallet in WALLETS[1:4]:
            vote = votes[wallet.address]
            if vote is not None:
                await self.ledger.send(
                    wallet, self.contract, calldata("revealVote", view.task_id, place, vote.correct, vote.refusal, SALT)
                )
        self.chain.mine(101)
        await self.ledger.send(WALLETS[0], self.contract, calldata("judge", view.task_id, place))


def test_the_artifact_belongs_to_the_source():
    assert artifact()["sourceSha256"] == hashlib.sha256(SOURCE.read_bytes()).hexdigest()


@pytest.mark.parametrize("interpretation", list(VoteInterpretation))
@pytest.mark.parametrize("payment", list(Payment))
def test_the_contract_decides_as_the_pure_function(interpretation: VoteInterpretation, payment: Payment):
    terms = replace(TERMS, interpretation=interpretation, payment=payment)
    asyncio.run(_compare(terms, random.Random(f"{interpretation}{payment}")))


async def _compare(terms: Terms, chance: random.Random) -> None:
    bench, accepted = Bench(), 0
    view = await bench.start(terms)
    for place in range(2):
        await bench.offer(view, place, terms)
        committee = await view.committee(place)
        level = chance.choice([5, 500, 505, 900])
        choices = [Vote(level), Vote(level + 5), Vote(0), Vote(0, 11), None, Vote(level + 6)]
        votes = {member: chance.choice(choices) for member in committee}
        wanted = decide_model([votes[member] for member in committee], terms, accepted)
        before = [await view.withdrawable(member) for member in committee]
        await bench.vote(view, place, votes)
        after = [await view.withdrawable(member) for member in committee]
        model = await view.model(place)
        assert model.status is wanted.status
        paid = tuple(new - old == terms.vote_wei for old, new in zip(before, after, strict=True))
        assert paid == wanted.paid
        await view.refresh()
        assert (await view.task()).accepted == (wanted.median if wanted.status is ModelStatus.ACCEPTED else accepted)
        accepted = (await view.task()).accepted
        if wanted.status is ModelStatus.ANNOUNCED:
            return
    await bench.ledger.send(WALLETS[0], bench.contract, calldata("close", view.task_id))
    assert (await view.task()).closed
    assert (await view.task()).held_wei == 0


async def _seen(bench: Bench) -> TaskView:
    view = await bench.start(TERMS)
    await bench.offer(view, 0, TERMS)
    await view.refresh()
    return view


def test_the_view_reads_the_story_from_events():
    bench = Bench()
    view = asyncio.run(_seen(bench))
    assert view.terms == TERMS
    assert view.description == DESCRIPTION
    assert view.enrolled == {wallet.address for wallet in WALLETS[1:4]}
    assert view.models[0].contributor == WALLETS[4].address
    assert view.public_keys[WALLETS[4].address] == derive_public_key(WALLETS[4].private_key)
    assert view.list_accepted() == ()
    assert asyncio.run(task_exists(bench.ledger, bench.contract, view.task_id))
    assert not asyncio.run(task_exists(bench.ledger, bench.contract, bytes(32)))
    assert not asyncio.run(task_exists(bench.ledger, b"\x01" * 20, view.task_id))


@pytest.mark.parametrize("case", ["late", "full", "twice", "early_draw", "early_judge", "stranger"])
def test_calls_out_of_turn_revert(case: str):
    with pytest.raises(Rejected) as caught:
        asyncio.run(_out_of_turn(case))
    assert caught.value.reason is RejectionReason.EXECUTION_REVERTED


async def _out_of_turn(case: str) -> None:
    bench = Bench()
    view = await _seen(bench)
    key = derive_public_key(WALLETS[4].private_key)

    async def send(data: bytes, value_wei: int = 0) -> None:
        await bench.ledger.send(WALLETS[4], bench.contract, data, value_wei)

    async def another(index: int) -> None:
        data = announce_model_calldata(view.task_id, cid_of_block(bytes([index])), bytes(32), key)
        await send(data, TERMS.bond_wei)

    if case == "late":
        bench.chain.mine(200_000)
        await another(1)
    elif case == "full":
        await another(1)
        await another(2)
    elif case == "twice":
        data = announce_model_calldata(view.task_id, view.models[0].cid, bytes(32), key)
        await send(data, TERMS.bond_wei)
    elif case == "early_draw":
        await another(1)
        await send(calldata("draw", view.task_id, 1))
    elif case == "early_judge":
        await send(calldata("judge", view.task_id, 0))
    else:
        await send(calldata("commitVote", view.task_id, 0, b"\x01" * 32))


def test_foreign_logs_are_passed_over_and_wrong_values_refused():
    assert decode_event(Log(b"\x01" * 20, (bytes(32),), b"", bytes(32), 0), b"\x01" * 20) is None
    with pytest.raises(Rejected) as caught:
        announce_calldata(replace(TERMS, closes_seconds=1 << 64), b"", b"")
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
