"""Hold the group of Step 1 (PoLe section 3.4): secp256k1, its generator, and arrays of its points.

Outside the kernels a point is 2 x 32 big-endian bytes (x, then y), and many points are a `uint8` array (n, 2, 32).
"""

from functools import cache

import numpy as np
from coincurve import PrivateKey, PublicKey
from numpy.typing import NDArray

from learnchain.encryption.functional import lane_kernels
from learnchain.encryption.functional.lane_code import LANES, LIMBS, NEGATION
from learnchain.rejection import Rejected, RejectionReason

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The prime order of the group."""

COMPRESSED_BYTES = 33
WINDOW_BITS = 13
WINDOWS = 20
_ENTRIES = 1 << (WINDOW_BITS - 1)
Lanes = NDArray[np.uint32]
Coordinates = NDArray[np.uint8]


def empty_points(count: int) -> Lanes:
    """Return room for `count` points in each lane."""
    return np.zeros((count, 2, LIMBS, LANES), dtype=np.uint32)


def scratch_space() -> Lanes:
    """Return what one kernel call at a time needs: element 0 is the one that every chain starts from."""
    scratch = np.zeros((lane_kernels.SCRATCH_ELEMENTS, LIMBS, LANES), dtype=np.uint32)
    scratch[0, 0] = 1
    return scratch


def generator_multiple(scalar: int) -> Coordinates:
    """Return g**scalar for one scalar that is not zero modulo the order."""
    raw = PrivateKey((scalar % ORDER).to_bytes(32, "big")).public_key.format(compressed=False)
    return np.frombuffer(raw[1:], dtype=np.uint8).reshape(2, 32)


def public_key(point: Coordinates) -> PublicKey:
    """Return one point as coincurve knows it; `CIPHERTEXT_INVALID` when it is not on the curve."""
    try:
        return PublicKey(b"\x04" + point.tobytes())
    except ValueError as error:
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "a point is not on the curve") from error


def repeat_in_lanes(point: Coordinates) -> Lanes:
    """Return one point repeated in every lane."""
    lanes = empty_points(1)
    for lane in range(LANES):
        lane_kernels.place(point.reshape(1, 2, 32), lanes, np.zeros(1, dtype=np.int64), lane)
    return lanes


def spread_over_lanes(points: Coordinates) -> Lanes:
    """Return n points packed eight to a lane row; the last row repeats the last point."""
    rows = -(-len(points) // LANES)
    padded = np.concatenate([points, np.repeat(points[-1:], rows * LANES - len(points), axis=0)])
    lanes = empty_points(rows)
    for lane in range(LANES):
        chosen = np.ascontiguousarray(padded[lane::LANES])
        lane_kernels.place(chosen, lanes, np.arange(rows, dtype=np.int64), lane)
    return lanes


def gather_from_lanes(lanes: Lanes, count: int) -> Coordinates:
    """Undo `spread_over_lanes`; brings the lanes into canonical form first."""
    lane_kernels.canonicalise(lanes)
    result = np.empty((len(lanes) * LANES, 2, 32), dtype=np.uint8)
    for lane in range(LANES):
        part = np.empty((len(lanes), 2, 32), dtype=np.uint8)
        lane_kernels.take(lanes, np.arange(len(lanes), dtype=np.int64), lane, part)
        result[lane::LANES] = part
    return result[:count]


def check_on_curve(points: Coordinates) -> None:
    """Refuse coordinates that are not below the prime or not on the curve."""
    lanes = spread_over_lanes(points)
    if not lane_kernels.all_on_curve(lanes, scratch_space()) or not np.array_equal(
        gather_from_lanes(lanes, len(points)), points
    ):
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "a point is not on the curve")


def compress(points: Coordinates) -> bytes:
    """Return SEC1 compressed points: the parity of y, then x."""
    packed = np.empty((len(points), COMPRESSED_BYTES), dtype=np.uint8)
    packed[:, 0] = 2 + (points[:, 1, 31] & 1)
    packed[:, 1:] = points[:, 0]
    return packed.tobytes()


def decompress(data: bytes) -> Coordinates:
    """Return the points that SEC1 compressed bytes stand for; anything else is `CIPHERTEXT_INVALID`."""
    packed = np.frombuffer(data, dtype=np.uint8).reshape(-1, COMPRESSED_BYTES)
    if not np.isin(packed[:, 0], (2, 3)).all():
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "a compressed point starts with neither 2 nor 3")
    points = np.zeros((len(packed), 2, 32), dtype=np.uint8)
    points[:, 0] = packed[:, 1:]
    lanes = spread_over_lanes(points)
    odd = np.concatenate([packed[:, 0] & 1, np.repeat(packed[-1:, 0] & 1, -len(packed) % LANES)])
    scratch = scratch_space()
    lane_kernels.lift(lanes, np.ascontiguousarray(odd.reshape(-1, LANES)), scratch)
    on_curve = lane_kernels.all_on_curve(lanes, scratch)
    lifted = gather_from_lanes(lanes, len(packed))
    if not on_curve or not np.array_equal(lifted[:, 0], points[:, 0]):
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "a compressed point is not on the curve")
    return lifted


@cache
def _odd_multiples() -> Lanes:
    """Return table[window, m] = (2m + 1) * 2**(13 window) g: about 13 MB, built in some tens of milliseconds."""
    windows = -(-WINDOWS // LANES) * LANES
    groups = windows // LANES
    width = _ENTRIES + 1
    lanes, scratch = empty_points(groups * width), scratch_space()
    for window in range(windows):
        start = np.array([(window // LANES) * width], dtype=np.int64)
        point = generator_multiple(1 << (WINDOW_BITS * window))
        lane_kernels.place(point.reshape(1, 2, 32), lanes, start, window % LANES)
    starts = np.arange(groups, dtype=np.int64) * width
    rows = np.stack([starts + _ENTRIES, starts, starts], axis=1)
    for level in range(WINDOW_BITS - 1):
        lane_kernels.double_indexed(lanes, rows, scratch)
        rows = np.stack([starts + _ENTRIES, starts + _ENTRIES, starts], axis=1)
        known = np.arange(1 << level, dtype=np.int64)
        left = (starts[:, None] + known).ravel()
        steps = np.repeat(starts + _ENTRIES, len(known))
        lane_kernels.add_indexed(lanes, np.stack([left + len(known), left, steps], axis=1), scratch)
    lane_kernels.canonicalise(lanes)
    table = lanes.reshape(groups, width, 2, LIMBS, LANES)[:, :_ENTRIES].transpose(0, 4, 1, 2, 3)
    return np.ascontiguousarray(table.reshape(windows, _ENTRIES, 2, LIMBS)[:WINDOWS])


def generator_multiples(scalars: list[int]) -> Coordinates:
    """Return g**scalar for many scalars: 20 signed odd digits each, so that no digit is zero and 19 additions do.

    Look-ups are not constant time: whoever calls this with secrets does so on a machine of their own.
    """
    digits = _shift_halves(scalars)
    result = np.empty((len(scalars), 2, 32), dtype=np.uint8)
    block = lane_kernels.CHAIN * LANES
    for first in range(0, len(scalars), block):
        result[first : first + block] = _block_of_multiples(
            digits[first : first + block], scalars[first : first + block]
        )
    return result


def _shift_halves(scalars: list[int]) -> NDArray[np.uint8]:
    """Return (odd >> 1) + 2**259 in 34 little-endian bytes, where odd is the scalar, or it plus the order if even."""
    raw = b"".join([scalar.to_bytes(32, "little") for scalar in scalars])
    limbs = np.zeros((len(scalars), 5), dtype=np.uint64)
    limbs[:, :4] = np.frombuffer(raw, dtype="<u8").reshape(-1, 4)
    even, carry = (limbs[:, 0] & 1) == 0, np.zeros(len(scalars), dtype=np.uint64)
    for limb in range(4):
        added = limbs[:, limb] + np.where(even, np.uint64((ORDER >> (64 * limb)) & (2**64 - 1)), np.uint64(0))
        total = added + carry
        carry = ((added < limbs[:, limb]) | (total < added)).astype(np.uint64)
        limbs[:, limb] = total
    limbs[:, 4] = carry
    halves = np.zeros((len(scalars), 34), dtype=np.uint8)
    shifted = (limbs[:, :4] >> np.uint64(1)) | (limbs[:, 1:] << np.uint64(63))
    halves[:, :32] = shifted.astype("<u8").view(np.uint8)
    halves[:, 32] = 1 << (WINDOW_BITS * WINDOWS - 1 - 256)
    return halves


def _block_of_multiples(digits: NDArray[np.uint8], scalars: list[int]) -> Coordinates:
    count, table, negation = len(digits), _odd_multiples(), np.array(NEGATION, dtype=np.uint32)
    rows = -(-count // LANES)
    digits = np.concatenate([digits, np.repeat(digits[-1:], rows * LANES - count, axis=0)])
    lanes, scratch = empty_points(2 * rows), scratch_space()
    index = np.arange(rows, dtype=np.int64)
    addition = np.stack([index, index, index + rows], axis=1)
    lane_kernels.gather_odd_digits(table, digits, 0, lanes[:rows], negation)
    sound = True
    for window in range(1, WINDOWS):
        lane_kernels.gather_odd_digits(table, digits, window, lanes[rows:], negation)
        sound = sound and lane_kernels.add_indexed(lanes, addition, scratch)
    if sound:
        return gather_from_lanes(lanes[:rows], count)
    # Only scalars within 2**13 of zero modulo the order meet themselves in the last window.
    return np.stack([generator_multiple(scalar) for scalar in scalars])
