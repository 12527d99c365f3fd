"""Writes a catalogue model's exact shapes with random weights as a GGUF file, which llama.cpp can load, too.

usage: python benchmarks/write_shapes.py MODEL QUANT LAYERS FILE.gguf [mtp]   (qwen3-30b-a3b Q4_K_M 4 /tmp/a3b.gguf)
With mtp, a block of multi-token prediction follows the layers, and tokens are numbers, for benchmarks/drafts.py.
Needs gguf (the test extra). The file has a vocabulary's size and no vocabulary: it can be timed, not talked to.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.shapes import write_whole

from seventy.bench.quants import quant_name
from seventy.bench.synthetic import Synthetic, choose_layers, find_shape


def main(name: str, quant: str, layers: int, path: Path, mtp: bool) -> None:
    shape, quant = find_shape(name), quant_name(quant)
    write_whole(path, Synthetic(shape, quant, choose_layers(shape, quant, layers), mtp), tokens=mtp)


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6) or sys.argv[5:] not in ([], ["mtp"]):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), len(sys.argv) == 6)
