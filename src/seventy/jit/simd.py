"""What kernels say in one word and each ISA level does in its own way: fma, bytes times bytes, halves, exp.

Everything here works on vectors of `isa.lanes` 32-bit lanes, and on scalars where it says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from seventy.jit.build import Function, Value
from seventy.jit.types import Type, f16, f32, i8, i16, i32, u8, u16, u32


def intrinsic(f: Function, names: Mapping[int, str], result: Type, *arguments: Value) -> Value:
    """Call the intrinsic for vectors of this many bytes; a vector wider than the CPU's is split into halves."""
    nbytes = arguments[0].type.nbytes
    if nbytes <= max(16, 4 * f.isa.lanes):
        return f.call(f"llvm.x86.{names[nbytes]}", result, *arguments)
    half = Type(result.kind, result.bits, result.lanes // 2)
    low = intrinsic(f, names, half, *(v.shuffle(range(v.type.lanes // 2)) for v in arguments))
    high = intrinsic(f, names, half, *(v.shuffle(range(v.type.lanes // 2, v.type.lanes)) for v in arguments))
    return low.shuffle(range(result.lanes), high)


def fma(a: Value, b: Value, c: Value) -> Value:
    """Compute a * b + c, rounded once if the CPU can, else twice."""
    f = a.function
    if not f.isa.fma:
        return a * b + c
    suffix = f"v{a.type.lanes}f32" if a.type.lanes else "f32"
    return f.call(f"llvm.fma.{suffix}", a.type, a, b, c)


def as_bytes(words: Value, type: Type = u8) -> Value:
    """Return the bytes of a vector of 32-bit lanes."""
    return words.view(type * words.type.nbytes)


def multiply_pairs(a: Value, b: Value) -> Value:
    """Multiply signed 16-bit lanes and add the products in pairs into 32 bits."""
    f, n = a.function, a.type.nbytes // 2
    names = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}
    return intrinsic(f, names, i32 * (n // 2), a.view(i16 * n), b.view(i16 * n))


def add_pairs(total: Value, a: Value, b: Value) -> Value:
    """Compute total + multiply_pairs(a, b), in one instruction if there is one."""
    f, n = total.function, total.type.lanes
    if f.isa.dot != "vnni":
        return total + multiply_pairs(a, b)
    names = {size: f"avx512.vpdpwssd.{8 * size}" for size in (16, 32, 64)}
    return intrinsic(f, names, total.type, total, a.view(i16 * (2 * n)), b.view(i16 * (2 * n)))


def dot_bytes(total: Value, unsigned: Value, signed: Value) -> Value:
    """Add to each 32-bit lane of `total` the four products of its unsigned and signed bytes, exactly.

    On `maddubs` two neighbouring products must fit 16 bits: |u0 s0 + u1 s1| < 32768.
    """
    f, n = total.function, total.type.lanes
    if f.isa.dot == "vnni":
        names = {size: f"avx512.vpdpbusd.{8 * size}" for size in (16, 32, 64)}
        return intrinsic(f, names, total.type, total, as_bytes(unsigned), as_bytes(signed, i8))
    if f.isa.dot == "maddubs":
        return total + multiply_pairs(pair_sums(unsigned, signed), f.constant(i16 * (2 * n), 1))
    u, s = unsigned.view(u16 * (2 * n)), signed.view(i16 * (2 * n))
    even = multiply_pairs((u & 255).view(i16 * (2 * n)), (s << 8) >> 8)
    odd = multiply_pairs((u >> 8).view(i16 * (2 * n)), s >> 8)
    return total + even + odd


def pair_sums(unsigned: Value, signed: Value) -> Value:
    """Multiply unsigned and signed bytes and add the products in pairs into 16 bits (pmaddubsw; saturates)."""
    f = unsigned.function
    nbytes = unsigned.type.nbytes
    names = {16: "ssse3.pmadd.ub.sw.128", 32: "avx2.pmadd.ub.sw", 64: "avx512.pmaddubs.w.512"}
    return intrinsic(f, names, i16 * (nbytes // 2), as_bytes(unsigned), as_bytes(signed, i8))


def dot_signed(total: Value, weights: Value, signed: Value) -> Value:
    """Add to each 32-bit lane the four products of its signed bytes; `signed` holds no -128.

    Not for `vnni`, which has unsigned bytes only: there the caller adds an offset.
    """
    f, n = total.function, total.type.lanes
    assert f.isa.dot != "vnni", "vnni multiplies unsigned bytes"
    if f.isa.dot == "maddubs":
        return total + multiply_pairs(signed_pair_sums(weights, signed), f.constant(i16 * (2 * n), 1))
    w, s = weights.view(i16 * (2 * n)), signed.view(i16 * (2 * n))
    return total + multiply_pairs((w << 8) >> 8, (s << 8) >> 8) + multiply_pairs(w >> 8, s >> 8)


def signed_pair_sums(weights: Value, signed: Value) -> Value:
    """Multiply signed bytes, add products in pairs to 16 bits, saturated; no byte of `signed` is -128."""
    f, n = signed.function, signed.type.nbytes
    w, s = as_bytes(weights, i8), as_bytes(signed, i8)
    magnitude = f.call(f"llvm.abs.v{n}i8", w.type, w, f.constant(Type("u", 1), 0))
    if f.isa.lanes == 16:
        # There is no psign of 512 bits.
        turned = (w < 0).select(-s, s)
    else:
        turned = intrinsic(f, {16: "ssse3.psign.b.128", 32: "avx2.psign.b"}, s.type, s, w)
    return pair_sums(magnitude.view(weights.type), turned.view(signed.type))


def lookup16(nibbles: Value, table: Sequence[int]) -> Value:
    """Look up table[n] for every byte n (0 to 15) of a vector, as i8 (for unsigned tables: their bits)."""
    f, n = nibbles.function, nibbles.type.nbytes
    if n < 16:
        # The smallest vector that is looked up in one instruction.
        wide = as_bytes(nibbles).shuffle([i % n for i in range(16)])
        return lookup16(wide, table).shuffle(range(n))
    known = [(number + 128) % 256 - 128 for number in table]
    if "ssse3" in f.isa.features:
        names = {16: "ssse3.pshuf.b.128", 32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}
        return intrinsic(f, names, i8 * n, f.vector(i8 * n, known * (n // 16)), nibbles.view(i8 * n))
    nibbles = as_bytes(nibbles)
    level: list[Value] = [f.constant(i8 * n, number) for number in known]
    for bit in range(4):
        clear = (nibbles & (1 << bit)).eq(0)
        level = [clear.select(low, high) for low, high in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def pick_bits(words: Value, positions: Sequence[int], bits: int, to: int = 0) -> Value:
    """Byte j of every u32 lane holds the lane's `bits` bits from positions[j] on, moved to bit `to`, else zeros."""
    f, n = words.function, words.type.nbytes
    mask = (1 << bits) - 1 << to
    if f.isa.vbmi and n >= 16:
        names = {16: "avx512.pmultishift.qb.128", 32: "avx512.pmultishift.qb.256", 64: "avx512.pmultishift.qb.512"}
        control = [(32 * half + position - to) % 64 for half in (0, 1) for position in positions]
        moved = intrinsic(f, names, u8 * n, f.vector(u8 * n, control * (n // 8)), as_bytes(words))
        return (moved & mask).view(words.type)
    # Bytes that move equally far move together.
    moves: dict[int, int] = {}
    for j, position in enumerate(positions):
        right = position - to - 8 * j
        moves[right] = moves.get(right, 0) | mask << 8 * j
    parts = [(words >> right if right >= 0 else words << -right) & kept for right, kept in moves.items()]
    return reduce(lambda a, b: a | b, parts)


def pick_bytes(words: Value, index: int) -> Value:
    """Return byte `index` (0 to 3) of every 32-bit lane, zero-extended to the lane."""
    unsigned = words.view(u32 * words.type.lanes)
    shifted = unsigned >> (8 * index) if index else unsigned
    return (shifted & 255 if index < 3 else shifted).view(words.type)


def halves_to_float(halves: Value) -> Value:
    """Convert half-precision numbers (f16, or u16 holding their bits; scalar or vector) to f32, exactly."""
    f, lanes = halves.function, halves.type.lanes
    if f.isa.f16c:
        return halves.view(Type("f", 16, lanes)).to(f32)
    bits = halves.view(Type("u", 16, lanes)).to(u32)
    magnitude = (bits & 0x7FFF) << 13
    # The exponent is 112 too small; multiplying, unlike adding to it, is right for subnormals too.
    scaled = magnitude.view(Type("f", 32, lanes)) * 2.0**112
    infinite = (bits & 0x7FFF) >= 0x7C00
    number = scaled.view(Type("u", 32, lanes))
    number = infinite.select(number | 0x7F800000, number) | ((bits & 0x8000) << 16)
    return number.view(Type("f", 32, lanes))


def float_to_halves(number: Value) -> Value:
    """Round f32 to the nearest half-precision number, as f16 (scalar or vector)."""
    f, lanes = number.function, number.type.lanes
    if f.isa.f16c:
        return number.to(f16)
    bits = number.view(Type("u", 32, lanes))
    magnitude = bits & 0x7FFFFFFF
    # Normal: move the exponent and round half to even. Subnormal: adding 0.5 leaves the half's bits in the low end.
    normal = (magnitude + (((112 << 23) * -1 + 0xFFF) & 0xFFFFFFFF) + ((magnitude >> 13) & 1)) >> 13
    small = (magnitude.view(Type("f", 32, lanes)) + 0.5).view(Type("u", 32, lanes)) - 0x3F000000
    half = (magnitude < 0x38800000).select(small, normal)
    half = (magnitude >= 0x47800000).select(f.constant(half.type, 0x7C00), half)
    half = (magnitude > 0x7F800000).select(f.constant(half.type, 0x7E00), half)
    half = half | ((bits >> 16) & 0x8000)
    return half.to(u16).view(Type("f", 16, lanes))


def round_to_int(number: Value) -> Value:
    """Round f32 to the nearest i32, ties to even; |number| < 2**22."""
    # Adding 1.5 * 2**23 leaves the rounded integer in the low bits of the mantissa.
    magic = 1.5 * 2.0**23
    lanes = number.type.lanes
    return (number + magic).view(Type("i", 32, lanes)) - 0x4B400000


def exp(x: Value) -> Value:
    """Compute e**x for f32 within 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN of NaN."""
    lanes = x.type.lanes
    log2e = 1 / math.log(2)
    # Not maximum() and minimum(): they would make a number of NaN.
    clamped = (x < -87.3).select(-87.3, x)
    clamped = (clamped > 88.7).select(88.7, clamped)
    n = round_to_int(clamped * log2e)
    p = _exp_of_remainder(clamped, n.to(f32))
    # 2**n in two factors, so that n = 128 does not overflow before the product does.
    half = n >> 1
    for part in (half, n - half):
        p = p * ((part + 127) << 23).view(Type("f", 32, lanes))
    return (x < -87.3).select(0.0, p)


def exp_of_negative(x: Value) -> Value:
    """Compute e**x for f32 that is not positive, within 2 units in the last place; 0 below -86, NaN of NaN."""
    f = x.function
    # Not maximum(): it would make a number of NaN.
    clamped = (x < -86.0).select(-86.0, x)
    magic = 1.5 * 2.0**23
    shifted = fma(clamped, f.constant(x.type, 1 / math.log(2)), f.constant(x.type, magic))
    p = _exp_of_remainder(clamped, shifted - magic)
    # p is 0.7 to 1.42 and n -124 to 0: n is added to the exponent; nothing else of `shifted` is left by the shift.
    bits = Type("i", 32, x.type.lanes)
    power = (p.view(bits) + (shifted.view(bits) << 23)).view(x.type)
    # NaN, whose bits were shifted into a number, comes from `clamped`.
    return (x >= -86.0).select(power, clamped + 86.0)


def _exp_of_remainder(x: Value, n: Value) -> Value:
    """e**(x - n ln 2) for |x - n ln 2| < 0.35."""
    f = x.function
    # ln 2 in two parts keeps the remainder exact.
    r = fma(n, f.constant(x.type, -0.693359375), x)
    r = fma(n, f.constant(x.type, 2.12194440e-4), r)
    p = f.constant(x.type, 1 / 5040)
    for k in (720, 120, 24, 6, 2, 1, 1):
        p = fma(p, r, f.constant(x.type, 1 / k))
    return p


def softplus(x: Value) -> Value:
    """Compute log(1 + e**x) for f32 within 1e-6 of its size; NaN of NaN."""
    f = x.function
    u = exp((x > 0).select(-x, x))
    # log(1 + u) = 2 artanh(u / (2 + u)), whose argument is at most 1/3.
    s = u / (u + 2.0)
    square, series = s * s, f.constant(x.type, 1 / 15)
    for k in (13, 11, 9, 7, 5, 3, 1):
        series = fma(series, square, f.constant(x.type, 1 / k))
    return (x > 0).select(x, 0.0) + (s * 2.0) * series


def max_lanes(v: Value) -> Value:
    """Return the largest lane, as a scalar."""
    return _fold(v, lambda a, b: a.maximum(b))


def min_lanes(v: Value) -> Value:
    """Return the smallest lane, as a scalar."""
    return _fold(v, lambda a, b: a.minimum(b))


def sum_lanes(v: Value) -> Value:
    """Return the sum of all lanes, halves first, as a scalar."""
    return _fold(v, lambda a, b: a + b)


def any_lane(condition: Value) -> Value:
    """Return whether a vector's condition holds in some lane."""
    lanes = condition.type.lanes
    return condition.function.call(f"llvm.vector.reduce.or.v{lanes}i1", Type("i", 1), condition)


def _fold(v: Value, combine: Callable[[Value, Value], Value]) -> Value:
    while v.type.lanes > 1:
        half = v.type.lanes // 2
        v = combine(v.shuffle(range(half)), v.shuffle(range(half, 2 * half)))
    return v.lane(0)


def transposed(rows: Sequence[Value]) -> list[Value]:
    """Transpose as many vectors as each has lanes, a power of two: lane i of column j is lane j of row i."""
    vectors, lanes = list(rows), len(rows)
    stride = 1
    while stride < lanes:
        low = [j + (lanes - stride if j & stride else 0) for j in range(lanes)]
        high = [j + (lanes if j & stride else stride) for j in range(lanes)]
        for i in (i for i in range(lanes) if not i & stride):
            a, b = vectors[i], vectors[i + stride]
            vectors[i], vectors[i + stride] = a.shuffle(low, b), a.shuffle(high, b)
        stride *= 2
    return vectors
