"""Shapes without weights: small ones of one's own, and a catalogue model's as a GGUF file that takes no disk."""

import os
from pathlib import Path
from typing import Any

import numpy as np

import gguf
from seventy.bench.synthetic import Shape, Synthetic, find_shape, random_blocks
from seventy.formats import by_name

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
    if tokens:
        _add_numbers(writer, int(source.metadata[f"{source.shape.architecture}.vocab_size"]))
    else:
        writer.add_tokenizer_model("no_vocab")
    for info in source.tensors.values():
        kind = gguf.GGMLQuantizationType(info.type)
        # With bytes as its type the shape would be taken as bytes, too.
        writer.add_tensor_info(info.name, info.shape, np.dtype(np.float32), info.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def _add_numbers(writer: gguf.GGUFWriter, count: int) -> None:
    """Write a vocabulary of numbers."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(count)])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([1] * count)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


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


def write_assistant(
    path: Path, model: Synthetic, hidden: int, feed_forward: int, heads: int, windows: tuple[bool, ...]
) -> Path:
    """A Gemma 4 assistant in Q8_0 for a model written with `tokens`; `windows` says which of its layers have one.

    Its weights are random, and so are its guesses.
    """
    of_model = {key.removeprefix("gemma4."): value for key, value in model.metadata.items()}
    vocabulary, backbone = int(of_model["vocab_size"]), int(of_model["embedding_length"])
    layers, format = len(windows), by_name("Q8_0")
    writer = gguf.GGUFWriter(str(path), "gemma4-assistant")
    same = ("attention.key", "attention.value", "attention.layer_norm", "attention.sliding_window", "rope", "context")
    for key, value in {
        **{key: value for key, value in of_model.items() if key.startswith(same)},
        "block_count": layers, "embedding_length": hidden, "embedding_length_out": backbone,
        "feed_forward_length": feed_forward, "attention.head_count": heads, "attention.head_count_kv": 1,
        "attention.shared_kv_layers": layers, "attention.sliding_window_pattern": list(windows),
        "embedding_length_per_layer_input": 0,
    }.items():  # fmt: skip
        _ADD[type(value)](writer, f"gemma4-assistant.{key}", value)
    _add_numbers(writer, vocabulary)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = random_blocks(format, rows * columns // format.block, columns**-0.5)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    matrix("token_embd.weight", vocabulary, hidden)
    matrix("nextn.pre_projection.weight", hidden, 2 * backbone)
    matrix("nextn.post_projection.weight", backbone, hidden)
    if not all(windows):
        writer.add_tensor("rope_freqs.weight", np.ones(int(of_model["attention.key_length"]) // 2, np.float32))
    for layer, window in enumerate(windows):
        block, dim = f"blk.{layer}.", int(of_model["attention.key_length_swa" if window else "attention.key_length"])
        for name, length in (("attn_norm", hidden), ("attn_q_norm", dim), ("post_attention_norm", hidden),
                             ("ffn_norm", hidden), ("post_ffw_norm", hidden), ("layer_output_scale", 1)):  # fmt: skip
            writer.add_tensor(f"{block}{name}.weight", np.ones(length, np.float32))
        matrix(f"{block}attn_q.weight", heads * dim, hidden)
        matrix(f"{block}attn_output.weight", hidden, heads * dim)
        matrix(f"{block}ffn_gate.weight", feed_forward, hidden)
        matrix(f"{block}ffn_up.weight", feed_forward, hidden)
        matrix(f"{block}ffn_down.weight", hidden, feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
