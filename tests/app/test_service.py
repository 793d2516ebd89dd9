"""The promises of a network on real processes and a real clock, as users run them."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from learnchain.cli.rpc import token_of
from learnchain.execution.escrow import decode_task, task_calldata
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import load_settings
from learnchain.protocol.payload import SettlementOutcome
from learnchain.storage.genesis import load_genesis
from learnchain.tasks.task_file import BUILT_IN
from learnchain_conformance.node_processes import LocalProcesses

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(240)]

DIGITS: dict[str, Any] = {**BUILT_IN["digits"], "required_accuracy": "0.5", "model": {"preset": "mlp", "hidden": [32]}}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[LocalProcesses]:
    plan = LocalPlan(tmp_path, miners=3, rpc_port=0, first_block_milliseconds=12_000)
    network = LocalProcesses(asyncio.run(provision_network(plan, time.time_ns() // 1_000_000)))
    try:
        network.start()
        yield network
    finally:
        network.stop()


def publish(nodes: LocalProcesses, table: dict[str, Any], index: int = 0) -> None:
    nodes.wait_until_ready(index, 60)
    nodes.call(index, "learn_publishTask", token_of(nodes.network.directory, index), table)


def escrow_status(nodes: LocalProcesses, task_id: str) -> int:
    settings = load_settings(nodes.network.settings[0])
    escrow = "0x" + load_genesis(Path(settings.genesis)).parameters.escrow.hex()
    data = "0x" + task_calldata(bytes.fromhex(task_id)).hex()
    answer = nodes.call(0, "eth_call", {"to": escrow, "data": data}, "latest")
    return decode_task(bytes.fromhex(answer[2:])).status


def test_a_publisher_killed_in_phase_two_ends_in_an_empty_block_and_a_refund(nodes: LocalProcesses) -> None:
    publish(nodes, {**DIGITS, "name": "abandoned"}, index=1)

    def training_it() -> bool:
        here = nodes.call(0, "learn_round")
        return here["deciding"]["name"] == "abandoned" and here["key_released"]

    nodes.wait_until(training_it, 90)
    deciding = nodes.call(0, "learn_round")["deciding"]
    nodes.kill(1)
    nodes.wait_for_height(deciding["height"] + 3, 90)
    ended, *later = nodes.call(0, "learn_blocks", deciding["height"], deciding["height"] + 3)
    assert (ended["trained"], ended["missed"]) == (False, "release")
    struck, *shares = [each["outcome"] for each in ended["settlements"]]
    # The reward goes back; the bond of who kept the test set goes to the miners that had committed.
    assert struck == SettlementOutcome.STRUCK.value
    assert set(shares) <= {SettlementOutcome.SLASHED.value}
    assert any(each["trained"] for each in later)
    ledger = nodes.call(0, "learn_ledger")
    assert (ledger["refunded_wei"], ledger["paid_wei"], ledger["locked_wei"]) == (2 * 10**18, 0, 0)
    nodes.wait_until(lambda: escrow_status(nodes, deciding["id"]) == SettlementOutcome.STRUCK.code, 60)


def test_three_tasks_are_trained_in_the_order_of_equation_four(nodes: LocalProcesses) -> None:
    tables = {
        "heavy": {"reward_ether": "1", "model": {"preset": "strided_cnn", "channels": [16, 32]}},
        "small": {"reward_ether": "1"},
        "rich": {"reward_ether": "4", "model": {"preset": "mlp", "hidden": [64]}},
    }
    for name, table in tables.items():
        publish(nodes, {**DIGITS, **table, "name": name})
    ranked: list[str] = []

    def all_wait() -> bool:
        tasks = nodes.call(0, "learn_tasks")
        scored = [each for each in tasks["queued_tasks"] if each["score"]]
        ranked[:] = [each["name"] for each in sorted(scored, key=lambda each: float(each["score"]))]
        return len(ranked) == len(tables)

    nodes.wait_until(all_wait, 90)
    assert ranked == ["rich", "small", "heavy"]
    first = nodes.call(0, "learn_round")["deciding"]["height"]
    nodes.wait_for_height(first + 3, 120)
    blocks = nodes.call(0, "learn_blocks", first, first + 3)
    assert [each["task"]["name"] for each in blocks if each["task"]["name"] in tables] == ranked
