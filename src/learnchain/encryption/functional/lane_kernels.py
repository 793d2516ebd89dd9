"""Add, double and invert points of secp256k1 in batches: one inversion for up to 512 additions in each of 8 lanes.

All kernels work in place on `uint32` arrays of shape (points, 2, 10 limbs, 8 lanes) and return whether every
denominator was invertible: a zero one (equal or opposite points, only ever crafted) spoils its chain, and the caller
takes the slow path. numba keeps compiled kernels on disk by this file's time stamp: after a change of `lane_code`,
touch this file. Arrays that kernels address by pointer always come from the caller, so that they outlive the call.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from learnchain.encryption.functional import lane_code
from learnchain.encryption.functional.lane_code import (
    ELEMENT_BYTES,
    LANES,
    LIMB_BITS,
    LIMB_MASK,
    LIMBS,
    POINT_BYTES,
    Body,
    emit,
)

CHAIN = 512
"""Additions that share one inversion: 270 multiplications spread over 512."""

SCRATCH_ELEMENTS = CHAIN + 40
"""Field elements a kernel needs beside its points: prefixes, then registers."""

_REGISTERS = CHAIN + 1


def _call(context: Any, builder: Any, body: Body, arguments: Any) -> Any:
    byte_pointer = lane_code.ir.IntType(8).as_pointer()
    pointers = [builder.inttoptr(argument, byte_pointer) for argument in arguments]
    builder.call(emit(builder.module, body, len(pointers)), pointers)
    return context.get_dummy_value()


def _lane_operation(body: Body, pointers: int) -> Any:
    """Return a numba intrinsic that calls a body on addresses; numba wants each number of arguments spelt out."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(context, builder, body, arguments)

    typed = types.none(*[types.int64] * pointers), generate

    def of_two(_typing: Any, _a: Any, _b: Any) -> Any:
        return typed

    def of_three(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
        return typed

    def of_four(_typing: Any, _a: Any, _b: Any, _c: Any, _d: Any) -> Any:
        return typed

    def of_five(_typing: Any, _a: Any, _b: Any, _c: Any, _d: Any, _e: Any) -> Any:
        return typed

    return intrinsic({2: of_two, 3: of_three, 4: of_four, 5: of_five}[pointers])


_multiply = _lane_operation(lane_code.multiplication, 3)
_square = _lane_operation(lane_code.squaring, 2)
_reduce = _lane_operation(lane_code.reduction, 2)
_negate = _lane_operation(lane_code.negation, 2)
_curve_defect = _lane_operation(lane_code.curve_defect, 2)
_right_side = _lane_operation(lane_code.curve_right_side, 2)
_addition_prefix = _lane_operation(lane_code.addition_prefix, 4)
_addition_step = _lane_operation(lane_code.addition_step, 5)
_doubling_prefix = _lane_operation(lane_code.doubling_prefix, 3)
_doubling_step = _lane_operation(lane_code.doubling_step, 4)


@njit(cache=True, nogil=True)
def _squarings(out: int, value: int, count: int) -> None:
    _square(out, value)
    for _ in range(count - 1):
        _square(out, out)


@njit(cache=True, nogil=True)
def _ladder(registers: int, value: int) -> None:
    """Leave value**(2**n - 1) for n = 2, 3, 22, 223 in registers 0 to 3 (libsecp256k1's chain); 4 to 7 are spare."""
    size = ELEMENT_BYTES
    x2, x3, x22, x223 = registers, registers + size, registers + 2 * size, registers + 3 * size
    x6, x9, x44, spare = registers + 4 * size, registers + 5 * size, registers + 6 * size, registers + 7 * size
    _squarings(spare, value, 1)
    _multiply(x2, spare, value)
    _squarings(spare, x2, 1)
    _multiply(x3, spare, value)
    _squarings(spare, x3, 3)
    _multiply(x6, spare, x3)
    _squarings(spare, x6, 3)
    _multiply(x9, spare, x3)
    _squarings(spare, x9, 2)
    _multiply(x9, spare, x2)
    _squarings(spare, x9, 11)
    _multiply(x22, spare, x9)
    _squarings(spare, x22, 22)
    _multiply(x44, spare, x22)
    _squarings(spare, x44, 44)
    _multiply(x6, spare, x44)
    _squarings(spare, x6, 88)
    _multiply(x223, spare, x6)
    _squarings(spare, x223, 44)
    _multiply(x223, spare, x44)
    _squarings(spare, x223, 3)
    _multiply(x223, spare, x3)


@njit(cache=True, nogil=True)
def _invert(out: int, value: int, registers: int) -> None:
    """Write value**(p - 2); zero stays zero."""
    size = ELEMENT_BYTES
    _ladder(registers, value)
    spare = registers + 7 * size
    _squarings(spare, registers + 3 * size, 23)
    _multiply(spare, spare, registers + 2 * size)
    _squarings(spare, spare, 5)
    _multiply(spare, spare, value)
    _squarings(spare, spare, 3)
    _multiply(spare, spare, registers)
    _squarings(spare, spare, 2)
    _multiply(out, spare, value)


@njit(cache=True, nogil=True)
def _root(out: int, value: int, registers: int) -> None:
    """Write value**((p + 1) / 4): the square root of a square."""
    size = ELEMENT_BYTES
    _ladder(registers, value)
    spare = registers + 7 * size
    _squarings(spare, registers + 3 * size, 23)
    _multiply(spare, spare, registers + 2 * size)
    _squarings(spare, spare, 6)
    _multiply(spare, spare, registers)
    _squarings(out, spare, 2)


@njit(cache=True, nogil=True)
def _has_zero_lane(scratch: np.ndarray, element: int) -> bool:
    for lane in range(LANES):
        total = np.uint32(0)
        for limb in range(LIMBS):
            total |= scratch[element, limb, lane]
        if total == 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _invert_product(scratch: np.ndarray, memory: int, product: int) -> bool:
    """Write the inverse of the chain's product into the first register; False when a lane has none."""
    running = memory + _REGISTERS * ELEMENT_BYTES
    _reduce(running, product)
    if _has_zero_lane(scratch, _REGISTERS):
        return False
    _invert(running, product, running + ELEMENT_BYTES)
    return True


@njit(cache=True, nogil=True)
def add_indexed(points: np.ndarray, rows: np.ndarray, scratch: np.ndarray) -> bool:
    """Set points[out] = points[left] + points[right] for every row (out, left, right)."""
    base, memory = points.ctypes.data, scratch.ctypes.data
    running = memory + _REGISTERS * ELEMENT_BYTES
    for first in range(0, rows.shape[0], CHAIN):
        count = min(CHAIN, rows.shape[0] - first)
        for i in range(count):
            _addition_prefix(
                memory + (i + 1) * ELEMENT_BYTES,
                memory + i * ELEMENT_BYTES,
                base + rows[first + i, 1] * POINT_BYTES,
                base + rows[first + i, 2] * POINT_BYTES,
            )
        if not _invert_product(scratch, memory, memory + count * ELEMENT_BYTES):
            return False
        for i in range(count - 1, -1, -1):
            _addition_step(
                base + rows[first + i, 0] * POINT_BYTES,
                running,
                memory + i * ELEMENT_BYTES,
                base + rows[first + i, 1] * POINT_BYTES,
                base + rows[first + i, 2] * POINT_BYTES,
            )
    return True


@njit(cache=True, nogil=True)
def double_indexed(points: np.ndarray, rows: np.ndarray, scratch: np.ndarray) -> bool:
    """Set points[out] = 2 * points[from] for every row (out, from, any)."""
    base, memory = points.ctypes.data, scratch.ctypes.data
    running = memory + _REGISTERS * ELEMENT_BYTES
    for first in range(0, rows.shape[0], CHAIN):
        count = min(CHAIN, rows.shape[0] - first)
        for i in range(count):
            source = base + rows[first + i, 1] * POINT_BYTES
            _doubling_prefix(memory + (i + 1) * ELEMENT_BYTES, memory + i * ELEMENT_BYTES, source)
        if not _invert_product(scratch, memory, memory + count * ELEMENT_BYTES):
            return False
        for i in range(count - 1, -1, -1):
            source = base + rows[first + i, 1] * POINT_BYTES
            out = base + rows[first + i, 0] * POINT_BYTES
            _doubling_step(out, running, memory + i * ELEMENT_BYTES, source)
    return True


@njit(cache=True, nogil=True)
def negate_indexed(points: np.ndarray, rows: np.ndarray) -> None:
    """Set points[out] = -points[from] for every row (out, from, any)."""
    base = points.ctypes.data
    for i in range(rows.shape[0]):
        _negate(base + rows[i, 0] * POINT_BYTES, base + rows[i, 1] * POINT_BYTES)


@njit(cache=True, nogil=True)
def canonicalise(points: np.ndarray) -> None:
    """Bring both coordinates of all points into their one form."""
    base = points.ctypes.data
    for i in range(2 * points.shape[0]):
        _reduce(base + i * ELEMENT_BYTES, base + i * ELEMENT_BYTES)


@njit(cache=True, nogil=True)
def all_on_curve(points: np.ndarray, scratch: np.ndarray) -> bool:
    """Return whether y**2 = x**3 + 7 in every lane of every point."""
    base, memory = points.ctypes.data, scratch.ctypes.data
    for i in range(points.shape[0]):
        _curve_defect(memory + _REGISTERS * ELEMENT_BYTES, base + i * POINT_BYTES)
        for limb in range(LIMBS):
            for lane in range(LANES):
                if scratch[_REGISTERS, limb, lane] != 0:
                    return False
    return True


@njit(cache=True, nogil=True)
def lift(points: np.ndarray, odd: np.ndarray, scratch: np.ndarray) -> None:
    """Fill in each y from its x and its parity; where x is on no point, the result fails `all_on_curve`."""
    base, memory = points.ctypes.data, scratch.ctypes.data
    value = memory + _REGISTERS * ELEMENT_BYTES
    for i in range(points.shape[0]):
        point = base + i * POINT_BYTES
        _right_side(value, point)
        _root(point + ELEMENT_BYTES, value, value + ELEMENT_BYTES)
        _negate(value, point)
        _reduce(point + ELEMENT_BYTES, point + ELEMENT_BYTES)
        _reduce(value + ELEMENT_BYTES, value + ELEMENT_BYTES)
        for lane in range(LANES):
            if (points[i, 1, 0, lane] & 1) != odd[i, lane]:
                for limb in range(LIMBS):
                    points[i, 1, limb, lane] = scratch[_REGISTERS + 1, limb, lane]


@njit(cache=True, nogil=True)
def place(coordinates: np.ndarray, points: np.ndarray, index: np.ndarray, lane: int) -> None:
    """Write big-endian (n, 2, 32) coordinates into one lane of points[index]."""
    for i in range(index.shape[0]):
        for axis in range(2):
            gathered, bits, limb = np.uint64(0), 0, 0
            for position in range(31, -1, -1):
                gathered |= np.uint64(coordinates[i, axis, position]) << np.uint64(bits)
                bits += 8
                if bits >= LIMB_BITS:
                    points[index[i], axis, limb, lane] = np.uint32(gathered & np.uint64(LIMB_MASK))
                    gathered >>= np.uint64(LIMB_BITS)
                    bits -= LIMB_BITS
                    limb += 1
            points[index[i], axis, limb, lane] = np.uint32(gathered)


@njit(cache=True, nogil=True)
def take(points: np.ndarray, index: np.ndarray, lane: int, coordinates: np.ndarray) -> None:
    """Read canonical points[index] of one lane as big-endian (n, 2, 32) coordinates."""
    for i in range(index.shape[0]):
        for axis in range(2):
            gathered, bits, limb = np.uint64(0), 0, 0
            for position in range(31, -1, -1):
                while bits < 8 and limb < LIMBS:
                    gathered |= np.uint64(points[index[i], axis, limb, lane]) << np.uint64(bits)
                    bits += LIMB_BITS
                    limb += 1
                coordinates[i, axis, position] = np.uint8(gathered & np.uint64(255))
                gathered >>= np.uint64(8)
                bits -= 8


@njit(cache=True, nogil=True)
def gather_odd_digits(
    table: np.ndarray, halves: np.ndarray, window: int, points: np.ndarray, negation: np.ndarray
) -> None:
    """Write the table entry of each number's signed odd digit in one window of 13 bits; lanes run over numbers."""
    start = 13 * window
    for i in range(halves.shape[0]):
        first, shift = start >> 3, start & 7
        raw = (
            np.int64(halves[i, first]) | (np.int64(halves[i, first + 1]) << 8) | (np.int64(halves[i, first + 2]) << 16)
        )
        digit = (raw >> shift) & 8191
        group, lane = i // LANES, i % LANES
        negative = digit < 4096
        entry = 4095 - digit if negative else digit - 4096
        for limb in range(LIMBS):
            points[group, 0, limb, lane] = table[window, entry, 0, limb]
            y = table[window, entry, 1, limb]
            points[group, 1, limb, lane] = negation[limb] - y if negative else y
