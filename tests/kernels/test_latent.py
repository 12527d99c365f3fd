import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import latent
from seventy.kernels.latent import PARTS, SHARED, SHORTEST_PART
from seventy.kernels.pages import KINDS, PAGE, LatentLayout
from tests.support import twins
from tests.support.call import call, count


class Case:
    """A cache of random keys in pages in no order, and queries of rows at `positions` of one sequence."""

    def __init__(self, heads: int, dim: int, value_dim: int, kind: str, positions: list[int], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.heads, self.value_dim, self.layout = heads, value_dim, LatentLayout(kind, dim)
        self.kernel = Kernel("seventy.kernels.latent:build", (heads, dim, value_dim, kind))
        self.positions = np.array(positions, np.int32)
        n_pages, self.scale = max(positions) // PAGE + 1, dim**-0.5
        self.table = rng.permutation(n_pages).astype(np.int32)
        self.cache = np.zeros((n_pages, self.layout.nbytes), np.uint8)
        for index, page in enumerate(self.table):
            keys = rng.standard_normal((PAGE, dim))
            # What lies past the last row's position must not matter, even where it is no number.
            keys[max(0, max(positions) + 1 - index * PAGE) :] = np.nan
            with np.errstate(invalid="ignore"):
                self.cache[page] = twins.pack_latent_page(keys, kind)
        self.queries = rng.standard_normal((len(positions), heads, dim)).astype(np.float32) * 3

    def run(self, isa: Isa, rows: slice = slice(None), threads: int = 3) -> np.ndarray:
        queries, positions = self.queries[rows].copy(), self.positions[rows].copy()
        out = np.zeros((len(queries), self.heads, self.value_dim), np.float32)
        call(
            isa, self.kernel, latent.ARGUMENTS, threads=threads, rows=count(len(queries)), positions=positions,
            segments=np.zeros(len(queries), np.int32), tables=self.table, table_stride=self.table.nbytes,
            queries=queries, query_stride=queries.strides[0], cache=self.cache,
            scales=np.array([self.scale], np.float32), scale_span=1 << 20, output=out, output_stride=out.strides[0],
            scratch=np.zeros(latent.scratch_bytes(self.heads, self.value_dim), np.uint8),
        )  # fmt: skip
        return out

    def wanted(self, row: int) -> np.ndarray:
        return twins.latent_attention(
            self.queries[row], self.cache, self.table, int(self.positions[row]), self.scale, self.value_dim, self.layout
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("heads", "dim", "value_dim"), [(1, 96, 64), (5, 96, 64), (16, 576, 512), (20, 160, 128), (128, 96, 64)]
)
def test_latent_attention_equals_its_twin(heads: int, dim: int, value_dim: int, kind: str, isa: Isa) -> None:
    part = SHORTEST_PART
    case = Case(heads, dim, value_dim, kind, [0, 1, PAGE - 1, PAGE, part - 1, part, 3 * part + 7, PARTS * part + 77])
    out = case.run(isa)
    for row in range(len(out)):
        # Scores of about 10 are right to 1e-6 in f32, so are the weights, and so is a sum of values of about 1.
        np.testing.assert_allclose(out[row], case.wanted(row), rtol=2e-5, atol=1e-5)
    assert np.array_equal(case.run(isa, slice(7, 8), threads=1)[0], out[-1])


def test_rows_of_latent_attention_need_an_even_block_only_as_bytes(isa: Isa) -> None:
    case = Case(4, 144, 128, "f16", [40])
    np.testing.assert_allclose(case.run(isa)[0], case.wanted(0), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompts_row_is_that_of_the_row_alone(kind: str, isa: Isa) -> None:
    # More rows than share threads, so that rows go over pages in tiles; over a page's end and where parts grow.
    first = PARTS * SHORTEST_PART - SHARED // 2
    case = Case(20, 96, 64, kind, list(range(first, first + SHARED + 5)))
    together = case.run(isa)
    for row in range(0, len(together), 3):
        assert np.array_equal(case.run(isa, slice(row, row + 1))[0], together[row]), row
    np.testing.assert_allclose(together[-1], case.wanted(len(together) - 1), rtol=2e-5, atol=1e-5)
