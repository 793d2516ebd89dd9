"""Emit the field and curve arithmetic of secp256k1 as LLVM vector code: eight independent lanes at once.

A field element is ten limbs of 26 bits a lane (value below 2**260, not unique); 2**260 = 1024 * 2**26 + 15632 modulo
the prime. Products of 26-bit limbs use the 32 x 32 -> 64 bit multiplication that SSE2, AVX2 and AVX-512 all have, so
that one text gives equal results everywhere. "Loose" limbs stay below 2**26 + 2**20, differences below 2**28.4: ten
products of such limbs fit 64 bits.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from llvmlite import ir

LANES = 8
LIMBS = 10
LIMB_BITS = 26
LIMB_MASK = 2**LIMB_BITS - 1
PRIME = 2**256 - 2**32 - 977
ELEMENT_BYTES = LIMBS * LANES * 4
POINT_BYTES = 2 * ELEMENT_BYTES

Vector: TypeAlias = Any
"""An llvmlite value of eight 64-bit integers; llvmlite carries no types of its own."""

Element: TypeAlias = list[Vector]
_WIDE = ir.VectorType(ir.IntType(64), LANES)
_NARROW = ir.VectorType(ir.IntType(32), LANES)


def spread(lowest: int) -> tuple[int, ...]:
    """Return the limbs of a multiple of the prime, every limb in [lowest, lowest + 2**26): for differences."""
    floor = sum(lowest << (LIMB_BITS * limb) for limb in range(LIMBS))
    rest = -floor % PRIME
    return tuple(lowest + ((rest >> (LIMB_BITS * limb)) & LIMB_MASK) for limb in range(LIMBS))


DIFFERENCE = spread(2**27 + 2**21)
NEGATION = spread(2**26)


class LaneBuilder:
    """Write field arithmetic on eight lanes into one LLVM function."""

    __slots__ = ("_builder",)

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, pointer: Any, element: int = 0) -> Element:
        """Read one field element: coordinate `element` of what the pointer shows."""
        typed = self._builder.bitcast(pointer, _NARROW.as_pointer())
        limbs: Element = []
        for limb in range(LIMBS):
            place = self._builder.gep(typed, [ir.IntType(64)(element * LIMBS + limb)], source_etype=_NARROW)
            limbs.append(self._builder.zext(self._builder.load(place, align=4, typ=_NARROW), _WIDE))
        return limbs

    def store(self, value: Element, pointer: Any, element: int = 0) -> None:
        """Write one field element."""
        typed = self._builder.bitcast(pointer, _NARROW.as_pointer())
        for limb in range(LIMBS):
            place = self._builder.gep(typed, [ir.IntType(64)(element * LIMBS + limb)], source_etype=_NARROW)
            self._builder.store(self._builder.trunc(value[limb], _NARROW), place, align=4)

    def constant(self, value: int) -> Vector:
        """Return a constant in every lane."""
        return ir.Constant(_WIDE, [value] * LANES)

    def add(self, left: Element, right: Element) -> Element:
        """Add limb by limb, without carries."""
        return [self._builder.add(a, b) for a, b in zip(left, right, strict=True)]

    def subtract(self, left: Element, right: Element) -> Element:
        """Subtract limb by limb from a multiple of the prime; limbs of `right` lie below 2**27 + 2**21."""
        return [
            self._builder.sub(self._builder.add(a, self.constant(offset)), b)
            for a, b, offset in zip(left, right, DIFFERENCE, strict=True)
        ]

    def negate(self, value: Element) -> Element:
        """Return a multiple of the prime less the value."""
        return self.carried(self.subtract([self.constant(0)] * LIMBS, value))

    def scale(self, value: Element, factor: int) -> Element:
        """Multiply every limb by a small number, without carries."""
        return [self._builder.mul(limb, self.constant(factor)) for limb in value]

    def _narrowed(self, value: Vector) -> Vector:
        """Tell LLVM that the upper half is zero, so that it takes the 32-bit multiplication."""
        return self._builder.and_(value, self.constant(2**32 - 1))

    def _product(self, left: Vector, right: Vector) -> Vector:
        return self._builder.mul(self._narrowed(left), self._narrowed(right))

    def _carry(self, limbs: Element, first: int, last: int) -> None:
        """Move what exceeds 26 bits from limb `first` up to limb `last`."""
        for limb in range(first, last):
            over = self._builder.lshr(limbs[limb], self.constant(LIMB_BITS))
            limbs[limb] = self._builder.and_(limbs[limb], self.constant(LIMB_MASK))
            limbs[limb + 1] = self._builder.add(limbs[limb + 1], over)

    def carried(self, value: Element) -> Element:
        """Bring limbs below 2**31 back to loose ones."""
        limbs = [*value, self.constant(0)]
        self._carry(limbs, 0, LIMBS)
        # Fold limb 10 (below 2**31) into limbs 0 and 1.
        over = limbs[LIMBS]
        limbs[0] = self._builder.add(limbs[0], self._product(over, self.constant(15632)))
        limbs[1] = self._builder.add(limbs[1], self._product(over, self.constant(1024)))
        return limbs[:LIMBS]

    def multiply(self, left: Element, right: Element) -> Element:
        """Multiply modulo the prime; the result is loose."""
        columns: list[Vector] = []
        for column in range(2 * LIMBS - 1):
            total: Vector = None
            for limb in range(max(0, column - LIMBS + 1), min(LIMBS, column + 1)):
                term = self._product(left[limb], right[column - limb])
                total = term if total is None else self._builder.add(total, term)
            columns.append(total)
        return self._reduced(columns)

    def square(self, value: Element) -> Element:
        """Square modulo the prime with 55 products instead of 100."""
        double = [self._builder.add(limb, limb) for limb in value]
        columns: list[Vector] = []
        for column in range(2 * LIMBS - 1):
            total: Vector = None
            for limb in range(max(0, column - LIMBS + 1), (column + 1) // 2):
                term = self._product(double[limb], value[column - limb])
                total = term if total is None else self._builder.add(total, term)
            if column % 2 == 0:
                term = self._product(value[column // 2], value[column // 2])
                total = term if total is None else self._builder.add(total, term)
            columns.append(total)
        return self._reduced(columns)

    def _reduced(self, columns: list[Vector]) -> Element:
        """Fold the upper ten columns into the lower ten, then the carry of those once more."""
        add = self._builder.add
        columns = [*columns, self.constant(0)]
        self._carry(columns, LIMBS, 2 * LIMBS - 1)
        low = [*columns[:LIMBS], self.constant(0)]
        for limb, high in enumerate(columns[LIMBS:]):
            low[limb] = add(low[limb], self._product(high, self.constant(15632)))
            low[limb + 1] = add(low[limb + 1], self._product(high, self.constant(1024)))
        self._carry(low, 0, LIMBS)
        over, top = low[LIMBS], self._builder.lshr(low[LIMBS], self.constant(LIMB_BITS))
        over = self._builder.and_(over, self.constant(LIMB_MASK))
        low[0] = add(low[0], self._product(over, self.constant(15632)))
        low[1] = add(low[1], add(self._product(over, self.constant(1024)), self._product(top, self.constant(15632))))
        low[2] = add(low[2], self._product(top, self.constant(1024)))
        low = low[:LIMBS]
        self._carry(low, 0, 4)
        return low

    def canonical(self, value: Element) -> Element:
        """Return the one representation below the prime: 2**256 = 64 * 2**26 + 977."""
        add, limbs = self._builder.add, self.carried(self.carried(value))
        for _ in range(2):
            over = self._builder.lshr(limbs[9], self.constant(22))
            limbs[9] = self._builder.and_(limbs[9], self.constant(2**22 - 1))
            limbs[0] = add(limbs[0], self._product(over, self.constant(977)))
            limbs[1] = add(limbs[1], self._product(over, self.constant(64)))
            self._carry(limbs, 0, LIMBS - 1)
        tried = list(limbs)
        tried[0] = add(tried[0], self.constant(977))
        tried[1] = add(tried[1], self.constant(64))
        self._carry(tried, 0, LIMBS - 1)
        exceeds = self._builder.icmp_unsigned(">", tried[9], self.constant(2**22 - 1))
        tried[9] = self._builder.and_(tried[9], self.constant(2**22 - 1))
        return [self._builder.select(exceeds, a, b) for a, b in zip(tried, limbs, strict=True)]


# --- the bodies: each reads and writes memory through pointers ----------------------------------------------------


def multiplication(lanes: LaneBuilder, out: Any, left: Any, right: Any) -> None:
    """Write left * right."""
    lanes.store(lanes.multiply(lanes.load(left), lanes.load(right)), out)


def squaring(lanes: LaneBuilder, out: Any, value: Any) -> None:
    """Write value ** 2."""
    lanes.store(lanes.square(lanes.load(value)), out)


def reduction(lanes: LaneBuilder, out: Any, value: Any) -> None:
    """Write the canonical form."""
    lanes.store(lanes.canonical(lanes.load(value)), out)


def negation(lanes: LaneBuilder, out: Any, point: Any) -> None:
    """Write the inverse of a point."""
    lanes.store(lanes.load(point), out)
    lanes.store(lanes.negate(lanes.load(point, 1)), out, 1)


def curve_defect(lanes: LaneBuilder, out: Any, point: Any) -> None:
    """Write y**2 - x**3 - 7, canonical: zero exactly on the curve."""
    x, y = lanes.load(point), lanes.load(point, 1)
    cube = lanes.multiply(lanes.square(x), x)
    cube[0] = lanes.add([cube[0]], [lanes.constant(7)])[0]
    lanes.store(lanes.canonical(lanes.subtract(lanes.square(y), cube)), out)


def curve_right_side(lanes: LaneBuilder, out: Any, point: Any) -> None:
    """Write x**3 + 7."""
    x = lanes.load(point)
    cube = lanes.multiply(lanes.square(x), x)
    cube[0] = lanes.add([cube[0]], [lanes.constant(7)])[0]
    lanes.store(cube, out)


def addition_prefix(lanes: LaneBuilder, *pointers: Any) -> None:
    """Write previous * (x2 - x1): the running product of the denominators."""
    out, previous, left, right = pointers
    difference = lanes.subtract(lanes.load(right), lanes.load(left))
    lanes.store(lanes.multiply(difference, lanes.load(previous)), out)


def addition_step(lanes: LaneBuilder, *pointers: Any) -> None:
    """Write left + right with the inverse that the running inverse yields, and step the running inverse back."""
    out, running, previous, left, right = pointers
    x1, y1, x2, y2 = lanes.load(left), lanes.load(left, 1), lanes.load(right), lanes.load(right, 1)
    run = lanes.load(running)
    inverse = lanes.multiply(run, lanes.load(previous))
    lanes.store(lanes.multiply(lanes.subtract(x2, x1), run), running)
    slope = lanes.multiply(lanes.subtract(y2, y1), inverse)
    x3 = lanes.carried(lanes.subtract(lanes.square(slope), lanes.add(x1, x2)))
    y3 = lanes.carried(lanes.subtract(lanes.multiply(slope, lanes.subtract(x1, x3)), y1))
    lanes.store(x3, out)
    lanes.store(y3, out, 1)


def doubling_prefix(lanes: LaneBuilder, *pointers: Any) -> None:
    """Write previous * 2y."""
    out, previous, point = pointers
    y = lanes.load(point, 1)
    lanes.store(lanes.multiply(lanes.add(y, y), lanes.load(previous)), out)


def doubling_step(lanes: LaneBuilder, *pointers: Any) -> None:
    """Write 2 * point, and step the running inverse back."""
    out, running, previous, point = pointers
    x, y, run = lanes.load(point), lanes.load(point, 1), lanes.load(running)
    inverse = lanes.multiply(run, lanes.load(previous))
    lanes.store(lanes.multiply(lanes.add(y, y), run), running)
    slope = lanes.multiply(lanes.scale(lanes.square(x), 3), inverse)
    x3 = lanes.carried(lanes.subtract(lanes.square(slope), lanes.add(x, x)))
    y3 = lanes.carried(lanes.subtract(lanes.multiply(slope, lanes.subtract(x, x3)), y))
    lanes.store(x3, out)
    lanes.store(y3, out, 1)


Body: TypeAlias = Callable[..., None]


def emit(module: Any, body: Body, pointers: int) -> Any:
    """Return the LLVM function of a body, written into the module at its first use; private to the module."""
    name = f"learnchain_lanes_{body.__name__}"
    if name in module.globals:
        return module.globals[name]
    byte_pointer = ir.IntType(8).as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [byte_pointer] * pointers), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    body(LaneBuilder(builder), *function.args)
    builder.ret_void()
    return function
