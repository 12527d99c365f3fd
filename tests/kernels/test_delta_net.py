import math

import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import delta_rule, short_convolution
from tests.support import twins
from tests.support.call import call, count

EPSILON = 1e-6


def random(seed: int, *shape: int, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def segments(
    rows: list[int], states: list[tuple[int, int]], drafts: list[tuple[int, int]] | None = None
) -> dict[str, np.ndarray]:
    """`drafts` are of each segment the rows pending in its state, and those of its own that are drafted."""
    starts = np.cumsum([0, *rows]).astype(np.int32)
    table = np.concatenate([states, drafts or np.zeros_like(states)], axis=1).astype(np.int32)
    return {"segments": count(len(rows)), "starts": starts, "states": table}


def convolve(
    isa: Isa,
    x: np.ndarray,
    memory: np.ndarray,
    weights: np.ndarray,
    dim: int,
    normalised: int,
    **segments: np.ndarray,
) -> np.ndarray:
    out = np.zeros_like(x)
    taps, channels = weights.shape
    call(
        isa, Kernel("seventy.kernels.short_convolution:build", (taps, dim, channels // dim, normalised)),
        short_convolution.ARGUMENTS, threads=3, memory=memory, state_bytes=memory.strides[0], input=x,
        input_stride=x.strides[0], weights=weights, epsilon=np.array([EPSILON], np.float32), output=out,
        output_stride=out.strides[0], **segments,
    )  # fmt: skip
    return out


@pytest.mark.parametrize(("taps", "dim", "heads", "normalised"), [(4, 32, 5, 2), (3, 16, 3, 0)])
def test_a_convolution_goes_on_where_the_state_says(taps: int, dim: int, heads: int, normalised: int, isa: Isa) -> None:
    rows, channels = [1, 2, 9], heads * dim
    x, weights = random(1, sum(rows), channels), random(2, taps, channels)
    memory = random(3, 5, math.prod(short_convolution.window_shape(taps, channels)))
    before = memory.copy()
    # The second and the third begin alike.
    states = [(0, 1), (2, 3), (2, 4)]
    found = convolve(isa, x, memory, weights, dim, normalised, **segments(rows, states))
    at = 0
    for n, (old, new) in zip(rows, states, strict=True):
        window = before[old].reshape(-1, channels)[: taps - 1]
        want, after = twins.short_convolution(x[at : at + n], window, weights, dim, normalised, EPSILON)
        np.testing.assert_allclose(found[at : at + n], want, rtol=2e-5, atol=2e-6)
        assert np.array_equal(memory[new].reshape(-1, channels)[: taps - 1], after)
        assert np.array_equal(memory[old], before[old])
        at += n


def test_a_gated_convolution_remembers_what_was_multiplied_before(isa: Isa) -> None:
    rows, taps, channels = [1, 2, 9], 3, 48
    x, before, after = (random(i, sum(rows), channels) for i in (1, 2, 3))
    weights, window = random(4, taps, channels), math.prod(short_convolution.window_shape(taps, channels))
    memory = random(5, 4, window)
    out, product = np.zeros_like(x), x * before
    states = [(0, 1), (2, 3), (2, 0)]
    windows = [memory[old].reshape(-1, channels)[: taps - 1].copy() for old, _ in states]
    call(
        isa, Kernel("seventy.kernels.short_convolution:build", (taps, 16, channels // 16, 0, True)),
        short_convolution.ARGUMENTS, threads=3, memory=memory, state_bytes=memory.strides[0], input=x,
        input_stride=x.strides[0], before=before, after=after, weights=weights, output=out,
        output_stride=out.strides[0], **segments(rows, states),
    )  # fmt: skip
    for n, first, window, (_, new) in zip(rows, np.cumsum([0, *rows]), windows, states, strict=False):
        seen = np.concatenate([window, product[first : first + n]])
        want = sum(seen[j : j + n] * weights[j] for j in range(taps)) * after[first : first + n]
        np.testing.assert_allclose(out[first : first + n], want, rtol=2e-5, atol=2e-6)
        assert np.array_equal(memory[new].reshape(-1, channels)[: taps - 1], seen[n:])


def recur(
    isa: Isa,
    memory: np.ndarray,
    shape: tuple[int, int, int, bool],
    parts: dict[str, np.ndarray],
    **segments: np.ndarray,
) -> np.ndarray:
    """One step over the rows of `parts`; the decay and beta that are given are changed."""
    dim, _, value_heads, _ = shape
    out = np.zeros((len(parts["input"]), value_heads * dim), np.float32)
    log = 4 * value_heads * dim * dim
    rows = {name: parts[name] for name in ("input", "decay", "beta", "gate")}
    strides = {f"{name}_stride": array.strides[0] for name, array in rows.items()}
    call(
        isa, Kernel("seventy.kernels.delta_rule:build", shape), delta_rule.ARGUMENTS, threads=3, memory=memory,
        state_bytes=memory.strides[0], log=log, epsilon=np.array([EPSILON], np.float32), output=out,
        output_stride=out.strides[0], **parts, **strides, **segments,
    )  # fmt: skip
    return out


def floats(shape: tuple[int, int, int, bool]) -> int:
    """Floats of a state: the matrices and the log."""
    dim, _, value_heads, _ = shape
    return value_heads * dim * dim + math.prod(delta_rule.log_shape(dim, value_heads))


def inputs(shape: tuple[int, int, int, bool], n: int) -> dict[str, np.ndarray]:
    dim, key_heads, value_heads, _ = shape
    keys = random(1, n, 2 * key_heads, dim)
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    values = random(2, n, value_heads * dim)
    return {
        "input": np.concatenate([keys.reshape(n, -1), values], axis=1),
        "decay": random(3, n, 16), "beta": random(4, n, 16), "gate": random(5, n, value_heads * dim),
        "decay_rate": -np.abs(random(6, 16)), "decay_bias": random(7, 16), "norm": random(8, dim),
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 2, 4, True), (64, 2, 4, False), (48, 1, 3, False)])
def test_the_delta_rule_is_its_twin(shape: tuple[int, int, int, bool], isa: Isa) -> None:
    rows, states = [1, 12], [(1, 2), (0, 3)]
    dim, _, value_heads, _ = shape
    memory = random(9, 4, floats(shape), size=0.3)
    matrices = value_heads * dim * dim
    before, parts = memory.copy(), inputs(shape, sum(rows))
    want, at = [], 0
    for n, (old, _) in zip(rows, states, strict=True):
        some = {name: x[at : at + n] if name in ("input", "decay", "beta", "gate") else x for name, x in parts.items()}
        want.append(twins.delta_rule(some, before[old, :matrices], *shape, EPSILON))
        at += n
    found = recur(isa, memory, shape, parts, **segments(rows, states))
    np.testing.assert_allclose(found, np.concatenate([out for out, _ in want]), rtol=1e-3, atol=2e-4)
    for (_, new), (_, state) in zip(states, want, strict=True):
        np.testing.assert_allclose(memory[new, :matrices], state, rtol=1e-3, atol=1e-4)
    assert np.array_equal(memory[:2], before[:2])


def test_a_cut_changes_no_bit(isa: Isa) -> None:
    shape, n = (64, 2, 4, True), 9
    memory = np.zeros((5, floats(shape)), np.float32)
    whole = recur(isa, memory, shape, inputs(shape, n), **segments([n], [(0, 1)]))
    parts, found = inputs(shape, n), []
    for (first, last), states in zip([(0, 1), (1, 6), (6, 9)], [(0, 2), (2, 3), (3, 4)], strict=True):
        some = {name: x[first:last] if len(x) == n else x for name, x in parts.items()}
        found.append(recur(isa, memory, shape, some, **segments([last - first], [states])))
    matrices = 4 * 64 * 64
    assert np.array_equal(np.concatenate(found), whole) and np.array_equal(memory[1, :matrices], memory[4, :matrices])


# Of each step: its first row, how many rows it has, how many of these are drafted, and how many of those were right.
DRAFTED = ((0, 4, 3, 3), (4, 8, 7, 0), (5, 6, 5, 2), (8, 1, 0, 0), (9, 3, 2, 1), (11, 5, 0, 0))


def test_drafted_rows_change_no_bit_of_the_delta_rule(isa: Isa) -> None:
    shape, n = (64, 2, 4, False), 16
    memory = np.zeros((3, floats(shape)), np.float32)
    whole = recur(isa, memory, shape, inputs(shape, n), **segments([n], [(0, 1)]))
    after = memory[1, : 4 * 64 * 64].copy()
    memory[1:] = np.nan
    parts, old, pending = inputs(shape, n), 0, 0
    for first, rows, drafted, right in DRAFTED:
        some = parts | {name: parts[name][first : first + rows].copy() for name in ("input", "decay", "beta", "gate")}
        for name in ("input", "decay", "beta"):
            some[name][rows - drafted + right :] *= -1.5
        new = 2 - old // 2
        found = recur(isa, memory, shape, some, **segments([rows], [(old, new)], [(pending, drafted)]))
        good = rows - drafted + right
        assert np.array_equal(found[:good], whole[first : first + good])
        old, pending = new, right
    assert np.array_equal(memory[old, : 4 * 64 * 64], after)


def test_drafted_rows_change_no_bit_of_the_convolution(isa: Isa) -> None:
    taps, dim, heads, n = 4, 16, 3, 16
    channels = dim * heads
    x, weights = random(1, n, channels), random(2, taps, channels)
    memory = np.zeros((3, math.prod(short_convolution.window_shape(taps, channels))), np.float32)
    whole = convolve(isa, x, memory, weights, dim, 1, **segments([n], [(0, 1)]))
    memory[1:] = np.nan
    old, pending = 0, 0
    for first, rows, drafted, right in DRAFTED:
        some, good = x[first : first + rows].copy(), rows - drafted + right
        some[good:] *= -1.5
        new = 2 - old // 2
        found = convolve(isa, some, memory, weights, dim, 1, **segments([rows], [(old, new)], [(pending, drafted)]))
        assert np.array_equal(found[:good], whole[first : first + good])
        old, pending = new, right
    assert np.array_equal(memory[old].reshape(-1, channels)[: taps - 1], x[n - taps + 1 :])
