from collections.abc import Callable

import numpy as np

from seventy.jit import simd
from seventy.jit.build import Function, Value
from seventy.jit.isa import Isa
from seventy.jit.types import Type, f32, i32, u16
from tests.jit.test_build import run


def mapped(isa: Isa, x: np.ndarray, type: Type, out: np.dtype, operate: Callable[[Value], Value]) -> np.ndarray:
    """operate() on every vector of 16 elements of x."""
    padded = np.concatenate([x, np.zeros(-len(x) % 16, x.dtype)])
    size = np.dtype(out).itemsize

    def body(f: Function, source: Value, target: Value) -> None:
        with f.loop(0, len(padded), 16) as i:
            f.store(operate(f.load(type * 16, source, i * type.nbytes)), target, i * size)

    return run(isa, body, padded, np.zeros(len(padded), out))[: len(x)]


def test_halves_to_float_is_exact_for_every_half(isa: Isa) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    got = mapped(isa, bits, u16, np.float32, simd.halves_to_float)
    want = bits.view(np.float16).astype(np.float32)
    assert np.array_equal(got.view(np.uint32)[~np.isnan(want)], want.view(np.uint32)[~np.isnan(want)])
    assert np.isnan(got[np.isnan(want)]).all()


def test_float_to_halves_rounds_to_nearest_even(isa: Isa) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2
    x = np.concatenate([halves, between, np.nextafter(between, 0), np.nextafter(between, np.inf)]).astype(np.float32)
    x = np.concatenate([x, -x, np.array([65519, 65520, 1e30, np.inf, -np.inf, 1e-30, np.nan], np.float32)])
    got = mapped(isa, x, f32, np.float16, simd.float_to_halves)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    good = ~np.isnan(x)
    assert np.array_equal(got.view(np.uint16)[good], want.view(np.uint16)[good])
    assert np.isnan(got[~good]).all()


def test_exp(isa: Isa) -> None:
    edges = [0, -0.0, 1e-30, -1e-30, -87.4, -1000, -3e38]
    x = np.concatenate([np.linspace(-87, 88, 200_000), edges]).astype(np.float32)
    got = mapped(isa, x, f32, np.float32, simd.exp)
    want = np.exp(x.astype(np.float64))
    inside = x > -87
    assert (np.abs(got - want) <= 2 * np.spacing(want.astype(np.float32)))[inside].all()
    assert (got[x < -87.3] == 0).all()
    # A number out of NaN would hide damaged weights.
    assert np.isnan(mapped(isa, np.full(16, np.nan, np.float32), f32, np.float32, simd.exp)).all()


def test_softplus(isa: Isa) -> None:
    x = np.concatenate([np.linspace(-90, 90, 200_000), [0, -0.0, 1e-30, 88.7, 1e30]]).astype(np.float32)
    got, want = mapped(isa, x, f32, np.float32, simd.softplus), np.logaddexp(0, x.astype(np.float64))
    assert (np.abs(got - want) <= 1e-6 * want + 1e-37).all()
    assert np.isnan(mapped(isa, np.full(16, np.nan, np.float32), f32, np.float32, simd.softplus)).all()


def test_exp_of_negative(isa: Isa) -> None:
    edges = [0, -0.0, -1e-30, -85.99, -86.01, -1000, -3e38]
    x = np.concatenate([np.linspace(-86, 0, 200_000), edges, np.log(np.float64(2)) * (np.arange(124) - 123.5)])
    x = x.astype(np.float32)
    got = mapped(isa, x, f32, np.float32, simd.exp_of_negative)
    want = np.exp(x.astype(np.float64))
    inside = x >= -86
    assert (np.abs(got - want) <= 2 * np.spacing(want.astype(np.float32)))[inside].all()
    assert (got[x < -86] == 0).all() and got[x == 0].tolist() == [1.0] * int((x == 0).sum())
    # A payload that looks like exponents must not make a number of NaN.
    nan = np.array([0x7FC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(mapped(isa, np.resize(nan, 16), f32, np.float32, simd.exp_of_negative)).all()


def test_round_to_int(isa: Isa) -> None:
    x = np.concatenate([np.linspace(-300, 300, 4001), [0.5, 1.5, 2.5, -0.5, -1.5, 127.49, -127.5]]).astype(np.float32)
    got = mapped(isa, x, f32, np.int32, simd.round_to_int)
    assert np.array_equal(got, np.rint(x).astype(np.int32))


def dots(isa: Isa, u: np.ndarray, s: np.ndarray, operate: Callable[[Function, Value, Value], Value]) -> np.ndarray:
    """operate(f, u, s) on vectors of isa.lanes words of bytes."""
    lanes = isa.lanes
    both = np.concatenate([u.view(np.uint8), s.view(np.uint8)])

    def body(f: Function, source: Value, target: Value) -> None:
        with f.loop(0, len(u), 4 * lanes) as i:
            a, b = f.load(i32 * lanes, source, i), f.load(i32 * lanes, source + len(u), i)
            f.store(operate(f, a, b), target, i)

    return run(isa, body, both, np.zeros(len(u) // 4, np.int32))


def test_dot_bytes_is_exact(isa: Isa) -> None:
    rng = np.random.default_rng(1)
    s = rng.integers(-127, 128, 6400).astype(np.int8)
    # On maddubs two products must fit 16 bits: 6-bit weights do; the other levels take any byte.
    u = rng.integers(0, 64 if isa.dot == "maddubs" else 256, 6400).astype(np.uint8)
    u[:64], s[:64] = u.max(), 127
    u[64:128], s[64:128] = u.max(), -127
    got = dots(isa, u, s, lambda f, a, b: simd.dot_bytes(f.constant(a.type, 7), a, b))
    assert np.array_equal(got, 7 + (u.astype(np.int32) * s).reshape(-1, 4).sum(1))


def test_dot_signed_takes_every_weight(isa: Isa) -> None:
    if isa.dot == "vnni":
        return
    rng = np.random.default_rng(2)
    w = np.concatenate([np.full(64, -128), rng.integers(-128, 128, 6336)]).astype(np.int8)
    s = np.concatenate([np.full(32, 127), np.full(32, -127), rng.integers(-127, 128, 6336)]).astype(np.int8)
    got = dots(isa, w, s, lambda f, a, b: simd.dot_signed(f.constant(a.type, -3), a, b))
    assert np.array_equal(got, -3 + (w.astype(np.int32) * s).reshape(-1, 4).sum(1))


def test_lookup16(isa: Isa) -> None:
    table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    nibbles = np.random.default_rng(5).integers(0, 16, 640).astype(np.uint8)
    got = dots(isa, nibbles, nibbles, lambda f, a, b: simd.lookup16(simd.as_bytes(a), table).view(a.type))
    assert np.array_equal(got.view(np.int8), np.array(table, np.int8)[nibbles])
    got = dots(isa, nibbles, nibbles, lambda f, a, b: simd.lookup16(simd.as_bytes(a), range(128, 256, 8)).view(a.type))
    assert np.array_equal(got.view(np.uint8), 128 + 8 * nibbles)


def test_add_pairs_and_pick_bytes(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-32767, 32768, 3200).astype(np.int16) for _ in range(2))
    got = dots(isa, a.view(np.uint8), b.view(np.uint8), lambda f, x, y: simd.add_pairs(f.constant(x.type, 0), x, y))
    assert np.array_equal(got, (a.astype(np.int64) * b).reshape(-1, 2).sum(1).astype(np.int32))
    for index in range(4):
        got = dots(isa, a.view(np.uint8), b.view(np.uint8), lambda f, x, y, index=index: simd.pick_bytes(x, index))
        assert np.array_equal(got, a.view(np.uint8)[index::4])


def test_lane_sums_and_maxima(isa: Isa) -> None:
    x = np.random.default_rng(4).standard_normal(16).astype(np.float32)

    def body(f: Function, source: Value, target: Value) -> None:
        v = f.load(f32 * 16, source)
        f.store(simd.sum_lanes(v), target)
        f.store(simd.max_lanes(v), target, 4)

    got = run(isa, body, x, np.zeros(2, np.float32))
    want = x.copy()
    while len(want) > 1:
        want = want[: len(want) // 2] + want[len(want) // 2 :]
    assert got.tolist() == [want[0], x.max()]


