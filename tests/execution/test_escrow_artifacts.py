"""The committed bytecode is what the committed source compiles to."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from learnchain.encoding.cryptography import keccak256
from learnchain.execution import escrow
from learnchain.execution.genesis import ESCROW_ADDRESS, escrow_artifact, execution_genesis
from learnchain.protocol.payload import Settlement, SettlementOutcome

CONTRACTS = Path(__file__).parents[2] / "contracts"


def test_the_artifact_belongs_to_the_source():
    source = (CONTRACTS / "TaskEscrow.sol").read_bytes()
    assert escrow_artifact()["sourceSha256"] == hashlib.sha256(source).hexdigest()


def test_the_compiler_is_the_pinned_one():
    pinned = json.loads((CONTRACTS / "package.json").read_text(encoding="utf-8"))["devDependencies"]["solc"]
    assert escrow_artifact()["compiler"].split("+")[0] == pinned
    assert escrow_artifact()["settings"]["evmVersion"] == "prague"


def test_compiling_again_gives_the_same_bytes():
    if shutil.which("node") is None or not (CONTRACTS / "node_modules" / "solc").exists():
        pytest.skip("node or the pinned compiler is not installed: run npm ci in contracts/")
    answer = subprocess.run(
        ["node", "compile.mjs", "--check"], cwd=CONTRACTS, capture_output=True, text=True, timeout=200, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_the_genesis_carries_the_runtime_code():
    account = execution_genesis(1, 0, 5_000, {})["alloc"]["0x" + ESCROW_ADDRESS.hex()]
    assert account["code"] == escrow_artifact()["deployedBytecode"]
    assert len(account["code"]) < 2 * 24_576


def test_the_binding_speaks_the_interface_of_the_artifact():
    entries = escrow.escrow_abi()
    selectors = {keccak256(_signature(entry).encode())[:4] for entry in entries if entry["type"] == "function"}
    claim = escrow.Claim(
        Settlement(b"\x01" * 32, 1, b"\x02" * 20, SettlementOutcome.PAID), 0, (b"\0" * 32,) * 32, b"\3" * 32, 5
    )
    for data in (
        escrow.post_calldata(b"x", 1, 1, 1),
        escrow.settle_calldata(claim),
        escrow.refund_calldata(b"\x01" * 32),
        escrow.withdraw_calldata(),
        escrow.task_calldata(b"\x01" * 32),
        escrow.withdrawable_calldata(b"\x01" * 20),
        escrow.deposit_calldata(),
        escrow.unbond_calldata(1),
        escrow.release_calldata(b"\x01" * 20),
        escrow.bond_calldata(b"\x01" * 32),
        escrow.collected_calldata(1),
    ):
        assert data[:4] in selectors
    topics = {keccak256(_signature(entry).encode()) for entry in entries if entry["type"] == "event"}
    assert topics == {
        escrow.TASK_POSTED_TOPIC,
        escrow.TASK_SETTLED_TOPIC,
        escrow.BOND_SLASHED_TOPIC,
        *escrow.BOND_TOPICS,
    }


def _signature(entry: dict) -> str:
    return f"{entry['name']}({','.join(_kind(item) for item in entry['inputs'])})"


def _kind(item: dict) -> str:
    if item["type"] == "tuple":
        return f"({','.join(_kind(part) for part in item['components'])})"
    return item["type"]
