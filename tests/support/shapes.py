"""A catalogue model's exact shapes as a GGUF file that takes no disk: a header, and a hole as long as the tensors."""

import os
from pathlib import Path

import numpy as np

import gguf
from seventy.bench.synthetic import Synthetic, find_shape


def write_sparse(path: Path, name: str, quant: str) -> Path:
    """The whole model, all layers; metadata as its family's files have them, no vocabulary but its size."""
    shape = find_shape(name)
    source = Synthetic(shape, quant)
    writer = gguf.GGUFWriter(str(path), shape.architecture)
    writer.add_name(shape.name)
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
    writer.close()
    end = -(-path.stat().st_size // 32) * 32
    os.truncate(path, end + sum(-(-info.nbytes // 32) * 32 for info in source.tensors.values()))
    return path
