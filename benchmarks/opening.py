"""What opening a model file costs before anything of it is loaded: seconds and peak memory, each in a fresh process.

usage: python benchmarks/opening.py MODEL.gguf ...
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 7
MEASURED = """
import sys, time
from seventy.gguf.file import GGUF
from seventy.machine.memory import peak_rss_bytes
from seventy.text.tokenizer import Tokenizer
memory, began = peak_rss_bytes(), time.perf_counter()
with GGUF(sys.argv[1]) as gguf:
    print(time.perf_counter() - began, (peak_rss_bytes() - memory) / 1e6)
    Tokenizer.from_metadata(gguf.metadata)
print(time.perf_counter() - began, (peak_rss_bytes() - memory) / 1e6)
"""


def main(paths: list[str]) -> None:
    for path in paths:
        reader, tokenizer, info = [], [], []
        for _ in range(ROUNDS):
            run = subprocess.run([sys.executable, "-c", MEASURED, path], check=True, capture_output=True, text=True)
            first, second = (tuple(map(float, line.split())) for line in run.stdout.splitlines())
            reader.append(first)
            tokenizer.append(second)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "seventy", "models", "info", path], check=True, capture_output=True)
            info.append((time.perf_counter() - began,))
        print(path)
        for name, rows in (("reader", reader), ("and tokenizer", tokenizer), ("seventy models info, whole", info)):
            figures = [statistics.median(column) for column in zip(*rows, strict=True)]
            memory = f", peak {figures[1]:.0f} MB more" if len(figures) > 1 else ""
            print(f"  {name}: {figures[0]:.2f} s (best {min(rows)[0]:.2f}){memory}")


if __name__ == "__main__":
    main(sys.argv[1:])
