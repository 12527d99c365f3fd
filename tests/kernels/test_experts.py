import numpy as np
import pytest

from seventy.formats import PANEL, Format, by_name
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import experts
from tests.support import twins
from tests.support.call import call
from tests.support.data import random_blocks

SOME = pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "MXFP4", "F32"])


def product(
    isa: Isa, format: Format, x: np.ndarray, blocks: np.ndarray, rows: int, chosen: list[list[int]], threads: int = 1,
    chunk: int = 64, bias: np.ndarray | None = None, prompt_columns: int = 0,
) -> np.ndarray:  # fmt: skip
    """Each slot's product; `chosen` are the rows of x that go to each expert."""
    active = [expert for expert, some in enumerate(chosen) if some]
    inputs = np.array([row for some in chosen for row in some], np.int32)
    starts = np.cumsum([0, *(len(chosen[expert]) for expert in active)]).astype(np.int32)
    panels = -(-rows // PANEL)
    y = np.zeros((len(inputs), panels * PANEL), np.float32)
    matrices = blocks.reshape(len(chosen), rows, -1)
    one_by_one = [twins.activations(row[None], format.activation, 1, isa) for row in x]
    kind = experts.KINDS[format.activation]
    sections = zip(*(np.split(row, np.cumsum(kind.row_bytes(x.shape[1]))[:-1]) for row in one_by_one), strict=True)
    call(
        isa, Kernel("seventy.kernels.experts:build", (format.name,)), experts.ARGUMENTS, threads=threads,
        panels=np.concatenate([format.pack(matrix) for matrix in matrices]), n_panels=panels,
        blocks=x.shape[1] // format.block, chunk=chunk, capacity=len(x),
        input=np.concatenate([np.concatenate(section) for section in sections]), inputs=inputs,
        active=np.array([len(active), *active], np.int32), starts=starts, output=y, output_stride=y.strides[0],
        prompt_columns=prompt_columns, **({} if bias is None else {"bias": bias}),
    )  # fmt: skip
    return y[:, :rows]


def case(format: Format, n: int, rows: int, n_blocks: int, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(n).standard_normal((n, n_blocks * format.block)).astype(np.float32)
    return x, random_blocks(format, n_experts * rows * n_blocks)


@SOME
@pytest.mark.parametrize(("n", "rows", "n_blocks"), [(1, 16, 1), (5, 32, 3), (40, 48, 7)])
def test_product_equals_its_twin(name: str, n: int, rows: int, n_blocks: int, isa: Isa) -> None:
    format = by_name(name)
    x, blocks = case(format, n, rows, n_blocks, 5)
    rng = np.random.default_rng(n)
    # None, one, some, all, and some once more.
    chosen = [[], [n - 1], sorted(rng.permutation(n)[: n // 2].tolist()), [*range(n)], sorted({0, n // 3})]
    bias = rng.standard_normal((5, -(-rows // PANEL) * PANEL)).astype(np.float32)
    plain = product(isa, format, x, blocks, rows, chosen)
    biased = product(isa, format, x, blocks, rows, chosen, threads=3, chunk=1, bias=bias)
    matrices, at = blocks.reshape(5, rows * n_blocks, -1), 0
    for expert, some in enumerate(chosen):
        want = twins.matmul(x[some], matrices[expert], format, rows) if some else np.zeros((0, rows))
        for got, more in ((plain, 0), (biased, bias[expert, :rows])):
            error = np.abs(got[at : at + len(some)] - (want + more))
            assert (error <= 4e-6 * max(1, np.abs(want).max(initial=0))).all()
        at += len(some)


@SOME
def test_a_row_does_not_depend_on_its_company(name: str, isa: Isa) -> None:
    format = by_name(name)
    x, blocks = case(format, 90, 32, 2, 2)
    everybody = product(isa, format, x, blocks, 32, [[*range(90)], [*range(0, 90, 2)]])
    # Every number of rows that a tile may have, and more than one tile.
    for rows in ([7], [3, 4], [0, 1, 2, 50, 51, 60, 61, 88, 89], *([*range(n)] for n in (3, 4, 5, 6, 7, 8, 15))):
        assert np.array_equal(product(isa, format, x, blocks, 32, [rows, []], threads=2), everybody[rows])
    prompt = product(isa, format, x, blocks, 32, [[*range(90)], []], prompt_columns=1024)
    assert np.array_equal(prompt, everybody[:90])


@pytest.mark.parametrize("columns", [22528, 66048])
def test_rows_too_wide_to_gather_many_of(columns: int, isa: Isa) -> None:
    format = by_name("Q4_K")
    x, blocks = case(format, 9, 16, columns // 256, 1)
    got = product(isa, format, x, blocks, 16, [[*range(1, 9)]])
    want = twins.matmul(x[1:], blocks, format, 16)
    assert (np.abs(got - want) <= 4e-6 * np.abs(want).max()).all()
