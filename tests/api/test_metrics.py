"""Metrics as a scraper sees them, the bounded log, and what a node that does not judge takes of memory."""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from learnchain.node import settings
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import KEPT_LOGS, load_settings, open_logs
from learnchain_conformance.node_processes import LocalProcesses

MAXIMUM_MEMORY_BYTES = 300_000_000
DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"


def scraped(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    families = text_string_to_metric_families(text)
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.network
@pytest.mark.timeout(120)
def test_a_node_that_does_not_judge_is_small_and_tells_its_metrics(tmp_path: Path) -> None:
    plan = LocalPlan(tmp_path, miners=1, rpc_port=0, first_block_milliseconds=3_000)
    laid_out = asyncio.run(provision_network(plan, time.time_ns() // 1_000_000))
    path = laid_out.settings[0]
    port = laid_out.rpc_ports[1]
    replace(load_settings(path), verifies_models=False, metrics_port=port).save(path)
    nodes = LocalProcesses(replace(laid_out, settings=laid_out.settings[:1]))
    try:
        nodes.start()
        nodes.wait_until(lambda: nodes.height(0) >= 1, 60)
        found = scraped(port)
    finally:
        nodes.stop()
    assert found["learnchain_head_height"] >= 1
    assert sum(value for name, value in found.items() if name.startswith("learnchain_phase")) == 1
    assert found["learnchain_measurements_totalpayload"] >= 1
    assert found["learnchain_blob_bytes"] > 0
    assert 50_000_000 < found["learnchain_resident_memory_bytes"] < MAXIMUM_MEMORY_BYTES
    documented = DOCUMENTED.read_text()
    for name in found:
        assert name.split("_total")[0].removesuffix("payload") in documented or name.startswith("learnchain_phase")


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAXIMUM_LOG_BYTES", 10_000)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        place = open_logs(tmp_path, "node-7", "info")
        for number in range(2_000):
            logging.getLogger("test").info("line %d of many", number)
        files = sorted(place.parent.iterdir())
        assert len(files) == KEPT_LOGS + 1
        assert all(each.stat().st_size <= 10_000 for each in files)
        assert "node-7" in place.read_text()
        for handler in root.handlers:
            handler.close()
    finally:
        root.handlers = before
        root.setLevel(level)
