"""Writes a copy of a model with another number of layers: a slower one of the same text, or a worse and faster one.

usage: python benchmarks/write_twin.py MODEL.gguf LAYERS FILE.gguf
Layers beyond the model's own add zeros, so that the text stays the same to the bit while every step reads more; with
fewer, those at the end are left out. So there is a pair of models for drafts where no such pair is at hand.
Needs gguf (the test extra). Models whose layers write by attn_output and ffn_down only, as Llama's and Qwen2's do.
"""

import re
import sys
from pathlib import Path

import numpy as np

import gguf


def layer_of(name: str) -> int | None:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else None


def write_twin(source: Path, layers: int, path: Path) -> Path:
    """Write the model at `source` with so many layers to `path`; its own beyond the last are copies that add zeros."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value = layers if field.name == f"{architecture}.block_count" else field.contents()
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], element)
    of_layer: dict[int | None, list[gguf.ReaderTensor]] = {}
    for tensor in reader.tensors:
        of_layer.setdefault(layer_of(tensor.name), []).append(tensor)
    own = max(layer for layer in of_layer if layer is not None) + 1
    for tensor in of_layer[None]:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for layer in range(layers):
        for tensor in of_layer[min(layer, own - 1)]:
            name = re.sub(r"\d+", str(layer), tensor.name, count=1)
            idle = layer >= own and re.search(r"attn_output|ffn_down", name)
            writer.add_tensor(name, np.zeros_like(tensor.data) if idle else tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    write_twin(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
