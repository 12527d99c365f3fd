"""Where the time of a prompt goes: a step's operations, each run by itself.

usage: python benchmarks/operations.py FILE.gguf [--rows N] [--at N] [--repeats N] [--threads N] [--isa LEVEL]

Rows of random tokens of one text, of which `--at` are known already. Operations that are alike are summed; medians over
the repeats, and GOPS (two a multiply-add) of matrices. A step as a whole takes less: neighbours run at once.
"""

import argparse
import statistics
import time
from collections import defaultdict

import numpy as np

from seventy.cache.prefix import Sequence
from seventy.engine.model import Model, Segment
from seventy.formats import PANEL, by_name
from seventy.jit.compiler import Kernel
from seventy.kernels import run
from seventy.machine import topology
from seventy.runtime import runtime
from seventy.runtime.threads import Executor, Linked


def read(model: Model, sequence: Sequence, rows: int, outputs: int) -> float:
    """Seconds of a step of so many rows, which is committed."""
    tokens = np.random.default_rng(0).integers(0, model.config.vocabulary, rows).tolist()
    sequence.reserve(sequence.length + rows)
    start = time.perf_counter()
    model.step([Segment(sequence.length, tokens, outputs, sequence.pages, sequence.states)])
    seconds = time.perf_counter() - start
    sequence.commit(tokens)
    return seconds


def operation_seconds(executor: Executor, programs: list[Linked]) -> list[float]:
    """Of each operation, on the rows of the last step."""
    found = []
    for program in programs:
        start = time.perf_counter()
        executor.run(program)
        found.append(time.perf_counter() - start)
    return found


def work(model: Model, kernel: Kernel, given: dict[str, int], rows: int) -> tuple[str, float]:
    """An operation's name, and 1e9 operations of its matrix: of the head, one row wants it."""
    name, program = kernel.builder.removeprefix("seventy.kernels.").removesuffix(":build"), model.program
    if "n_panels" not in given or ("bias" not in given and "heads" not in given):
        return f"{name} {' '.join(map(str, kernel.parameters))}", 0.0
    height, columns = given["n_panels"] * PANEL, given["blocks"] * by_name(kernel.parameters[0]).block
    of_slots, heads = "active" in given, given.get("heads", 1)
    used = program.slots_per_row if of_slots else heads
    is_head = not of_slots and given["rows"] == program.counts.ctypes.data + 8
    name += f" {kernel.parameters[0]} {height} x {columns}"
    return name, 2e-9 * height * columns * (1 if is_head else rows * used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--isa", help="an ISA level below the CPU's best")
    given = parser.parse_args()
    with Model(given.file, given.threads, given.at + given.rows, isa_name=given.isa) as model, model.lead():
        rows, table = min(given.rows, model.max_rows), model.program.link(model.library).operations
        table[:, 2] = 0
        programs = [Linked(table[i : i + 1], np.zeros(run.COUNTER_BYTES // 8, np.int64)) for i in range(len(table))]
        executor = runtime.shared.executor(model.library, topology.read().cpus_for(model.threads_for(rows)))
        seconds, steps = [], []
        for _ in range(given.repeats + 1):
            sequence = model.new_sequence()
            while sequence.length < given.at:
                read(model, sequence, min(model.max_rows, given.at - sequence.length), 0)
            steps.append(read(model, sequence, rows, 1))
            seconds.append(operation_seconds(executor, programs))
            sequence.close()
            model.cache.forget()
        executor.close()
        named = zip(model.program.kernels(), model.program.arguments(), strict=True)
        each = [work(model, kernel, arguments, rows) for kernel, arguments in named]
        totals: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        for i, (name, operations) in enumerate(each):
            count, taken, done = totals[name]
            totals[name] = [count + 1, taken + statistics.median(s[i] for s in seconds[1:]), done + operations]
        step, whole = statistics.median(steps[1:]), sum(taken for _, taken, _ in totals.values())
        print(f"{rows} rows at {given.at}: {step * 1e3:.1f} ms a step, {rows / step:.1f} tok/s; operations one by one "
              f"{whole * 1e3:.1f} ms; {model.program.step_experts():.0f} experts a layer")  # fmt: skip
        for name, (count, taken, done) in sorted(totals.items(), key=lambda item: -item[1][1]):
            speed = f"{done / taken:7.0f} GOPS" if done else " " * 12
            print(f"{taken * 1e3:9.2f} ms {taken / whole:6.1%} {count:3.0f} x{speed}  {name}")


if __name__ == "__main__":
    main()
