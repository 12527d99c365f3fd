import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import latent_store
from seventy.kernels.pages import KINDS, PAGE, LatentLayout
from seventy.models.blocks.rotary import Rotary
from tests.support import twins
from tests.support.call import call, count


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_normalised_turned_and_stored_and_queries_turned(kind: str, isa: Isa) -> None:
    rng = np.random.default_rng(3)
    heads, rank, nope, rope = 3, 64, 48, 32
    positions = np.array([0, 5, PAGE, 300, 299], np.int32)
    n, n_pages = len(positions), 300 // PAGE + 1
    queries = rng.standard_normal((n, heads, nope + rope)).astype(np.float32)
    keys, norm = rng.standard_normal((n, rank + rope)).astype(np.float32), rng.random(rank).astype(np.float32)
    rotary = Rotary(rope, 10000.0, interleaved=True)
    tables, layout = rotary.tables(512), LatentLayout(kind, rank + rope)
    pages, cache = rng.permutation(n_pages).astype(np.int32), np.zeros((n_pages, layout.nbytes), np.uint8)
    latent = np.full((n, heads, rank + rope), 7, np.float32)
    call(
        isa, Kernel("seventy.kernels.latent_store:build", (heads, rank, nope, rope, kind)), latent_store.ARGUMENTS,
        threads=2, rows=count(n), positions=positions, segments=np.zeros(n, np.int32), tables=pages,
        table_stride=pages.nbytes, coarse=tables.coarse, fine=tables.fine, queries=queries,
        query_stride=queries.strides[0], keys=keys, key_stride=keys.strides[0], norm=norm,
        epsilon=np.array([1e-6], np.float32), latent=latent, latent_stride=latent.strides[0], cache=cache,
    )  # fmt: skip
    angles = positions[:, None] * rotary.frequencies()
    want = twins.rotate(queries[..., nope:], angles[:, None], 1.0, True)
    np.testing.assert_allclose(latent[..., rank:], want, atol=2e-5)
    assert (latent[..., :rank] == 7).all()
    exact = keys[:, :rank] / np.sqrt((keys[:, :rank] ** 2).mean(-1, keepdims=True) + 1e-6) * norm
    exact = np.concatenate([exact, twins.rotate(keys[:, rank:], angles, 1.0, True)], axis=1)
    for row, position in enumerate(positions):
        stored = twins.unpack_latent_page(cache[pages[position // PAGE]], layout)[position % PAGE]
        np.testing.assert_allclose(stored, exact[row], atol=2e-3 if kind == "f16" else 2e-2)
