"""The roles as daemons, each with nothing but a chain's address, a wallet, a folder and a shared blob store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from learnchain.execution.wallet import development_accounts
from learnchain.learning.data import digits, save_data, select_rows
from learnchain.learning.train import configure_torch
from learnchain.market.contributors import LocalTrainingTerms
from learnchain.market.demo_stage import DEVELOPMENT_MNEMONIC, LocalChain
from learnchain.market.initiator import Session, TaskReference, announce, parse_task_reference
from learnchain.market.market_task_file import market_draft, read_market_file
from learnchain.market.services import PrivateWork, collect, contribute, show_task, verify
from learnchain.protocol.model_presets import mlp
from learnchain.rejection import Rejected, RejectionReason, Unavailable

WALLETS = development_accounts(DEVELOPMENT_MNEMONIC, 6)
TABLE: dict[str, Any] = {
    "title": "digits",
    "labels": [str(digit) for digit in range(10)],
    "sample": {"source": "digits", "training_rows": 300, "test_rows": 80, "verification_rows": 150},
    "terms": {
        "models": 2,
        "committee": 2,
        "model_ether": "2",
        "vote_ether": "0.1",
        "stake_ether": "1",
        "bond_ether": "0.5",
        "commit_seconds": 600,
        "reveal_seconds": 600,
    },
    "model": {"preset": "mlp"},
}


@contextlib.asynccontextmanager
async def served(chain: LocalChain) -> AsyncIterator[str]:
    """Serve a chain as JSON-RPC on the loopback interface."""

    async def handle(request: web.Request) -> web.Response:
        call = await request.json()
        try:
            result = await chain.rpc(call["method"], call["params"])
        except Rejected as error:
            code = 3 if error.reason is RejectionReason.EXECUTION_REVERTED else -32000
            fault = {"code": code, "message": f"{error.reason.value}: {error.detail}"}
            return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": fault})
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": result})

    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class World:
    """One chain, one shared folder, and seats around them; a block passes at every pause."""

    def __init__(self, rpc: str, chain: LocalChain, directory: Path) -> None:
        self.rpc, self.chain, self.directory = rpc, chain, directory
        self.looks = 0

    async def pause(self) -> None:
        self.looks += 1
        if self.looks > 2_000:
            raise AssertionError("the market stands still")
        self.chain.mine(5)
        await asyncio.sleep(0.01)

    def seat(self, index: int) -> Session:
        directory = self.directory / f"seat-{index}"
        directory.mkdir(exist_ok=True)
        store = f"folder:{self.directory}/shared"
        return Session(self.rpc, WALLETS[index], directory, store, _entropy(index), self.pause)

    def work(self, first: int, last: int, **terms: Any) -> PrivateWork:
        rows = select_rows(digits(), np.arange(first, last))
        return PrivateWork(rows, 20, None, LocalTrainingTerms(8, 2_000, 16, **terms), lambda: 0.0)


def _entropy(index: int):
    drawn = np.random.Generator(np.random.PCG64(index))
    return drawn.bytes


def play(directory: Path, scenario: Any) -> Any:
    async def whole() -> Any:
        configure_torch()
        chain = LocalChain(tuple(wallet.address for wallet in WALLETS))
        async with served(chain) as rpc, asyncio.timeout(550):
            return await scenario(World(rpc, chain, directory))

    return asyncio.run(whole())


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(600)
def test_roles_meet_on_a_chain_and_in_a_store_alone(tmp_path: Path):
    async def scenario(world: World) -> tuple[Any, ...]:
        name = await announce(world.seat(0), market_draft(TABLE), None)
        assert parse_task_reference(str(name)) == name
        async with asyncio.TaskGroup() as group:
            sellers = [
                group.create_task(contribute(world.seat(1), name, world.work(900, 1_200))),
                group.create_task(contribute(world.seat(2), name, world.work(1_200, 1_500, noise=0.6))),
            ]
            judges = [group.create_task(verify(world.seat(index), name)) for index in (3, 4)]
            buyer = group.create_task(collect(world.seat(0), name, tmp_path / "out"))
        seen = await show_task(world.rpc, world.pause, name)
        return [each.result() for each in sellers], [each.result() for each in judges], buyer.result(), seen

    sellers, judges, buyer, seen = play(tmp_path, scenario)
    assert seen["closed"]
    assert seen["models"][0]["status"] == "accepted"
    accepted = [model["place"] for model in seen["models"] if model["status"] == "accepted"]
    assert buyer["accepted"] == accepted
    assert buyer["fused"]["total"] == 150
    assert buyer["fused"]["correct"] == seen["models"][accepted[-1]]["median_correct"]
    assert all(Path(file).is_file() for file in buyer["fused"]["files"])
    assert sellers[0]["epsilon"] is None
    assert sellers[1]["epsilon"] > 0
    for seller in sellers:
        assert seller["published"]
        expected = (2.5 if seller["place"] in accepted else 0.5) * 10**18
        assert seller["withdrawn_wei"] == expected
    assert [len(judge["votes"]) for judge in judges] == [2, 2]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(600)
def test_every_daemon_goes_on_after_a_stop(tmp_path: Path):
    """All four are cancelled at many moments and started again from their folders; the outcome is the same."""

    async def scenario(world: World) -> Any:
        table = {**TABLE, "terms": {**TABLE["terms"], "models": 1}}
        name = await announce(world.seat(0), market_draft(table), None)

        async def killed(start: Any, lives: int) -> Any:
            for life in range(lives):
                task = asyncio.ensure_future(start())
                done, _ = await asyncio.wait([task], timeout=0.4 + 0.3 * life)
                if done:
                    return task.result()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return await start()

        async with asyncio.TaskGroup() as group:
            seller = group.create_task(killed(lambda: contribute(world.seat(1), name, world.work(900, 1_200)), 4))
            judges = [
                group.create_task(killed(lambda index=index: verify(world.seat(index), name), 5)) for index in (3, 4)
            ]
            buyer = group.create_task(killed(lambda: collect(world.seat(0), name, tmp_path / "out"), 3))
        return seller.result(), [each.result() for each in judges], buyer.result()

    seller, judges, buyer = play(tmp_path, scenario)
    assert seller["status"] == "accepted"
    assert buyer["accepted"] == [0]
    assert [len(judge["votes"]) for judge in judges] == [1, 1]
    assert judges[0]["votes"][0]["correct"] == judges[1]["votes"][0]["correct"]


@pytest.mark.network
def test_a_model_below_the_threshold_stays_at_home(tmp_path: Path):
    async def scenario(world: World) -> Any:
        table = {**TABLE, "threshold_percent": "100"}
        name = await announce(world.seat(0), market_draft(table), None)
        work = PrivateWork(world.work(900, 1_000).rows, 50, None, LocalTrainingTerms(1, 1, 16), lambda: 0.0)
        return await contribute(world.seat(1), name, work), await show_task(world.rpc, world.pause, name)

    report, seen = play(tmp_path, scenario)
    assert not report["published"]
    assert seen["models"] == []


@pytest.mark.network
def test_a_sample_that_breaks_its_promise_gets_no_stake(tmp_path: Path):
    async def scenario(world: World) -> Any:
        draft = market_draft({**TABLE, "labels": ["0", "1", "2"]})
        name = await announce(world.seat(0), draft, None)
        with pytest.raises(Rejected) as caught:
            await verify(world.seat(3), name)
        return caught.value.reason, await show_task(world.rpc, world.pause, name)

    reason, seen = play(tmp_path, scenario)
    assert reason is RejectionReason.MALFORMED
    assert seen["verifiers"] == []


@pytest.mark.network
def test_a_task_that_is_nowhere_is_unavailable(tmp_path: Path):
    async def scenario(world: World) -> None:
        await show_task(world.rpc, world.pause, TaskReference(bytes(20), bytes(32), 0))

    with pytest.raises(Unavailable):
        play(tmp_path, scenario)


@pytest.mark.parametrize("text", ["", "0x00/0x00@1", f"0x{'a' * 40}/0x{'b' * 64}", f"0x{'a' * 40}/0x{'b' * 64}@x"])
def test_names_of_tasks_are_strict(text: str):
    with pytest.raises(Rejected) as caught:
        parse_task_reference(text)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in TABLE.items() if name != key}


WRONG = [
    (_without("title"), RejectionReason.ARGUMENT_INVALID),
    (_without("terms"), RejectionReason.ARGUMENT_INVALID),
    ({**TABLE, "strategy": "third"}, RejectionReason.ARGUMENT_INVALID),
    ({**TABLE, "sample": {**TABLE["sample"], "test_rows": 9_999}}, RejectionReason.ARGUMENT_INVALID),
    ({**TABLE, "sample": {**TABLE["sample"], "source": "nowhere.safetensors"}}, RejectionReason.ARGUMENT_INVALID),
    ({**TABLE, "terms": {**TABLE["terms"], "models": 17}}, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ({**TABLE, "terms": {**TABLE["terms"], "fitness_percent": "0.001"}}, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ({**TABLE, "terms": {**TABLE["terms"], "stake_ether": "0"}}, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
]


@pytest.mark.parametrize(("table", "reason"), WRONG)
def test_wrong_files_are_refused(table: dict[str, Any], reason: RejectionReason):
    with pytest.raises(Rejected) as caught:
        market_draft(table)
    assert caught.value.reason is reason


def test_files_are_read_and_named(tmp_path: Path):
    rows = tmp_path / "rows.safetensors"
    save_data(rows, select_rows(digits(), np.arange(50)))
    file = tmp_path / "task.toml"
    file.write_text(
        f'title = "t"\nlabels = {TABLE["labels"]!r}\n[sample]\nsource = "{rows}"\ntraining_rows = 20\ntest_rows = 10\n'
        'verification_rows = 15\n[terms]\nmodels = 1\ncommittee = 1\nmodel_ether = "1"\nvote_ether = "0.1"\n'
        'stake_ether = "1"\n'
    )
    draft = read_market_file(file)
    assert [len(part) for part in (draft.sample.training, draft.sample.verification)] == [20, 15]
    assert draft.terms.rows == 15
    assert draft.description.recommended == ()
    assert market_draft(TABLE).description.recommended[0] == mlp((1, 8, 8), 10)
    with pytest.raises(Rejected) as caught:
        read_market_file(tmp_path / "missing.toml")
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
