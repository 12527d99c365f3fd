"""A model too large for this machine, from its parts: each kind of layer and the head alone, ours and llama.cpp's.

usage: python benchmarks/layers.py MODEL QUANT PYTHON [REPEATS]   (gemma-4-26b-a4b Q4_K_M /tmp/llama/bin/python)

Three files with random weights: three layers of the common kind and one of the rare one beside a small vocabulary, one
layer of each (llama.cpp ends where a kind has none), and these beside the true vocabulary. Both engines read them by
turns (`seventy bench --against`); what a layer of each kind and the head take are differences of medians, and the whole
model's time is their sum, each layer as often as there are layers of its kind. Needs gguf (the test extra) and 2 GB in
TMPDIR.
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

# Of the vocabulary, so many tokens beside layers: next to nothing.
SMALL = 512
TASKS = ["--prefill", "512", "--users", "4", "--decode-at", "0", "--tokens", "16"]
Times = dict[str, tuple[float, float]]


def kinds(shape: Shape, quant: str) -> list[list[int]]:
    """The layers of each kind."""
    whole, found = shape.whole(quant), {}
    for layer in range(shape.layers):
        found.setdefault(whole.kind(layer), []).append(layer)
    return list(found.values())


def part(shape: Shape, quant: str, layers: Sequence[int], vocabulary: int | None) -> Synthetic:
    """These layers, of which the last is of the rare kind, and a vocabulary."""
    prefix = f"{shape.architecture}."
    changed = {f"{prefix}vocab_size": vocabulary} if vocabulary else {}
    if f"{prefix}full_attention_interval" in shape.metadata:
        changed[f"{prefix}full_attention_interval"] = len(layers)
        # llama.cpp wants them, for images.
        changed[f"{prefix}rope.dimension_sections"] = (11, 11, 10, 0)
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
    common, rare = sorted(kinds(shape, quant), key=len, reverse=True)
    some, one = _by_size(shape.whole(quant), common, 3), common[len(common) // 2]
    many = measure(part(shape, quant, [*some, rare[0]], SMALL), python, repeats)
    few = measure(part(shape, quant, [one, rare[0]], SMALL), python, repeats)
    with_head = measure(part(shape, quant, [one, rare[0]], None), python, repeats)
    total = {}
    for task in few:
        layer = [(many[task][side] - few[task][side]) / 2 for side in (0, 1)]
        other = [few[task][side] - layer[side] for side in (0, 1)]
        head = [with_head[task][side] - few[task][side] for side in (0, 1)]
        parts = (("common layers", len(common), layer), ("rare layers", len(rare), other), ("head", 1, head))
        for what, count, (ours, theirs) in parts:
            print(f"{task:8} {count:3} {what:14} {1e3 * ours:9.3f} {1e3 * theirs:9.3f} ms {theirs / ours:6.2f}")
        total[task] = [sum(count * times[side] for _, count, times in parts) for side in (0, 1)]
    for task, tokens in (("prefill", 512), ("decode", 1), ("batch", 4)):
        ours, theirs = total[task]
        print(f"{name} {task}: {tokens / ours:.2f} / {tokens / theirs:.2f} tok/s, {theirs / ours:.2f}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:4], *(int(text) for text in sys.argv[4:]))
