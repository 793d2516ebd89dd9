"""Points from the lanes equal those of coincurve, on every path and in every edge."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encryption.functional import group, lane_kernels
from learnchain.encryption.functional.lane_code import LIMB_MASK, LIMBS, PRIME, spread
from learnchain.rejection import Rejected, RejectionReason

EDGES = [1, 2, 3, 8191, 8192, 8193, 2**247, 2**255 + 19, group.ORDER // 2, group.ORDER - 2, group.ORDER - 1]


def reference(scalars: list[int]) -> np.ndarray:
    return np.stack([group.generator_multiple(scalar) for scalar in scalars])


def test_multiples_of_the_generator_equal_coincurve() -> None:
    scalars = EDGES + list(range(1, 40))
    assert np.array_equal(group.generator_multiples(scalars), reference(scalars))


def test_many_multiples_run_through_several_blocks() -> None:
    scalars = [pow(3, i, group.ORDER) for i in range(lane_kernels.CHAIN * 8 + 9)]
    result = group.generator_multiples(scalars)
    for place in (0, 7, 8, 4095, 4096, 4104):
        assert np.array_equal(result[place], group.generator_multiple(scalars[place]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, group.ORDER - 1), min_size=1, max_size=20))
def test_any_multiples_equal_coincurve(scalars: list[int]) -> None:
    assert np.array_equal(group.generator_multiples(scalars), reference(scalars))


def limbs_of(value: int) -> list[int]:
    return [(value >> (26 * limb)) & LIMB_MASK for limb in range(LIMBS)]


@pytest.mark.parametrize("lowest", [2**26, 2**27 + 2**21])
def test_offsets_of_differences_are_multiples_of_the_prime(lowest: int) -> None:
    limbs = spread(lowest)
    assert sum(limb << (26 * place) for place, limb in enumerate(limbs)) % PRIME == 0
    assert all(lowest <= limb < lowest + 2**26 for limb in limbs)


@pytest.mark.parametrize("value", [0, 1, PRIME - 1, PRIME, PRIME + 1, 2**256 - 1, 2**256, 2 * PRIME, 2**260 - 1])
def test_every_value_has_one_canonical_form(value: int) -> None:
    points = group.empty_points(1)
    points[0, 0] = np.array(limbs_of(value), dtype=np.uint32)[:, None]
    points[0, 1] = LIMB_MASK + 2**20
    lane_kernels.canonicalise(points)
    loose = sum((LIMB_MASK + 2**20) << (26 * limb) for limb in range(LIMBS))
    for lane in range(8):
        assert points[0, 0, :, lane].tolist() == limbs_of(value % PRIME)
        assert points[0, 1, :, lane].tolist() == limbs_of(loose % PRIME)


def test_sums_and_doubles_equal_coincurve_in_every_lane() -> None:
    left, right = reference(list(range(5, 13))), reference(list(range(100, 108)))
    lanes = np.concatenate([group.spread_over_lanes(left), group.spread_over_lanes(right), group.empty_points(3)])
    scratch = group.scratch_space()
    assert lane_kernels.add_indexed(lanes, np.array([[2, 0, 1]]), scratch)
    assert lane_kernels.double_indexed(lanes, np.array([[3, 1, 1]]), scratch)
    lane_kernels.negate_indexed(lanes, np.array([[4, 0, 0]]))
    assert np.array_equal(group.gather_from_lanes(lanes[2:3], 8), reference([105 + 2 * i for i in range(8)]))
    assert np.array_equal(group.gather_from_lanes(lanes[3:4], 8), reference([200 + 2 * i for i in range(8)]))
    assert np.array_equal(group.gather_from_lanes(lanes[4:5], 8), reference([-5 - i for i in range(8)]))


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_and_opposite_points_in_one_lane_are_noticed(sign: int) -> None:
    left, right = reference([3, 4, 5]), reference([30, 4 * sign, 50])
    lanes = np.concatenate([group.spread_over_lanes(left), group.spread_over_lanes(right)])
    assert not lane_kernels.add_indexed(lanes, np.array([[0, 0, 1]]), group.scratch_space())


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17])
def test_compressed_points_come_back(count: int) -> None:
    points = reference(list(range(11, 11 + count)))
    data = group.compress(points)
    assert data == b"".join(PublicKey(b"\4" + point.tobytes()).format() for point in points)
    assert np.array_equal(group.decompress(data), points)


@pytest.mark.parametrize("change", ["prefix", "no point", "above the prime"])
def test_bytes_that_are_no_point_are_refused(change: str) -> None:
    data = bytearray(group.compress(reference([1, 2, 3])))
    if change == "prefix":
        data[33] = 4
    elif change == "no point":
        data[33:66] = b"\2" + (5).to_bytes(32, "big")
    else:
        data[33:66] = b"\2" + (PRIME + 1).to_bytes(32, "big")
    with pytest.raises(Rejected) as caught:
        group.decompress(bytes(data))
    assert caught.value.reason is RejectionReason.CIPHERTEXT_INVALID


def test_coordinates_off_the_curve_are_refused() -> None:
    points = reference([1, 2, 3]).copy()
    group.check_on_curve(points)
    points[1, 1, 31] ^= 1
    with pytest.raises(Rejected) as caught:
        group.check_on_curve(points)
    assert caught.value.reason is RejectionReason.CIPHERTEXT_INVALID


PROGRAM = """
import hashlib
import numpy as np
from learnchain.encryption.functional import *
from learnchain.encryption.functional import group
points = group.generator_multiples([pow(5, i, group.ORDER) for i in range(30)])
made = hashlib.sha256(points.tobytes() + group.decompress(group.compress(points)).tobytes())
secret, public = setup(bytes(range(32)), 9, 3)
samples = np.arange(90).reshape(10, 9) * 7 % 256
header = header_for(public, 10)
wire = [encode_batch(batch) for batch in encrypt(secret, header, samples)]
made.update(b"".join(wire))
count = np.arange(36).reshape(4, 9)
for queries in (np.eye(9, dtype=int)[:4] - 1, count % 8, count * 131 % 4000):
    key = derive_key(secret, public, queries)
    verify_key(public, queries, key)
    made.update(repr(key.etas).encode())
    batches = [decode_batch(header, i, data, batch_leaf(header, i, data)) for i, data in enumerate(wire)]
    opened = decrypt(header, key, queries, batches)
    assert np.array_equal(opened, samples @ queries.T)
    made.update(opened.tobytes())
print(made.hexdigest())
"""


def built_for(processor: str, features: str = "") -> str:
    """Return the digest of everything the room makes, by kernels built for one kind of processor."""
    environment = os.environ | ({"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features} if processor else {})
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True, text=True
    )
    return answer.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the three builds are those of x86-64")
def test_builds_for_every_width_of_vectors_give_equal_bytes() -> None:
    # SSE2 and AVX2 run everywhere; the machine's own build is AVX-512 where it has it.
    digests = {built_for("x86-64"), built_for("haswell"), built_for("")}
    if "avx512dq" in Path("/proc/cpuinfo").read_text():
        digests.add(built_for("skylake-avx512"))
    assert len(digests) == 1
