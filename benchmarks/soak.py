"""Requests without end at a server: each answer is the one it gets alone, and memory stays what it was within 2 %.

usage: python benchmarks/soak.py MODEL [REQUESTS]   (qwen35moe 1000, lfm2moe, gemma4, a file.gguf)

MODEL is a file, or one of tests/support/families, of which a file of a few hundred kilobytes is written. One request in
four is cut off before its answer, one after its first bytes. As tests/server/test_soak.py, which does it with
a small Llama. Needs gguf (the test extra).
"""

import importlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.soak import leave_nothing_behind

# Of Gemma 4 the small ones: shared keys and values, and embeddings of each layer.
CORNERS = {"gemma4": "E2B"}


def main(model: str, requests: int = 1000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(model)
        if not path.exists():
            family = importlib.import_module(f"tests.support.families.{model}")
            path = family.write(Path(folder) / f"{model}.gguf", **family.CASES[CORNERS.get(model, "plain")])
        print(f"{model}: {leave_nothing_behind(path, Path(folder) / 'server.log', requests)}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *(int(text) for text in sys.argv[2:]))
