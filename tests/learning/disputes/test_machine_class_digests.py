"""Miner and auditor of different reproducibility classes: bits differ, and nobody is slashed."""

import os
import subprocess
import sys

import pytest

from learnchain.learning.disputes.reference import settled
from learnchain.learning.replay import state_shapes
from learnchain.learning.safe_tensors import read_header, read_tensor
from learnchain.learning.trace import state_digest, state_path
from learnchain.rejection import RejectionReason
from tests.learning.disputes.other_class import STEPS, case, segment_states

CLASSES = [("default", 1), ("avx2", 1), ("avx512", 2)]


def read(path, shapes):
    entries = read_header(path, 1 << 26, RejectionReason.TRACE_MISMATCH)
    return {name: read_tensor(path, entries[name]) for name in shapes}


def made_elsewhere(place, capability, threads, first, count):
    """Train in a process of another class; return the capability that it found itself to have."""
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": {"default": "SSE41", "avx2": "AVX2", "avx512": "DEFAULT"}[capability],
        "MKL_ENABLE_INSTRUCTIONS": {"default": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"}[capability],
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-m", "tests.learning.disputes.other_class", str(place), str(first), str(count)]
    done = subprocess.run([*command, str(threads)], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("classes", "each"),
    [(CLASSES[:1], 8), pytest.param(CLASSES, 334, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])],
)
def test_an_honest_miner_of_another_class_is_never_slashed(tmp_path, record_property, classes, each):
    """Three classes at 334 runs are the 1,002; every step of the audited segment is settled, the worst one counts."""
    differing, worst = 0, 0.0
    for place, (capability, threads) in enumerate(classes):
        first = place * each
        made_elsewhere(tmp_path, capability, threads, first, each)
        for number in range(first, first + each):
            plan, data, start = case(number)
            shapes = state_shapes(plan)
            states = [read(state_path(tmp_path / str(number), offset), shapes) for offset in range(STEPS + 1)]
            mine = segment_states(number)
            differing += state_digest(mine[-1]) != state_digest(states[-1])
            for offset in range(STEPS):
                settlement = settled(plan, data, start + offset, states[offset], states[offset + 1])
                assert settlement.within, (capability, threads, number, settlement)
                worst = max(worst, settlement.deviation)
    # Without a difference in bits the test would show nothing of classes.
    assert differing > 0
    record_property("segments that differ in bits", f"{differing} of {len(classes) * each}")
    record_property("worst step in units of its bound", f"{worst:.3f}")
