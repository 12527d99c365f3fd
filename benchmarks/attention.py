"""How fast attention reads its cache, beside what memory gives, and multiplies, beside what the CPU can.

usage: python benchmarks/attention.py [--isa LEVEL] [--threads N] [--positions N] [KV_HEADSxGROUPxHEAD_DIM ...]

`one row` is one new token of each of several sequences, other ones in each pass, so that no CPU cache holds what is
read: GB/s (1e9) of keys and values, and GFLOPS, two a multiply-add. What memory gives is read before every pass; the
share is the median of both beside each other. `prompt` is the last 256 rows of one sequence: GFLOPS. Medians; run it on
a quiet machine.
"""

import argparse
import statistics

import numpy as np

from seventy.jit import isa
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import attention
from seventy.kernels.pages import KINDS, PAGE, Layout
from seventy.machine import pinned, topology
from seventy.machine.memory import allocate
from seventy.measure import rates

SHAPES = ("8x8x128", "8x4x128", "2x7x64", "3x3x64")
PASSES = 15
PROMPT_ROWS = 256
CACHE_BYTES = 512 << 20


def rounds(library: Library, shape: tuple[int, int, int], kind: str, cpus: list[int], positions: np.ndarray,
           tables: np.ndarray, cache: np.ndarray, n_pages: int) -> list[tuple[float, float]]:  # fmt: skip
    """Of each pass what memory gave before it, and its seconds.

    `tables`, [sets, sequences, pages], are taken by turns; the rows are of one sequence, or each of one of its own.
    """
    kv_heads, group, head_dim = shape
    queries = np.random.default_rng(0).standard_normal((len(positions), kv_heads * group * head_dim), np.float32)
    out, scale, count = np.zeros_like(queries), np.array([head_dim**-0.5], np.float32), np.array([len(positions)])
    segments = np.arange(len(positions), dtype=np.int32) % tables.shape[1]
    scratch = np.zeros(attention.scratch_bytes(*shape), np.uint8)
    words = {
        "rows": count.ctypes.data, "positions": positions.ctypes.data, "segments": segments.ctypes.data,
        "tables": 0, "table_stride": tables.strides[1], "output_stride": out.strides[0],
        "queries": queries.ctypes.data, "query_stride": queries.strides[0], "cache": cache.ctypes.data,
        "n_pages": n_pages, "scale": scale.ctypes.data, "output": out.ctypes.data, "scratch": scratch.ctypes.data,
    }  # fmt: skip
    arguments = np.array([words[name] for name in attention.ARGUMENTS], np.int64)
    function = library.address(Kernel("seventy.kernels.attention:build", (*shape, head_dim, kind)))
    found = []
    for i in range(PASSES):
        arguments[attention.ARGUMENTS.index("tables")] = tables[i % len(tables)].ctypes.data
        limit, counter = rates.read_now(library, rates.Area(cache, cpus)), np.zeros(8, np.int64)
        found.append((limit, pinned.run(function, [pinned.Call(cpu, arguments, counter) for cpu in cpus])))
    assert np.isfinite(out).all()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", help="an ISA level below the CPU's best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    given = parser.parse_args()
    library = Library(isa.select(given.isa))
    cpus = topology.physical_cores()[: given.threads]
    peak = rates.float_peak(library, cpus)
    print(f"{library.isa.name}, {len(cpus)} threads, {given.positions} positions, floats {peak:.0f} GFLOPS at most")
    print("heads      cache   one row  memory  share  GFLOPS   prompt")
    for name in given.shapes:
        kv_heads, group, head_dim = shape = tuple(map(int, name.split("x")))
        for kind in KINDS:
            layout = Layout(kind, head_dim, head_dim)
            each = -(-given.positions // PAGE)
            # As many sequences in a pass as threads still share each one's past of.
            rows = max(1, attention.SHARED // kv_heads)
            nbytes = rows * kv_heads * each * layout.nbytes
            sets = -(-CACHE_BYTES // nbytes)
            cache = allocate(sets * nbytes)
            # Halves of 1, and as q8_0 small numbers and factors.
            cache.view(np.uint16)[:] = 0x3C00 if kind == "f16" else 0x0101
            n_pages = each * rows * sets
            pages = np.arange(n_pages, dtype=np.int32).reshape(sets, rows, each)
            last = np.full(rows, given.positions - 1, np.int32)
            one = rounds(library, shape, kind, cpus, last, pages, cache, n_pages)
            limit, took = (statistics.median(column) for column in zip(*one, strict=True))
            share = statistics.median(nbytes / seconds / 1e9 / gave for gave, seconds in one)
            gbs = nbytes / took / 1e9
            gflops = 4 * rows * kv_heads * group * head_dim * given.positions / took / 1e9
            prompt = np.arange(given.positions - PROMPT_ROWS, given.positions, dtype=np.int32)
            whole = statistics.median(
                seconds for _, seconds in rounds(library, shape, kind, cpus, prompt, pages[:1, :1], cache, n_pages)
            )
            multiplied = 4 * kv_heads * group * head_dim * (prompt.sum(dtype=np.int64) + PROMPT_ROWS) / whole / 1e9
            print(
                f"{name:10} {kind:5} {gbs:8.1f} {limit:7.1f} {share:6.0%} {gflops:7.0f} {multiplied:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
