"""A model too large for this machine, from its parts: each kind of layer and the head alone, ours and llama.cpp's.

usage: python benchmarks/layers.py MODEL QUANT PYTHON [REPEATS]   (gemma-4-26b-a4b Q4_K_M /tmp/llama/bin/python)

Each part is a file of its own with random weights: some layers of one kind beside a small vocabulary, and one layer
beside the true one. Both engines read it by turns (`seventy bench --against`); the whole model's time is the sum of the
parts' medians, each layer as often as there are layers of its kind. Needs gguf (the test extra) and 2 GB in TMPDIR.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.shapes import write_whole

from seventy.bench.quants import quant_name
from seventy.bench.synthetic import Shape, Synthetic, _by_size, find_shape

# Of the vocabulary, so many tokens beside layers: next to nothing. A part has so many layers.
SMALL, LAYERS = 512, 3
TASKS = ["--prefill", "512", "--users", "4", "--decode-at", "0", "--tokens", "16"]
ENGINES = ("seventy", "llama.cpp")
Times = dict[str, tuple[float, float]]


def kinds(shape: Shape, quant: str) -> list[list[int]]:
    """The layers of each kind."""
    whole, found = shape.whole(quant), {}
    for layer in range(shape.layers):
        found.setdefault(whole.kind(layer), []).append(layer)
    return list(found.values())


def part(shape: Shape, quant: str, layers: Sequence[int], vocabulary: int | None) -> Synthetic:
    """These layers, all of one kind, and a vocabulary; whatever rule says which layer is of which kind."""
    prefix = f"{shape.architecture}."
    changed = {f"{prefix}vocab_size": vocabulary} if vocabulary else {}
    period = shape.metadata.get(f"{prefix}full_attention_interval")
    if period:
        changed[f"{prefix}full_attention_interval"] = 1 if (layers[0] + 1) % period == 0 else shape.layers + 1
    alike = Shape(shape.name, {**shape.metadata, **changed}, shape._present, shape._of_layers)
    return Synthetic(alike, quant, layers)


def measure(source: Synthetic, python: str, repeats: int) -> Times:
    """Seconds of each task, ours and theirs: of a prompt, of a token, of a pass of four."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_whole(Path(folder) / "part.gguf", source)
        command = [sys.executable, "-m", "seventy", "bench", str(path), "--against", python, *TASKS]
        found = subprocess.run(
            [*command, "--repeats", str(repeats), "--json"], check=True, stdout=subprocess.PIPE, text=True
        )
    times = {}
    for result in json.loads(found.stdout)["results"]:
        per_second = result["tokens_per_second"]["median"], result["versus"]["tokens_per_second"]["median"]
        tokens = {"prefill": result["n"], "batch": result["n"], "decode": 1}[result["what"]]
        times[result["what"]] = tuple(tokens / each for each in per_second)
    return times


def main(name: str, quant: str, python: str, repeats: int = 3) -> None:
    shape, quant = find_shape(name), quant_name(quant)
    whole, total = shape.whole(quant), dict.fromkeys(("prefill", "decode", "batch"), (0.0, 0.0))
    first: Times = {}

    def show(what: str, times: Times, count: int) -> None:
        for task, (ours, theirs) in times.items():
            total[task] = total[task][0] + count * ours, total[task][1] + count * theirs
            print(f"{what:36} {count:3} x {task:8} {1e3 * ours:9.3f} {1e3 * theirs:9.3f} ms {theirs / ours:6.2f}", flush=True)

    groups = sorted(kinds(shape, quant), key=len, reverse=True)
    for layers in groups:
        some = _by_size(whole, layers, min(LAYERS, len(layers)))
        times = measure(part(shape, quant, some, SMALL), python, repeats)
        times = {task: (ours / len(some), theirs / len(some)) for task, (ours, theirs) in times.items()}
        first = first or times
        show(f"layers like {layers[0]} ({type(whole.caches[layers[0]]).__name__})", times, len(layers))
    head = measure(part(shape, quant, groups[0][:1], None), python, repeats)
    show("head", {task: (head[task][0] - first[task][0], head[task][1] - first[task][1]) for task in head}, 1)
    for task, tokens in (("prefill", 512), ("decode", 1), ("batch", 4)):
        ours, theirs = total[task]
        print(f"{name} {task}: {tokens / ours:.2f} / {tokens / theirs:.2f} tok/s, {theirs / ours:.2f}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:4], *(int(text) for text in sys.argv[4:]))
