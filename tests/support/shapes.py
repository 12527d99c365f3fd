"""Shapes without weights: small ones of one's own, and a catalogue model's as a GGUF file that takes no disk."""

import os
from pathlib import Path
from typing import Any

import numpy as np

import gguf
from seventy.bench.synthetic import Shape, Synthetic, find_shape

_ADD = {
    bool: gguf.GGUFWriter.add_bool, int: gguf.GGUFWriter.add_uint32, float: gguf.GGUFWriter.add_float32,
    str: gguf.GGUFWriter.add_string, list: gguf.GGUFWriter.add_array, tuple: gguf.GGUFWriter.add_array,
}  # fmt: skip


def small(
    architecture: str = "llama", layers: int = 8, hidden: int = 256, feed_forward: int = 512, heads: int = 4,
    kv_heads: int = 2, head_dim: int = 64, tensors: tuple[str, ...] = ("output.weight",), **keys: Any,
) -> Shape:  # fmt: skip
    """A shape of 500 tokens and a context of 512; more keys of its metadata by name."""
    numbers = {
        "block_count": layers, "embedding_length": hidden, "feed_forward_length": feed_forward, "vocab_size": 500,
        "context_length": 512, "attention.head_count": heads, "attention.head_count_kv": kv_heads,
        "attention.key_length": head_dim, "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5, **keys,
    }  # fmt: skip
    metadata = {"general.architecture": architecture}
    return Shape(
        "small", metadata | {f"{architecture}.{key}": value for key, value in numbers.items()}, frozenset(tensors)
    )


def write_header(path: Path, source: Synthetic, tokens: bool = False, **texts: str) -> gguf.GGUFWriter:
    """A file that ends before its tensors; metadata as its family's files have them, no vocabulary but its size.

    With `tokens` it has a vocabulary of numbers, so that texts can be written.
    """
    writer = gguf.GGUFWriter(str(path), source.shape.architecture)
    for key, value in texts.items():
        writer.add_string(f"general.{key}", value)
    for key, value in source.metadata.items():
        if key != "general.architecture":
            _ADD[type(value)](writer, key, value)
    if source.shape.architecture.startswith("qwen35"):
        # Of positions in pictures; llama.cpp wants them of every file.
        writer.add_array(f"{source.shape.architecture}.rope.dimension_sections", [11, 11, 10, 0])
    writer.add_tokenizer_model("llama" if tokens else "no_vocab")
    if tokens:
        count = int(source.metadata[f"{source.shape.architecture}.vocab_size"])
        writer.add_token_list([f"<{i}>" for i in range(count)])
        writer.add_token_scores([0.0] * count)
        writer.add_token_types([1] * count)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    for info in source.tensors.values():
        kind = gguf.GGMLQuantizationType(info.type)
        # With bytes as its type the shape would be taken as bytes, too.
        writer.add_tensor_info(info.name, info.shape, np.dtype(np.float32), info.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def write_whole(path: Path, source: Synthetic, tokens: bool = False) -> Path:
    """All its layers, with their random weights; `tokens` as in write_header."""
    writer = write_header(path, source, tokens)
    for info in source.tensors.values():
        writer.write_tensor_data(source.read(info))
    writer.close()
    return path


def write_sparse(path: Path, name: str, quant: str) -> Path:
    """The whole model, all layers, of zeros that take no room on the disk."""
    shape = find_shape(name)
    source = Synthetic(shape, quant)
    write_header(path, source, name=shape.name).close()
    end = -(-path.stat().st_size // 32) * 32
    os.truncate(path, end + sum(-(-info.nbytes // 32) * 32 for info in source.tensors.values()))
    return path
