"""How fast each format's product reads its weights, beside what this machine's memory gives.

usage: python benchmarks/formats.py [--isa LEVEL] [--threads N] [FORMAT ...]

The matrix is a 70B model's largest, 28672 x 8192, as many times over as no cache can hold; GB/s (1e9) count the
file's bytes. What memory gives is read before every pass of one row, for it moves; the share is the median of both
beside each other. Run it on a quiet machine. The column `cached` is one thread on a megabyte of weights, best of many
passes: what the kernel could do if memory could.
"""

import argparse
import statistics

import numpy as np

from seventy.formats import PANEL, Format, by_name, formats
from seventy.jit import isa
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import matmul
from seventy.kernels.activations import KINDS
from seventy.machine import pinned, topology
from seventy.machine.memory import allocate
from seventy.measure import rates

ROWS, COLUMNS = 28672, 8192
PASSES = 7


class Product:
    """A matrix in this format, with inputs and outputs for up to `capacity` rows."""

    def __init__(self, library: Library, format: Format, cpus: list[int], capacity: int, nbytes: int) -> None:
        self._function = library.address(Kernel("seventy.kernels.matmul:build", (format.name,)))
        self._cpus = cpus
        size = PANEL * format.row_bytes(COLUMNS)
        self.weights = rates.touched(max(1, nbytes // size) * size, cpus)
        # Numbers of ordinary size in any format, none of them denormal as a float.
        self.weights[:] = 0x40
        panels = len(self.weights) // size
        self.nbytes = panels * size
        self._inputs = allocate(KINDS[format.activation].nbytes(capacity, COLUMNS))
        self._outputs = allocate(4 * capacity * panels * PANEL)
        self._count = np.zeros(8, np.int64)
        blocks = COLUMNS // format.block
        words = {
            "rows": self._count.ctypes.data,
            "panels": self.weights.ctypes.data,
            "n_panels": panels,
            "blocks": blocks,
            # As long a claim as the engine's.
            "chunk": max(1, (1 << 20) // (blocks * format.panel_block)),
            "input": self._inputs.ctypes.data,
            "capacity": capacity,
            "output": self._outputs.ctypes.data,
            "output_stride": 4 * panels * PANEL,
            "prompt_columns": matmul.prompt_columns(library.isa.lanes)[0],
        }
        self._arguments = np.array([words.get(name, 0) for name in matmul.ARGUMENTS], np.int64)

    def seconds(self, rows: int, passes: int = PASSES) -> list[float]:
        """How long each of some passes took."""
        self._count[0] = rows
        times = []
        for _ in range(passes):
            counter = np.zeros(16, np.int64)
            calls = [pinned.Call(cpu, self._arguments, counter) for cpu in self._cpus]
            times.append(pinned.run(self._function, calls))
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", help="an ISA level below the CPU's best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("formats", nargs="*", help="names, as GGUF has them; all when none is given")
    given = parser.parse_args()
    library = Library(isa.select(given.isa))
    caches = 8 * topology.read().last_level_cache_bytes
    cpus = topology.physical_cores()[: given.threads]
    chosen = [by_name(name) for name in given.formats] or sorted(formats().values(), key=lambda f: f.nbytes / f.block)
    print(f"{library.isa.name}, {len(cpus)} threads, {ROWS} x {COLUMNS}; GB/s of file bytes, medians")
    print("format    bits   1 row  memory  share  cached  4 rows   64 rows")
    for format in chosen:
        small = Product(library, format, cpus[:1], 1, 1 << 20)
        cached = small.nbytes / min(small.seconds(1, 300)) / 1e9
        matrix = ROWS * format.row_bytes(COLUMNS)
        product = Product(library, format, cpus, 64, -(-max(caches, 512 << 20) // matrix) * matrix)
        area = rates.Area(product.weights[: 512 << 20], cpus)
        product.seconds(1, 1)
        rounds = [(rates.read_now(library, area), product.seconds(1, 1)[0]) for _ in range(2 * PASSES)]
        limit, one = (statistics.median(column) for column in zip(*rounds, strict=True))
        gbs = product.nbytes / one / 1e9
        share = statistics.median(product.nbytes / took / 1e9 / gave for gave, took in rounds)
        four, many = (statistics.median(product.seconds(rows)) for rows in (4, 64))
        gops = 2 * 64 * product.nbytes / format.nbytes * format.block / many / 1e9
        print(
            f"{format.name:8} {8 * format.nbytes / format.block:5.2f} {gbs:7.1f} {limit:7.1f} {share:6.0%} "
            f"{cached:7.1f} {four / one:6.2f}x {gops:4.0f} GOPS",
            flush=True,
        )


if __name__ == "__main__":
    main()
