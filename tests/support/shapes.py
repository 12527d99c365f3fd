"""A catalogue model's exact shapes as a GGUF file that takes no disk: a header, and a hole as long as the tensors."""

import os
from pathlib import Path

import numpy as np

import gguf
from seventy.bench.synthetic import Synthetic, find_shape


def write_header(path: Path, source: Synthetic, **texts: str) -> gguf.GGUFWriter:
    """A file that ends before its tensors; metadata as its family's files have them, no vocabulary but its size."""
    writer = gguf.GGUFWriter(str(path), source.shape.architecture)
    for key, value in texts.items():
        writer.add_string(f"general.{key}", value)
    for key, value in source.metadata.items():
        if key != "general.architecture":
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    writer.add_tokenizer_model("no_vocab")
    for info in source.tensors.values():
        kind = gguf.GGMLQuantizationType(info.type)
        # With bytes as its type the shape would be taken as bytes, too.
        writer.add_tensor_info(info.name, info.shape, np.dtype(np.float32), info.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def write_sparse(path: Path, name: str, quant: str) -> Path:
    """The whole model, all layers, of zeros that take no room on the disk."""
    shape = find_shape(name)
    source = Synthetic(shape, quant)
    write_header(path, source, name=shape.name).close()
    end = -(-path.stat().st_size // 32) * 32
    os.truncate(path, end + sum(-(-info.nbytes // 32) * 32 for info in source.tensors.values()))
    return path
