"""How right the engine is: KL divergence and top-1 agreement with llama.cpp and with a float32 run of the same weights.

usage: python benchmarks/correctness.py MODEL.gguf [FILE ...]    the files' texts, else the tests' three
Needs cyllama (the oracle extra). llama.cpp is also compared with itself, with and without flash attention.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.oracle import TEXTS, divergence, float32_logits, llama_cpp_logits

from seventy import LLM
from seventy.jit.isa import supported

CHUNK = 512


def main(path: Path, files: list[Path]) -> None:
    texts = [file.read_text() for file in files] or list(TEXTS.values())
    with LLM(path) as llm:
        ids = [token for text in texts for token in llm.tokenize(text)]
    chunks = [ids[first : first + CHUNK] for first in range(0, len(ids), CHUNK)]
    flash, plain, exact = (
        np.concatenate([run(chunk) for chunk in chunks])
        for run in (
            lambda chunk: llama_cpp_logits(path, chunk, True),
            lambda chunk: llama_cpp_logits(path, chunk, False),
            lambda chunk: float32_logits(path, chunk),
        )
    )
    print(f"{path.name}, {len(ids)} tokens")
    print(f"{'':24} {'KL':>9} {'top-1':>7}")

    def row(name: str, a: np.ndarray, b: np.ndarray) -> None:
        kl, top1 = divergence(a, b)
        print(f"{name:24} {kl:9.2e} {top1:7.4f}")

    row("llama.cpp, itself", flash, plain)
    row("float32, llama.cpp flash", exact, flash)
    row("float32, llama.cpp plain", exact, plain)
    for level in supported():
        with LLM(path, isa=level.name) as llm:
            ours = np.concatenate([llm.logits(chunk) for chunk in chunks])
        row(f"llama.cpp, {level.name}", flash, ours)
        row(f"float32, {level.name}", exact, ours)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
