"""How fast latent attention multiplies, beside what the CPU can.

usage: python benchmarks/latent.py [--isa LEVEL] [--threads N] [--positions N] [HEADS ...]

Keys have 576 elements, values are their first 512. `one row` is one new token, other pages in each pass, so that no CPU
cache holds what is read; `prompt` is the last 64 rows of a sequence. GFLOPS, two a multiply-add; the share is of the
float peak measured before each pass. Medians; run it on a quiet machine.
"""

import argparse
import statistics

import numpy as np

from seventy.jit import isa
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import latent
from seventy.kernels.pages import KINDS, PAGE, LatentLayout
from seventy.machine import pinned, topology
from seventy.machine.memory import allocate
from seventy.measure import rates

DIM, VALUE_DIM = 576, 512
HEADS = (16, 20, 64, 128)
PASSES, PROMPT_ROWS = 9, 64
CACHE_BYTES = 512 << 20


def rounds(library: Library, heads: int, kind: str, cpus: list[int], positions: np.ndarray, tables: np.ndarray,
           cache: np.ndarray) -> list[tuple[float, float]]:  # fmt: skip
    """Of each pass its GFLOPS and the peak before it; `tables`, [sets, pages], are taken by turns."""
    n = len(positions)
    queries = np.random.default_rng(0).standard_normal((n, heads * DIM), np.float32)
    out, scales, count = np.zeros((n, heads * VALUE_DIM), np.float32), np.array([DIM**-0.5], np.float32), np.array([n])
    segments, scratch = np.zeros(n, np.int32), np.zeros(latent.scratch_bytes(heads, VALUE_DIM), np.uint8)
    words = {
        "rows": count.ctypes.data, "positions": positions.ctypes.data, "segments": segments.ctypes.data, "tables": 0,
        "table_stride": tables.strides[0], "queries": queries.ctypes.data, "query_stride": queries.strides[0],
        "cache": cache.ctypes.data, "scales": scales.ctypes.data, "scale_span": 1 << 30, "output": out.ctypes.data,
        "output_stride": out.strides[0], "scratch": scratch.ctypes.data,
    }  # fmt: skip
    arguments = np.array([words[name] for name in latent.ARGUMENTS], np.int64)
    function = library.address(Kernel("seventy.kernels.latent:build", (heads, DIM, VALUE_DIM, kind)))
    operations = 2 * heads * (DIM + VALUE_DIM) * (positions.sum(dtype=np.int64) + n)
    found = []
    for i in range(PASSES):
        arguments[latent.ARGUMENTS.index("tables")] = tables[i % len(tables)].ctypes.data
        peak, counter = rates.float_peak(library, cpus, 0.1), np.zeros(8, np.int64)
        seconds = pinned.run(function, [pinned.Call(cpu, arguments, counter) for cpu in cpus])
        found.append((operations / seconds / 1e9, peak))
    assert np.isfinite(out).all()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", help="an ISA level below the CPU's best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("heads", nargs="*", type=int, default=HEADS)
    given = parser.parse_args()
    library = Library(isa.select(given.isa))
    cpus = topology.physical_cores()[: given.threads]
    print(f"{library.isa.name}, {len(cpus)} threads, {given.positions} positions")
    print("heads cache   one row  share   prompt  share")
    for heads in given.heads:
        for kind in KINDS:
            layout, each = LatentLayout(kind, DIM), -(-given.positions // PAGE)
            sets = -(-CACHE_BYTES // (each * layout.nbytes))
            cache = allocate(sets * each * layout.nbytes)
            # Halves of 1, and as q8_0 small numbers and factors.
            cache.view(np.uint16)[:] = 0x3C00 if kind == "f16" else 0x0101
            pages = np.arange(sets * each, dtype=np.int32).reshape(sets, each)
            last = np.array([given.positions - 1], np.int32)
            prompt = np.arange(max(0, given.positions - PROMPT_ROWS), given.positions, dtype=np.int32)
            line = f"{heads:5} {kind:5}"
            for positions in (last, prompt):
                found = rounds(library, heads, kind, cpus, positions, pages, cache)
                speed = statistics.median(gflops for gflops, _ in found)
                share = statistics.median(gflops / peak for gflops, peak in found)
                line += f" {speed:8.0f} {share:6.0%}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
