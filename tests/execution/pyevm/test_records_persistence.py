"""A node that is killed at any moment finds its chain again: the embedded engine over the durable store."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.storage.lmdb_store import LmdbStore
from tests.execution.pyevm.chain import GENESIS_SECONDS, KEYS, Chain, genesis, signed

ROOT = Path(__file__).parents[3]
WORKER = """
import sys
from pathlib import Path
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.storage.lmdb_store import LmdbStore
from tests.execution.pyevm.chain import KEYS, Chain, genesis, signed

chain = Chain(PyEvmEngine(LmdbStore(Path(sys.argv[1])), genesis()))
for nonce in range(100_000):
    chain.extend(signed(KEYS[0], nonce))
    print(nonce + 1, flush=True)
"""


def test_a_killed_node_continues_on_its_head(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    reported = 0
    while reported < 10:
        reported = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    reported = max([reported, *(int(line) for line in process.stdout.read().splitlines() if line.strip())])
    process.wait()
    process.stdout.close()
    store = LmdbStore(tmp_path)
    engine = PyEvmEngine(store, genesis())
    height = engine.capabilities().head_number
    assert reported <= height <= reported + 1
    chain = Chain(engine)
    chain.seconds[chain.head] = GENESIS_SECONDS + 12 * height
    chain.extend(signed(KEYS[0], height))
    assert engine.capabilities().head_number == height + 1
    assert engine.balance(chain.head, b"\x99" * 20) == height + 1
    store.close()
