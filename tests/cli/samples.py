"""Answers of a node as `api/views.py` gives them, and how tests read an envelope."""

import json
from typing import Any

from learnchain.cli.application import run
from learnchain.encoding.content_id import UNIXFS_V1_2025, cid_of_bytes, cid_text
from learnchain.engines.contract import Rules
from learnchain.engines.dlbc import Dlbc
from tests.cli.fake_node import Answers, RpcProblem

WINNER, PUBLISHER = "0x" + "11" * 20, "0x" + "22" * 20
MODEL = bytes(range(256)) * 6_000
CHUNK_BYTES = 300_000
_NOBODY = {"empty": True, "won_by": None, "trained": False, "missed": "commitment"}
TASK_ID, WAITING_ID = "ab" * 32, "cd" * 32


DLBC = Dlbc()


def model_cid() -> str:
    leaf = UNIXFS_V1_2025.leaf_bytes
    assert len(MODEL) > leaf
    return cid_text(cid_of_bytes(MODEL))


def trained_block(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "hash": f"{height:064x}",
        "parent": f"{height - 1:064x}",
        "proposer": WINNER,
        "task": {"id": TASK_ID, "name": "digits"},
        "is_standing": False,
        "score": "1.5E-19",
        "interval_seconds": 7.5,
        "payload": "00" * 32,
        "queued_tasks": [WAITING_ID],
        "payouts": [{"recipient": WINNER, "amount_gwei": 2_000_000_000, "kind": "block reward"}],
        "settlements": [{"outcome": "paid"}],
        "empty": False,
        "won_by": "training",
        "mapping": None,
        "trained": True,
        "winner": WINNER,
        "accuracy": {"correct": 350, "total": 360},
        "label": "accuracy on public data",
        "model": model_cid(),
        "epochs": 22,
        "phase_seconds": {"key": 1.5, "training": 4.0, "judging": 2.0},
        "verdict": [{"miner": WINNER, "outcome": "winner", "correct": 350, "reason": ""}],
    }


def hashed_block(height: int) -> dict[str, Any]:
    """Return a block of a chain that trains nothing: no accuracy, no model."""
    of_training = ("accuracy", "label", "model", "mapping", "epochs")
    view = {key: value for key, value in trained_block(height).items() if key not in of_training}
    puzzle = {"digest": "00" * 32, "target": "0f" * 32, "expected_attempts": 17}
    return {**view, "trained": False, "won_by": "hashing", "is_standing": True, "puzzle": puzzle}


def empty_block(height: int) -> dict[str, Any]:
    kept = ("height", "hash", "parent", "proposer", "task", "is_standing", "score", "interval_seconds", "payload")
    view = {key: value for key, value in trained_block(height).items() if key in kept}
    return {**view, "queued_tasks": [], "payouts": [], "settlements": [], **_NOBODY}


def task_view(identifier: str, standing: bool) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": "digits",
        "publisher": PUBLISHER,
        "is_standing": standing,
        "reward_wei": 2 * 10**18,
        "bond_wei": 10**17,
        "score": "1.5E-19",
        "parameters": 13_000,
    }


def status(height: int = 2, address: str = WINNER) -> dict[str, Any]:
    return {
        "address": address,
        "head": {"hash": f"{height:064x}", "height": height, "weight": 1, "safe": "", "finalized": ""},
        "deciding": {
            "height": height + 1,
            "name": "digits",
            "start_milliseconds": 0,
            "commitment_milliseconds": 5_500,
            "is_standing": True,
        },
        "phase": {"name": "training", "ends_in_milliseconds": 2_000},
        "training": {},
        "trainings": {"2": {"training_share": 0.97, "training_seconds": 3.4}},
        "curve": [
            {"height": height + 1, "epoch": each, "epochs": 4, "loss": 2.0 - each / 2, "accuracy": each / 4}
            for each in range(3)
        ],
        "peers": 3,
    }


def node_answers(rules: Rules = DLBC) -> Answers:
    views = {1: empty_block(1), 2: trained_block(2)}

    def block(height: int = 2) -> dict[str, Any]:
        if height not in views:
            raise RpcProblem(-32602, "the chain has heights 1 to 2", "argument_invalid")
        return views[height]

    def blob(_cid: str, offset: int = 0) -> dict[str, Any]:
        return {"size": len(MODEL), "offset": offset, "data": MODEL[offset : offset + CHUNK_BYTES].hex()}

    return {
        "learn_status": status,
        "learn_network": lambda: {
            "genesis": "ee" * 32,
            "consensus": rules.name,
            "formulas": {"score": rules.score_formula, "reward": rules.reward_formula},
            "escrow": "0x" + "33" * 20,
            "block_reward_gwei": 2_000_000_000,
        },
        "learn_block": block,
        "learn_blocks": lambda first=1, last=2: [views[each] for each in range(max(1, first), min(2, last) + 1)],
        "learn_tasks": lambda: {
            "selected": task_view("ef" * 32, True),
            "queued_tasks": [task_view(WAITING_ID, False)],
            "posted_tasks": [],
            "settled": [{"task": TASK_ID, "height": 2, "outcome": "paid", "recipient": WINNER}],
        },
        "learn_round": lambda: {"key_released": True, "commitments": [WINNER]},
        "learn_decisions": lambda height: [{"at": 1, "step": "trained", "about": TASK_ID, "epochs": height}],
        "learn_trace": lambda _hash: {
            "messages": [
                {"step": "block", "signer": WINNER, "holds": True, "hash": "aa" * 32, "signature": "bb" * 65}
                | {"bytes": "cc"}
            ]
        },
        "learn_disputes": lambda height=None: {
            "head": 2,
            "disputes": [{"height": height or 2, "respondent": WINNER, "outcome": "challenged", "open": True}],
            "pending": [],
            "audits": [],
        },
        "learn_ledger": lambda: (
            {f"{name}_wei": 10**18 for name in ("escrowed", "paid", "refunded", "burned", "locked")}
            | {"minted_gwei": 2 * 10**9}
        ),
        "learn_blob": blob,
        "learn_publishTask": lambda token, table: {
            "transaction": "0x" + "77" * 32,
            "name": table["name"],
            "reward_wei": 1,
            "bond_wei": 1,
            "value_wei": 2,
            "token": token,
        },
        "eth_call": lambda *_: (
            "0x" + "".join(f"{value:064x}" for value in (int(PUBLISHER, 16), 2 * 10**18, 10**17, 9, 1))
        ),
        "eth_getBalance": lambda *_: hex(5 * 10**18),
        "eth_gasPrice": lambda: hex(10**9),
        "eth_chainId": lambda: hex(1337),
        "eth_estimateGas": lambda *_: hex(21_000),
        "eth_getTransactionCount": lambda *_: hex(4),
        "eth_sendRawTransaction": lambda raw: "0x" + "55" * 32,
    }


def spoken(capsys: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command line with --json; return its exit code and the one envelope on standard output."""
    code = exit_code(*arguments, "--json")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1, lines
    envelope = json.loads(lines[0])
    assert set(envelope) == {"success", "data", "error"}
    assert envelope["success"] == (code == 0) == (envelope["error"] is None)
    if envelope["error"] is not None:
        assert set(envelope["error"]) == {"reason", "detail", "what_to_do"}
        assert envelope["error"]["what_to_do"]
    return code, envelope


def exit_code(*arguments: str) -> int:
    try:
        run(list(arguments))
    except SystemExit as leaving:
        return int(leaving.code or 0)
    raise AssertionError("the program exits")
