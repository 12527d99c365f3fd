"""What llvm-mca makes of a matrix product's inner loop on a CPU that is not at hand: computed, not measured.

usage: python benchmarks/machine_code.py CPU LEVEL FORMAT ...    as in: broadwell avx2 Q4_K Q6_K
Prints the cycles of a block in the tiles of a prompt, with what unpacking it once costs each of them (128 rows), and
the operations a cycle. All loads are taken to hit the L1. Needs llvm-mca in the PATH.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

from llvmlite import binding

from seventy.formats import PANEL, by_name
from seventy.jit import compiler
from seventy.jit.isa import LEVELS
from seventy.kernels.abi import tile_widths

ROWS, ROUNDS = 128, 200


def loops(assembly: str, function: str) -> Iterator[list[str]]:
    """Every innermost loop of a function, as instructions."""
    body = assembly.split(f"\n{function}:")[1].split(".Lfunc_end")[0].splitlines()
    lines = [line.split("#")[0].strip() for line in body]
    labels = {line[:-1]: at for at, line in enumerate(lines) if line.endswith(":")}
    for end, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.\w+)$", line)
        if jump and labels.get(jump[1], end) < end:
            inside = lines[labels[jump[1]] : end + 1]
            code = [each for each in inside if each and not each.startswith(".") and not each.endswith(":")]
            if sum(each.startswith("j") for each in code) == 1:
                yield code


def cycles(code: list[str], cpu: str) -> float:
    """Cycles of one turn of the loop."""
    # Where it goes next says nothing of how long a turn takes.
    text = "\n".join(each for each in code if not each.startswith("j")) + "\n"
    command = ["llvm-mca", "-mtriple=x86_64", f"-mcpu={cpu}", f"-iterations={ROUNDS}", "-all-stats=false"]
    out = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Total Cycles:\s+(\d+)", out)
    assert found is not None, out
    return int(found[1]) / ROUNDS


def main(cpu: str, level: str, formats: list[str]) -> None:
    # Kernels are tuned for the CPU they run on.
    binding.get_host_cpu_name = lambda: cpu
    isa = LEVELS[level]
    widest = tile_widths(isa.lanes)[0]
    for name in formats:
        format = by_name(name)
        assembly = compiler.compile_assembly(compiler.Kernel("seventy.kernels.matmul:build", (name,)), isa)
        operations = 2 * PANEL * format.block
        for function in (f"kept{widest}", f"tile{widest}", "tile1"):
            if f"\n{function}:" not in assembly:
                continue
            code = max(loops(assembly, function), key=len)
            width = int(function[4:])
            each = cycles(code, cpu)
            line = f"{name:6} {function}  {len(code):4} instructions {each:7.1f} cycles a block"
            if function.startswith("kept"):
                unpack = cycles(max(loops(assembly, "keep"), key=len), cpu)
                each += unpack * width / ROWS
                line += f", {unpack:.1f} to unpack it"
            print(f"{line}: {operations * width / each:.1f} operations a cycle")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
