"""The `learn_*` namespace over a network that runs: what it shows of decisions, and what it answers to nonsense."""

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from learnchain.api import json_rpc
from learnchain.api.inspection import Inspection
from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings, Origin
from learnchain.api.views import TOKEN_NAME, LearnInterface
from learnchain.encoding.codec import decode
from learnchain.encoding.cryptography import check_signature, recover
from learnchain.engines.dlbc import Dlbc
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Commitment, Release
from learnchain.rejection import RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN
from tests.api.test_json_rpc_fuzz import CODES, value

COUNT = 4_000
METHODS = ("status", "network", "block", "blocks", "tasks", "round", "decisions", "ledger", "peers", "blob")
METHODS += ("publishTask", "trace", "candidates", "task", "faucet", "nothing")

Ask = Callable[..., Awaitable[Any]]


def on_a_network(directory: Path, story: Callable[[SimulatedNodes, Ask], Awaitable[None]]) -> None:
    """Run a network of two miners to its first trained block and tell the story through node 0's interface."""

    async def scenario() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=2), seed=6)
        await nodes.start()
        node = nodes.node(0)
        server = JsonRpcServer(node.engine, JsonRpcSettings(port=0))
        LearnInterface(node.ports, node.network, node.genesis, directory).register(server)
        Inspection(node.ports).register(server)

        async def ask(method: str, *params: Any) -> Any:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
            answer = json.loads(await server.answer(body, Origin()) or "")
            assert answer.get("error", {}).get("code") in CODES | {None}, answer
            return answer

        await nodes.wait_for_height(2, 300)
        await story(nodes, ask)
        await server.close()
        await nodes.close()

    run_simulated(scenario())


@pytest.mark.slow
def test_a_trace_is_signed_by_those_who_decided_and_can_be_checked_elsewhere(tmp_path: Path):
    async def story(nodes: SimulatedNodes, ask: Ask) -> None:
        formulas = (await ask("learn_network"))["result"]["formulas"]
        assert formulas == {"score": Dlbc.score_formula, "reward": Dlbc.reward_formula}
        blocks = (await ask("learn_blocks"))["result"]
        trained = next(each for each in blocks if each["trained"])
        trace = (await ask("learn_trace", trained["height"]))["result"]
        assert trace == (await ask("learn_trace", "0x" + trained["hash"]))["result"]
        steps = [each["step"] for each in trace["messages"]]
        assert steps == ["key release", "commitment", "commitment", "release", "reveal", "block"]
        assert all(each["holds"] for each in trace["messages"])
        for each in trace["messages"]:
            signer = recover(bytes.fromhex(each["signing_hash"]), bytes.fromhex(each["signature"]))
            assert each["signer"] == "0x" + signer.hex()
        release = decode(Release, bytes.fromhex(trace["messages"][3]["bytes"]))
        check_signature(release, bytes.fromhex(trace["messages"][0]["signer"][2:]))
        assert trace["messages"][-1]["signer"] == trace["messages"][4]["signer"] == trained["winner"]
        assert trace["selected"]["task"] == trained["task"]["id"]
        candidates = (await ask("learn_candidates", trained["height"]))["result"]
        assert sorted(each["outcome"] for each in candidates)[-1] == "winner"
        commitments = [decode(Commitment, bytes.fromhex(each["bytes"])) for each in trace["messages"][1:3]]
        assert [each["miner"] for each in candidates] == ["0x" + each.miner.hex() for each in commitments]
        task = (await ask("learn_task", trained["task"]["id"]))["result"]
        assert (task["id"], task["name"]) == (trained["task"]["id"], trained["task"]["name"])
        assert {each["outcome"] for each in (await ask("learn_candidates"))["result"]} <= {"committed", "revealed"}
        empty = [each for each in blocks if not each["trained"]]
        for each in empty:
            assert (await ask("learn_trace", each["height"]))["result"]["messages"][-1]["holds"]
        for wrong in ({}, -1, 10**30, "0x" + "ff" * 32, "é", 0, None):
            assert "error" in await ask("learn_trace", wrong)

    on_a_network(tmp_path, story)


@pytest.mark.slow
def test_random_arguments_are_answered_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def internal(method: str, error: Exception) -> Exception:
        raise AssertionError(f"{method} raised {error!r}") from error

    monkeypatch.setattr(json_rpc, "_internal", internal)

    async def story(nodes: SimulatedNodes, ask: Ask) -> None:
        chance = random.Random(8)
        block = (await ask("learn_block"))["result"]
        known = [block["hash"], block["task"]["id"], "0x" + block["hash"], str(block.get("model", ""))]
        for _ in range(COUNT):
            params = [value(chance, known) for _ in range(chance.randrange(3))]
            await ask("learn_" + chance.choice(METHODS), *params)

    on_a_network(tmp_path, story)


@pytest.mark.slow
def test_a_task_that_this_network_would_not_admit_is_refused_before_it_is_paid(tmp_path: Path):
    """Its coins would lie in the escrow until the deadline, for a task that nobody ever selects."""

    async def story(nodes: SimulatedNodes, ask: Ask) -> None:
        token = (tmp_path / TOKEN_NAME).read_text()
        engine, address = nodes.node(0).engine, "0x" + nodes.node(0).ports.wallet.address.hex()
        before = await engine.rpc("eth_getTransactionCount", [address, "pending"])
        cheap = {**BUILT_IN["iris"], "reward_ether": "0.0001"}
        answer = await ask("learn_publishTask", token, cheap)
        assert answer["error"]["data"]["reason"] == RejectionReason.REWARD_TOO_LOW.value
        assert await engine.rpc("eth_getTransactionCount", [address, "pending"]) == before
        assert "error" not in await ask("learn_publishTask", token, BUILT_IN["iris"])
        assert await engine.rpc("eth_getTransactionCount", [address, "pending"]) == hex(int(before, 16) + 1)

    on_a_network(tmp_path, story)
