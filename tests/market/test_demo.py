"""Whole tasks on a chain of this process: what the market promises, with everything real but the size."""

import asyncio
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.codec import Accuracy
from learnchain.execution.wallet import development_accounts
from learnchain.learning.data import digits
from learnchain.learning.train import configure_torch
from learnchain.market.contributors import LocallyTrainedModel, LocalTrainingTerms
from learnchain.market.demo import MarketRun, MarketScenario
from learnchain.market.demo_cast import SMALL, build_hostile_model
from learnchain.market.demo_stage import DEVELOPMENT_MNEMONIC, connect_remote_chain, open_local_chain, read_idx_data
from learnchain.market.package import PackageManifest
from learnchain.protocol.model_presets import mlp
from learnchain.rejection import Rejected, RejectionReason

IDX_FILES = [b"", b"\0\0\x08\x03\0\0\0\x02" + bytes(8), b"\0\0\x08\x03\xff\xff\xff\xff" + bytes(8)]
HOME = LocalTrainingTerms(6, 1_000, 16)


def play(directory: Path, **changes: Any) -> dict[str, Any]:
    configure_torch()
    script = MarketScenario(changes.pop("scenario", 2), SMALL, HOME, threshold=2_000, fusion_epochs=6, **changes)
    return asyncio.run(MarketRun(script, open_local_chain(14)[0], digits(), directory).run())


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_scenario_2_pays_what_it_owes_and_keeps_nothing(tmp_path: Path):
    report = play(tmp_path, fitness=0)
    assert report["value"]["conserved"]
    assert report["value"]["left_in_contract_wei"] == 0
    assert [model["name"] for model in report["models"]] == [f"contributor {index}" for index in range(1, 6)]
    assert report["models"][0]["status"] == "accepted"
    medians = [model["median_correct"] for model in report["models"] if model["status"] == "accepted"]
    assert medians == sorted(medians)
    assert report["fused_model"]["correct"] == medians[-1]
    assert all(len(report["fusion"][name]) == 5 for name in ("strategy_1", "strategy_2", "strategy_2_by_label"))
    assert report["fusion"]["strategy_2"][-1] > report["fusion"]["strategy_2"][0]


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_liars_and_hostile_models(tmp_path: Path):
    """Scenario I's heterogeneous CNNs, one verifier in three who lies, and every kind of hostile model."""
    hostile = ("nan", "oversized", "garbage", "shape", "absent")
    report = play(tmp_path, scenario=1, liar=True, hostile=hostile)
    found = {model["name"]: model for model in report["models"]}
    reasons = {kind: found[f"hostile: {kind}"]["refused_because"] for kind in hostile}
    assert reasons == {
        "nan": ["weights_not_finite"],
        "oversized": ["too_large"],
        "garbage": ["weights_malformed"],
        "shape": ["weights_malformed"],
        "absent": ["unavailable"],
    }
    assert all(found[f"hostile: {kind}"]["status"] == "refused" for kind in hostile)
    measured = [model for model in report["models"] if not model["refused_because"]]
    assert {model["paid_votes"] for model in measured} == {2}
    assert report["value"]["conserved"]


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_one_who_joins_late_and_one_who_leaves_do_not_stop_it(tmp_path: Path):
    report = play(tmp_path, late_joiner=True, leaving_verifier=True)
    assert all(model["status"] in {"accepted", "below"} for model in report["models"])
    late = {account for model in report["models"] for account in model["votes"]} - {f"account {at}" for at in (6, 7, 8)}
    assert late == {"account 9"}
    gone = [model["votes"].get("account 6") for model in report["models"]]
    assert gone[0] is not None
    assert gone[-1] is None
    assert report["value"]["conserved"]


def test_a_model_below_the_threshold_is_not_published(tmp_path: Path):
    configure_torch()
    script = MarketScenario(2, SMALL, LocalTrainingTerms(1, 1, 90), threshold=9_900, fusion_epochs=3)
    stage, chain = open_local_chain(14)
    with pytest.raises(Exception, match="too little"):
        asyncio.run(MarketRun(script, stage, digits(), tmp_path).run())
    assert chain.height < 20


@pytest.mark.network
@pytest.mark.timeout(1_200)
def test_the_same_contract_and_code_on_anvil(tmp_path: Path):
    beside = Path(__file__).parents[1] / "interop" / "node_modules" / ".bin"
    anvil = shutil.which("anvil") or shutil.which("anvil", path=beside)
    if anvil is None:
        pytest.skip("anvil is not installed: make tests/interop/node_modules")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [anvil, "--port", str(port), "--accounts", "14", "--silent", "--mnemonic", DEVELOPMENT_MNEMONIC]
    process = subprocess.Popen(arguments)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        report = asyncio.run(_on_anvil(f"http://127.0.0.1:{port}", tmp_path))
    finally:
        process.terminate()
        process.wait(10)
    assert report["value"]["conserved"]
    assert report["models"][0]["status"] == "accepted"


async def _on_anvil(url: str, directory: Path) -> dict[str, Any]:
    configure_torch()
    async with connect_remote_chain(url, development_accounts(DEVELOPMENT_MNEMONIC, 14)) as stage:
        return await MarketRun(
            MarketScenario(2, SMALL, HOME, threshold=2_000, fusion_epochs=6), stage, digits(), directory
        ).run()


def test_hostile_kinds_are_known(tmp_path: Path):
    (tmp_path / "home").write_bytes(b"weights")
    honest = LocallyTrainedModel(PackageManifest(mlp((2,), 2), (0,)), tmp_path / "home", Accuracy(1, 2))
    with pytest.raises(Rejected) as caught:
        build_hostile_model("polite", honest, tmp_path)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize("content", IDX_FILES)
def test_idx_files_are_checked(tmp_path: Path, content: bytes):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(Rejected) as caught:
        read_idx_data(tmp_path)
    assert caught.value.reason is RejectionReason.MALFORMED


def test_a_missing_idx_file_says_so(tmp_path: Path):
    with pytest.raises(Rejected) as caught:
        read_idx_data(tmp_path)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
