import ctypes
import uuid
from collections.abc import Callable

import numpy as np
import pytest
from llvmlite import binding

from seventy.jit import compiler
from seventy.jit.build import Function, Module, Value
from seventy.jit.isa import Isa, select
from seventy.jit.types import f32, i32, i64, pointer, u8, u32


def run(isa: Isa, body: Callable[[Function, Value, Value], None], inputs: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Compiles a function of (input address, output address) without the cache and calls it."""
    module = Module(isa)
    f = module.function("kernel", [pointer, pointer])
    body(f, *f.arguments)
    library = compiler.Library(isa)
    machine = compiler._target_machine(isa)
    parsed = binding.parse_assembly(module.text("nounwind"))
    parsed.verify()
    tracker = (
        binding.JITLibraryBuilder()
        .add_object_img(machine.emit_object(parsed))
        .export_symbol("kernel")
        .link(library._jit, uuid.uuid4().hex)
    )
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(tracker["kernel"])(inputs.ctypes.data, result.ctypes.data)
    return result


INTEGERS = np.array([0, 1, -1, 7, -8, 2**31 - 1, -(2**31), 1234567, -7654321, 100, -100, 3, 5, -9, 2**30, -3], np.int32)


@pytest.mark.parametrize(
    ("operate", "expected"),
    [
        (lambda x: x + 5, lambda x: x + np.int32(5)),
        (lambda x: 5 - x, lambda x: np.int32(5) - x),
        (lambda x: x * 3, lambda x: x * np.int32(3)),
        (lambda x: -x, lambda x: -x),
        (lambda x: x & 0xFF, lambda x: x & 0xFF),
        (lambda x: (x | 1) ^ 3, lambda x: (x | 1) ^ 3),
        (lambda x: x >> 4, lambda x: x >> 4),
        (lambda x: x << 2, lambda x: x << 2),
        (lambda x: x // 7, lambda x: np.trunc(x / 7).astype(np.int32)),
        (lambda x: x % 7, lambda x: np.fmod(x, 7)),
        (lambda x: x.minimum(9), lambda x: np.minimum(x, 9)),
        (lambda x: x.maximum(-9), lambda x: np.maximum(x, -9)),
        (lambda x: (x < 3).select(x, 3), lambda x: np.where(x < 3, x, 3)),
        (lambda x: x.eq(7).select(1, x), lambda x: np.where(x == 7, 1, x)),
        (lambda x: x.view(u32 * 16) >> 28, lambda x: (x.view(np.uint32) >> 28).view(np.int32)),
        (lambda x: (x.view(u32 * 16) < 9).select(x, 0), lambda x: np.where(x.view(np.uint32) < 9, x, 0)),
        (lambda x: (x >> 1).to(f32).to(i32), lambda x: (x >> 1).astype(np.float32).astype(np.int32)),
        (lambda x: x.shuffle([15, 0] * 8), lambda x: np.tile(x[[15, 0]], 8)),
        (lambda x: x.lane(3).splat(16), lambda x: np.full(16, x[3])),
        (lambda x: x.with_lane(2, x.lane(5)), lambda x: np.where(np.arange(16) == 2, x[5], x)),
    ],
)
def test_integer_operators(isa: Isa, operate: Callable, expected: Callable) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        want = expected(INTEGERS).astype(np.int32)

    def body(f: Function, source: Value, target: Value) -> None:
        f.store(operate(f.load(i32 * 16, source)).view(i32 * 16), target)

    assert run(isa, body, INTEGERS, np.zeros(16, np.int32)).tolist() == want.tolist()


def test_float_constants_are_rounded_once(isa: Isa) -> None:
    def body(f: Function, source: Value, target: Value) -> None:
        f.store(f.load(f32 * 4, source) + 0.1, target)
        f.store(1.0 / f.load(f32 * 4, source), target, 16)

    x = np.array([1, 2, 3, 4], np.float32)
    got = run(isa, body, x, np.zeros(8, np.float32))
    assert got.tolist() == [*(x + np.float32(0.1)).tolist(), *(np.float32(1) / x).tolist()]


def test_loops_branches_and_variables() -> None:
    def body(f: Function, source: Value, target: Value) -> None:
        total = f.variable(i64, 0)
        with f.loop(2, 11, 3) as i, f.loop(i) as j, f.when(j > 2):
            total.set(total.get() + j)
        f.store(total.get(), target)
        with f.forever() as loop:
            loop.leave_if(total.get() >= 1000)
            total.set(total.get() * 2)
        f.store(total.get(), target, 8)
        f.store(f.load(u8, source).to(i64), target, 16)

    expected = sum(j for i in range(2, 11, 3) for j in range(i) if j > 2)
    doubled = expected
    while doubled < 1000:
        doubled *= 2
    got = run(select("generic"), body, np.array([200], np.uint8), np.zeros(3, np.int64))
    assert got.tolist() == [expected, doubled, 200]


def test_atomic_add_gives_what_was_there() -> None:
    def body(f: Function, source: Value, target: Value) -> None:
        f.store(f.atomic_add(source, 5), target)
        f.atomic_store(source, f.atomic_load(source) * 2)

    x = np.array([37], np.int64)
    assert run(select("generic"), body, x, np.zeros(1, np.int64)).tolist() == [37]
    assert x.tolist() == [84]
