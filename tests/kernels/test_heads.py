import numpy as np
import pytest

from seventy.formats import by_name
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import heads
from tests.support import twins
from tests.support.call import call, count
from tests.support.data import random_blocks


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "F16"])
@pytest.mark.parametrize(("n", "n_heads", "rows", "n_blocks"), [(1, 1, 16, 1), (5, 3, 32, 2), (13, 4, 48, 3)])
def test_each_head_is_multiplied_by_its_matrix(
    name: str, n: int, n_heads: int, rows: int, n_blocks: int, isa: Isa
) -> None:
    format = by_name(name)
    rng = np.random.default_rng(n)
    columns = n_blocks * format.block
    x = rng.standard_normal((n, n_heads, columns)).astype(np.float32)
    blocks = random_blocks(format, n_heads * rows * n_blocks).reshape(n_heads, rows * n_blocks, -1)
    one_by_one = [twins.activations(row[None], format.activation, 1, isa) for row in x.reshape(-1, columns)]
    ends = np.cumsum(heads.KINDS[format.activation].row_bytes(columns))[:-1]
    sections = zip(*(np.split(row, ends) for row in one_by_one), strict=True)
    # More columns of each head than the product writes, which stay.
    y = np.full((n, n_heads, rows + 16), 7, np.float32)
    call(
        isa, Kernel("seventy.kernels.heads:build", (name,)), heads.ARGUMENTS, threads=3, rows=count(n), heads=n_heads,
        panels=np.concatenate([format.pack(matrix.reshape(rows, -1)) for matrix in blocks]), n_panels=rows // 16,
        blocks=n_blocks, chunk=2, input=np.concatenate([np.concatenate(section) for section in sections]),
        numbers=(np.arange(n_heads)[:, None] + n_heads * np.arange(n)).astype(np.int32), capacity=n * n_heads,
        output=y, output_stride=y.strides[0], head_stride=y.strides[1],
    )  # fmt: skip
    assert (y[..., rows:] == 7).all()
    for head in range(n_heads):
        want = twins.matmul(x[:, head], blocks[head], format, rows)
        assert (np.abs(y[:, head, :rows] - want) <= 4e-6 * max(1, np.abs(want).max())).all()
