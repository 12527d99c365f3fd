import functools
import itertools

import numpy as np
import pytest
from llvmlite import binding

from seventy.formats import PANEL, Format, by_name, formats, mxfp4
from seventy.jit.compiler import Kernel, Library, compile_assembly
from seventy.jit.isa import Isa, supported
from seventy.kernels import matmul
from seventy.kernels.abi import tile_widths
from tests.support import twins
from tests.support.call import call, count
from tests.support.data import random_blocks

ALL = pytest.mark.parametrize("format", formats().values(), ids=lambda f: f.name)


def product(
    isa: Isa, format: Format, x: np.ndarray, blocks: np.ndarray, rows: int, threads: int = 1, chunk: int = 1,
    start: np.ndarray | None = None, bias: np.ndarray | None = None,
    thread_nodes: dict[str, int | np.ndarray] | None = None, prompt_columns: int = 0,
) -> np.ndarray:  # fmt: skip
    panels = -(-rows // PANEL)
    y = np.zeros((len(x), panels * PANEL), np.float32)
    if start is not None:
        y[:, :rows] = start
    extra = {} if bias is None else {"bias": np.append(bias, np.zeros(-rows % PANEL, np.float32))}
    call(
        isa, Kernel("seventy.kernels.matmul:build", (format.name,)), matmul.ARGUMENTS, threads=threads,
        rows=count(len(x)), panels=format.pack(blocks.reshape(rows, -1)), n_panels=panels,
        blocks=x.shape[1] // format.block, chunk=chunk, output=y, output_stride=y.strides[0], capacity=len(x) + 2,
        input=twins.activations(x, format.activation, len(x) + 2, isa),
        accumulate=int(start is not None), prompt_columns=prompt_columns, **extra, **(thread_nodes or {}),
    )  # fmt: skip
    return y[:, :rows]


def case(format: Format, n: int, rows: int, n_blocks: int) -> tuple[np.ndarray, np.ndarray, int]:
    columns = n_blocks * format.block
    x = np.random.default_rng(n).standard_normal((n, columns)).astype(np.float32)
    x[:, ::5] *= 10
    return x, random_blocks(format, rows * n_blocks), columns


def check(got: np.ndarray, want: np.ndarray) -> None:
    # Sums of floats: against the largest of all, for a whole row's terms may cancel, in numpy to nearly zero only.
    assert (np.abs(got - want) <= 2e-6 * np.abs(want).max()).all()


@ALL
@pytest.mark.parametrize(("n", "rows", "n_blocks"), [(1, 16, 1), (2, 17, 3), (3, 40, 2), (7, 15, 5), (13, 33, 4)])
def test_product_equals_its_twin(format: Format, n: int, rows: int, n_blocks: int, isa: Isa) -> None:
    x, blocks, _ = case(format, n, rows, n_blocks)
    check(product(isa, format, x, blocks, rows), twins.matmul(x, blocks, format, rows))


@ALL
def test_extreme_inputs_do_not_overflow(format: Format, isa: Isa) -> None:
    blocks = random_blocks(format, 16 * 16)
    factors = np.random.default_rng(6).uniform(0.5, 1, len(blocks)).astype(np.float32)
    # The largest numbers, and for Q6_K, whose scales are signed bytes, the least with the least scale.
    fills = [0xFF] if format.activation == "f32" else [0xFF, 0x00, 0x80]
    for fill, sign in itertools.product(fills, (1, -1)):
        if format.activation != "f32":
            blocks[:] = fill
            if format.name == "Q6_K" and fill != 0xFF:
                blocks[:, 192:208] = 0x7F if fill else 0x80
            format.set_factors(blocks, factors)
        x = np.full((9, 16 * format.block), sign * 3.0, np.float32)
        x[4] *= np.where(np.arange(x.shape[1]) % 2, 1, -1)
        few = product(isa, format, x, blocks, 16)
        check(few, twins.matmul(x, blocks, format, 16))
        prompt = product(isa, format, np.tile(x, (8, 1)), blocks, 16, prompt_columns=1024)
        assert np.array_equal(prompt, np.tile(few, (8, 1)))


@ALL
def test_a_row_does_not_depend_on_its_company(format: Format, isa: Isa) -> None:
    x, blocks, _ = case(format, 23, 50, 3)
    together = product(isa, format, x, blocks, 50)
    for n in (1, 2, 3, 6, 15):
        assert np.array_equal(product(isa, format, x[:n], blocks, 50, threads=n % 3 + 1, chunk=n), together[:n])
    # Of four panels one row reads none, one and the third, or two and two side by side.
    for i, chunk in (5, 1), (22, 3), (3, 4):
        assert np.array_equal(product(isa, format, x[i : i + 1], blocks, 50, chunk=chunk), together[i : i + 1])


@ALL
def test_bias_and_accumulation(format: Format, isa: Isa) -> None:
    x, blocks, _ = case(format, 5, 20, 2)
    rng = np.random.default_rng(7)
    bias, start = (rng.standard_normal(size).astype(np.float32) for size in (20, (5, 20)))
    want = twins.matmul(x, blocks, format, 20)
    check(product(isa, format, x, blocks, 20, bias=bias), want + bias)
    check(product(isa, format, x, blocks, 20, start=start), want + start)
    check(product(isa, format, x, blocks, 20, start=start, bias=bias), want + start + bias)


@ALL
def test_one_row_of_panels_side_by_side(format: Format, isa: Isa) -> None:
    x, blocks, _ = case(format, 1, 70, 9)
    rng = np.random.default_rng(9)
    bias, start = (rng.standard_normal(size).astype(np.float32) for size in (70, (1, 70)))
    want = twins.matmul(x, blocks, format, 70)
    check(product(isa, format, x, blocks, 70, threads=2, chunk=5, bias=bias), want + bias)
    check(product(isa, format, x, blocks, 70, chunk=4, start=start), want + start)


@ALL
@pytest.mark.parametrize("prompt_columns", [512, 4096])
def test_a_prompt_goes_over_some_columns_at_a_time(format: Format, prompt_columns: int, isa: Isa) -> None:
    n = 8 * tile_widths(isa.lanes)[0] + 3
    x, blocks, _ = case(format, n, 20, prompt_columns // format.block + 1)
    rng = np.random.default_rng(8)
    bias, start = (rng.standard_normal(size).astype(np.float32) for size in (20, (n, 20)))
    want = twins.matmul(x, blocks, format, 20)
    both = {"bias": bias, "start": start}
    for extra, more in (({}, 0), ({"bias": bias}, bias), ({"start": start}, start), (both, bias + start)):
        together = product(isa, format, x, blocks, 20, threads=2, chunk=2, prompt_columns=prompt_columns, **extra)
        check(together, want + more)
        for i in (0, 11, n - 1):
            alone = {name: value[i : i + 1] if name == "start" else value for name, value in extra.items()}
            assert np.array_equal(product(isa, format, x[i : i + 1], blocks, 20, **alone), together[i : i + 1])


def test_more_rows_than_sums_are_kept_of(isa: Isa) -> None:
    # 2048 rows of one panel, 1024 of two that are claimed together, and more.
    format = by_name("TQ1_0")
    for n, chunk in (1025, 2), (2050, 3):
        x, blocks, _ = case(format, n, 40, 1)
        bias, start = np.ones(40, np.float32), np.full((n, 40), 2, np.float32)
        got = product(isa, format, x, blocks, 40, chunk=chunk, bias=bias, start=start)
        check(got, twins.matmul(x, blocks, format, 40) + 3)
        alone = product(isa, format, x[1000:1001], blocks, 40, bias=bias, start=start[:1])
        assert np.array_equal(got[1000:1001], alone)


@pytest.mark.parametrize("format", [f for f in formats().values() if f.block == 32], ids=lambda f: f.name)
def test_rows_that_are_no_multiple_of_256_columns(format: Format, isa: Isa) -> None:
    for n in (1, 8 * tile_widths(isa.lanes)[0]):
        x, blocks, _ = case(format, n, 20, 2880 // 32)
        got = product(isa, format, x, blocks, 20, chunk=2, prompt_columns=1024)
        check(got, twins.matmul(x, blocks, format, 20))


@pytest.mark.parametrize("e", [0, 1, 2, 127, 254, 255])
def test_every_exponent_of_mxfp4_is_a_number(e: int, isa: Isa) -> None:
    format = by_name("MXFP4")
    x, blocks, columns = case(format, 9, 16, 6)
    blocks[:, 0] = e
    # Weights below the least normal float, and above the largest one: 12 * 2**127.
    power = 2.0 ** np.clip(128 - e, -100, 100)
    nibbles = np.concatenate([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], axis=1)
    weights = np.array(mxfp4.VALUES)[nibbles].reshape(16, columns) * 2.0 ** (e - 128)
    x = (x * power).astype(np.float32)
    q, scale = twins.quantize(x, 32)
    inputs = (q.reshape(9, -1, 32) * scale[..., None].astype(np.float64)).reshape(x.shape)
    check(product(isa, format, x, blocks, 16), inputs @ weights.T)


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "NVFP4"])
def test_asking_ahead_for_one_row_changes_no_bit(name: str, isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    format, kernel = by_name(name), Kernel("seventy.kernels.matmul:build", (name,))
    x, blocks, _ = case(format, 3, 70, 5)
    found: list[np.ndarray] = []
    for cpu, asks in ("znver4", False), ("znver3", True):
        monkeypatch.setattr(binding, "get_host_cpu_name", lambda cpu=cpu: cpu)
        monkeypatch.setattr("tests.support.call.library", functools.cache(Library))
        one_row = compile_assembly(kernel, isa).split("\ntile1:")[1].split(".Lfunc_end")[0]
        assert ("prefetch" in one_row) == asks
        found += [product(isa, format, x[:n], blocks, 70, chunk=4)[0] for n in (1, 2, 3)]
    assert all(np.array_equal(each, found[0]) for each in found)


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
def test_nodes_change_nothing(name: str) -> None:
    format, isa = by_name(name), supported()[-1]
    for n, chunk in (11, 2), (1, 3):
        x, blocks, _ = case(format, n, 110, 3)
        start = np.ones((n, 110), np.float32)
        want = product(isa, format, x, blocks, 110, start=start)
        for nodes, threads in [(2, 1), (2, 4), (5, 3), (8, 2)]:
            # Accumulated: a panel computed twice would show.
            thread_nodes = {"nodes": nodes, "thread_nodes": np.arange(threads) % nodes}
            found = product(isa, format, x, blocks, 110, threads, chunk, start, thread_nodes=thread_nodes)
            assert np.array_equal(found, want)
