"""Beyond 4 GiB: matrices, files and caches of 6 GiB of which only the far end is touched, so they cost nothing."""

import ctypes
import mmap
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from seventy.formats import PANEL, Format, by_name, formats
from seventy.gguf.file import GGUF
from seventy.graph.weights import Weights
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa, supported
from seventy.kernels import attention, embedding, matmul, rope
from seventy.kernels.abi import tile_widths
from seventy.kernels.pages import KINDS, PAGE, Layout
from seventy.machine.memory import peak_rss_bytes, total_bytes
from seventy.models.blocks.rotary import Rotary
from tests.support import gguf_writer, twins
from tests.support.call import address, call, count, library
from tests.support.data import random_blocks

LARGE = 6 << 30
_MAP_NORESERVE = 0x4000
ALL = pytest.mark.parametrize("format", formats().values(), ids=lambda f: f.name)


def untouched(nbytes: int) -> np.ndarray:
    """Zeros that take no memory until they are written; also where less is free."""
    if sys.platform != "linux":
        return np.zeros(nbytes, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, nbytes, flags=flags), np.uint8)


@pytest.fixture(autouse=True)
def little_memory() -> object:
    before = peak_rss_bytes()
    yield
    assert peak_rss_bytes() - before < 1 << 30


def call_last(isa: Isa, kernel: Kernel, names: tuple[str, ...], claimed: int, **arguments: int | np.ndarray) -> None:
    """Calls a kernel whose threads find the first `claimed` claims taken."""
    words = [arguments.get(name, 0) for name in names]
    block = np.array([address(word) if isinstance(word, np.ndarray) else word for word in words], np.int64)
    counter = np.zeros(16, np.int64)
    counter[0] = claimed
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(library(isa).address(kernel))
    team = [threading.Thread(target=function, args=(address(block), address(counter), i, 2)) for i in range(2)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()


def far_matrix(format: Format, columns: int, rows: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Packed panels of more than LARGE bytes, how many, and the blocks of the last `rows` rows, which are not zero."""
    n_blocks = columns // format.block
    panel_bytes = n_blocks * format.panel_block
    panels = -(-LARGE // panel_bytes) // 4 * 4 + 4
    blocks = random_blocks(format, rows * n_blocks)
    memory = untouched(panels * panel_bytes)
    packed = format.pack(blocks.reshape(rows, -1)).reshape(-1)
    memory[len(memory) - len(packed) :] = packed
    return memory, panels, blocks


@ALL
def test_a_matrix(format: Format, isa: Isa) -> None:
    columns, rows = 4096, 4 * PANEL
    memory, panels, blocks = far_matrix(format, columns, rows)
    many = 8 * tile_widths(isa.lanes)[0] + 3
    x = np.random.default_rng(1).standard_normal((many, columns)).astype(np.float32)
    want = twins.matmul(x, blocks, format, rows)
    # One row, which takes two panels side by side, some rows, and a prompt that keeps what it unpacks.
    for n, chunk, prompt_columns in (1, 4, 0), (5, 1, 0), (many, 2, 1024):
        y = untouched(n * panels * PANEL * 4).view(np.float32).reshape(n, -1)
        call_last(
            isa, Kernel("seventy.kernels.matmul:build", (format.name,)), matmul.ARGUMENTS, (panels - 4) // chunk,
            rows=count(n), panels=memory, n_panels=panels, blocks=columns // format.block, chunk=chunk, output=y,
            output_stride=y.strides[0], capacity=n, input=twins.activations(x[:n], format.activation, n, isa),
            prompt_columns=prompt_columns,
        )  # fmt: skip
        got = y[:, -rows:]
        assert (np.abs(got - want[:n]) <= 2e-6 * np.abs(want[:n]).max(-1, keepdims=True)).all()
        assert not y[:, -rows - PANEL : -rows].any()


@ALL
def test_the_last_token_of_an_embedding(format: Format, isa: Isa) -> None:
    columns, rows = 4096, PANEL
    memory, panels, blocks = far_matrix(format, columns, rows)
    tokens = (panels * PANEL - 1 - np.array([0, 5, 15, 16, (panels - 2) * PANEL])).astype(np.int32)
    out = np.full((len(tokens), columns), 7, np.float32)
    call(
        isa, Kernel("seventy.kernels.embedding:build", (format.name,)), embedding.ARGUMENTS, threads=2,
        rows=count(len(tokens)), panels=memory, blocks=columns // format.block, tokens=tokens, output=out,
        output_stride=out.strides[0],
    )  # fmt: skip
    want = format.dequantize(blocks).reshape(rows, columns)
    np.testing.assert_allclose(out[:3], want[[15, 10, 0]], rtol=1e-6, atol=1e-6)
    # The others are of zero bytes, as those that were never written.
    nothing = format.dequantize(np.zeros_like(blocks[: columns // format.block])).reshape(-1)
    assert np.array_equal(out[3:], np.tile(nothing, (2, 1)))


def test_weights_behind_a_large_tensor(tmp_path: Path) -> None:
    """They are read from their place in the file, and packed to their place in memory."""
    if total_bytes() < LARGE:
        pytest.skip("the system promises no mapping of 6 GiB: it has less memory")
    format, columns, rows = by_name("Q4_K"), 1024, 40
    large_rows = LARGE // format.row_bytes(columns)
    blocks = random_blocks(format, rows * columns // format.block).reshape(rows, -1)
    entries = [("large", large_rows, 0), ("small", rows, large_rows * format.row_bytes(columns))]
    head = gguf_writer.header(len(entries), 0) + b"".join(
        gguf_writer.tensor_entry(name, (columns, n), format.type_id, offset) for name, n, offset in entries
    )
    head += bytes(-len(head) % gguf_writer.ALIGNMENT)
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + entries[1][2])
        file.write(blocks.tobytes())
    assert path.stat().st_size > LARGE and path.stat().st_blocks * 512 < 1 << 20
    with GGUF(path) as source:
        weights = Weights(source)
        matrix = weights.matrix("small", rows, columns)
        weights.load(library(supported()[-1]), threads=2)
        place = matrix.address - weights.memory.ctypes.data
        assert place > LARGE - (1 << 20)
        got = weights.memory[place : place + matrix.packed_bytes].copy()
    assert np.array_equal(got, format.pack(blocks).reshape(-1))


class Cache:
    """A layer's cache of 6 GiB with two KV heads, and a table of 131,072 positions over a few pages all over it."""

    kv_heads, group, head_dim = 2, 3, 128
    scale = 128**-0.5

    def __init__(self, kind: str) -> None:
        rng = np.random.default_rng(2)
        self.kind, self.layout = kind, Layout(kind, self.head_dim, self.head_dim)
        self.n_pages = LARGE // self.kv_heads // self.layout.nbytes
        memory = untouched(self.kv_heads * self.n_pages * self.layout.nbytes)
        self.memory = memory.reshape(self.kv_heads, self.n_pages, self.layout.nbytes)
        self.used = np.unique(np.append(rng.integers(0, self.n_pages, 30), [0, self.n_pages - 1]))
        self.table = rng.choice(self.used[:-1], 131_072 // PAGE).astype(np.int32)
        # The last page is that of the last positions only.
        self.table[-1] = self.n_pages - 1
        for head in range(self.kv_heads):
            for page in self.used:
                self.memory[head, page] = twins.pack_page(*rng.standard_normal((2, PAGE, self.head_dim)), kind)

    def attention(self, queries: np.ndarray, positions: np.ndarray, isa: Isa, threads: int) -> np.ndarray:
        out, n = np.zeros_like(queries), len(positions)
        scratch = np.zeros(attention.scratch_bytes(self.kv_heads, self.group, self.head_dim), np.uint8)
        call(
            isa,
            Kernel("seventy.kernels.attention:build", (self.kv_heads, self.group, *[self.head_dim] * 2, self.kind)),
            attention.ARGUMENTS, threads=threads, rows=count(n), positions=positions, segments=np.zeros(n, np.int32),
            tables=self.table, table_stride=self.table.nbytes, queries=queries, query_stride=queries.strides[0],
            cache=self.memory, n_pages=self.n_pages, scales=np.array([self.scale], np.float32), scale_span=1 << 20,
            output=out, output_stride=out.strides[0], scratch=scratch,
        )  # fmt: skip
        return out

    def twin(self, queries: np.ndarray, position: int) -> np.ndarray:
        """tests.support.twins.attention for a table that names the same pages again and again."""
        which = np.searchsorted(self.used, self.table[: position // PAGE + 1])
        out = np.empty(queries.shape)
        for head, query in enumerate(queries):
            unpacked = [twins.unpack_page(self.memory[head // self.group, page], self.layout) for page in self.used]
            keys, values = (np.stack([page[i] for page in unpacked]) for i in (0, 1))
            scores = (keys @ query * self.scale)[which]
            scores.reshape(-1)[position + 1 :] = -np.inf
            weights = np.exp(scores - scores.max())
            shares = np.zeros((len(self.used), PAGE))
            np.add.at(shares, which, weights / weights.sum())
            out[head] = np.einsum("pt,ptd->d", shares, values)
        return out


def test_its_twin() -> None:
    cache = Cache("f16")
    queries = np.random.default_rng(4).standard_normal((6, cache.head_dim))
    for position in (0, 31, 1000):
        want = twins.attention(queries, cache.memory, cache.table, position, cache.scale, cache.layout)
        np.testing.assert_allclose(cache.twin(queries, position), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_over_131072_positions(kind: str, isa: Isa) -> None:
    cache, rng = Cache(kind), np.random.default_rng(3)
    # Rows of a prompt that go over a page together, and one in the middle.
    positions = np.array([*range(131_032, 131_072), 70_000], np.int32)
    queries = rng.standard_normal((len(positions), 6, cache.head_dim)).astype(np.float32) * 3
    together = cache.attention(queries, positions, isa, threads=2)
    for row in (0, 39, 40):
        want = cache.twin(queries[row], int(positions[row]))
        np.testing.assert_allclose(together[row], want, rtol=2e-5, atol=1e-5)
        # Alone, in parts that threads share.
        alone = cache.attention(queries[row : row + 1].copy(), positions[row : row + 1].copy(), isa, threads=2)
        assert np.array_equal(alone[0], together[row])


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_are_written_to_the_last_page(kind: str, isa: Isa) -> None:
    cache, rng = Cache(kind), np.random.default_rng(5)
    rotary = Rotary(cache.head_dim, 10000.0, interleaved=False)
    turns = rotary.tables(131_072)
    keys, values = rng.standard_normal((2, 1, cache.kv_heads, cache.head_dim)).astype(np.float32)

    def write(memory: np.ndarray, table: np.ndarray) -> None:
        queries = np.zeros((1, cache.kv_heads * cache.group, cache.head_dim), np.float32)
        parameters = (cache.kv_heads, cache.group, cache.head_dim, cache.head_dim, False, False, kind)
        call(
            isa, Kernel("seventy.kernels.rope:build", parameters), rope.ARGUMENTS, rows=count(1),
            positions=np.array([131_071], np.int32), segments=np.zeros(1, np.int32), tables=table,
            table_stride=table.nbytes, coarse=turns.coarse, fine=turns.fine, queries=queries,
            query_stride=queries.strides[0], keys=keys.copy(), key_stride=keys.strides[0], values=values.copy(),
            value_stride=values.strides[0], cache=memory, n_pages=memory.shape[1],
            epsilon=np.array([1e-6], np.float32),
        )  # fmt: skip

    one_page = cache.memory[:, -1:].copy()
    write(one_page, np.zeros_like(cache.table))
    write(cache.memory, cache.table)
    assert np.array_equal(cache.memory[:, -1:], one_page)
    wanted = twins.spread(twins.rotate(keys[0], 131_071 * rotary.frequencies(None), 1.0, False), cache.layout)
    for head in range(cache.kv_heads):
        got = twins.unpack_page(one_page[head, 0], cache.layout)
        for numbers, want in zip(got, (wanted[head], values[0, head]), strict=True):
            np.testing.assert_allclose(numbers[-1], want, rtol=1e-3, atol=np.abs(want).max() / 254 * 1.02)
