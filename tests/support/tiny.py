"""Models of a few hundred kilobytes with random weights, for tests of the engine."""

from pathlib import Path

import numpy as np

import gguf
from seventy.formats import by_name
from tests.support.data import random_blocks

HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, LAYERS, CONTEXT = 256, 512, 4, 2, 2, 2048
EXPERTS, USED, EXPERT_WIDTH = 8, 2, 256


def byte_tokens() -> list[str]:
    """The 256 byte tokens in the printable characters byte-level BPE writes them with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(shifted)) for b in range(256)]


def add_tokenizer(writer: gguf.GGUFWriter) -> list[str]:
    """Write a byte-level tokenizer with two special tokens and a chat template; return its tokens."""
    # One merge: a GGUF without any is not one of ours.
    tokens = [*byte_tokens(), "<|start|>", "<|end|>", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template(
        "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
    )
    return tokens


def write_tiny(
    path: Path,
    architecture: str = "llama",
    format_name: str = "Q4_K",
    tied: bool = True,
    vectors: dict[str, np.ndarray] | None = None,
    without: tuple[str, ...] = (),
    split: int = 0,
    down: str | None = None,
    types: dict[str, str] | None = None,
    **metadata: object,
) -> Path:
    """A file the engine loads; `metadata` replaces values of the architecture's keys (an int, float, str or list each),
    or of those that begin with "tokenizer.".

    `vectors` are further tensors, `without` are the names of those to leave out. With `split`, files of so many tensors
    are written instead: `path`'s name with -00001-of-0000N. With `down`, a format of small blocks for ffn_down, its
    width is divided by 32 and no more, as Qwen2.5-72B's is. `types` are the formats of some matrices, {"attn_v":
    "Q4_K"} say.
    """
    feed_forward = FEED_FORWARD if down is None else FEED_FORWARD + 32
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), architecture, split_max_tensors=split)
    numbers: dict[str, object] = {
        "block_count": LAYERS, "embedding_length": HIDDEN, "feed_forward_length": feed_forward,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "context_length": CONTEXT,
        "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
    }  # fmt: skip
    if architecture == "qwen3moe":
        numbers |= {
            "expert_count": EXPERTS, "expert_used_count": USED, "expert_feed_forward_length": EXPERT_WIDTH,
        }  # fmt: skip
    if architecture in ("qwen3", "qwen3moe"):
        # As Qwen3 has them: wider than the residual stream.
        numbers |= {"attention.key_length": 128, "attention.value_length": 128}
    numbers |= metadata
    for key, value in numbers.items():
        kinds = {float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        name = key if key.startswith("tokenizer.") else f"{architecture}.{key}"
        kinds.get(type(value), writer.add_uint32)(name, value)
    tokens = add_tokenizer(writer)

    def matrix(name: str, rows: int, columns: int, experts: int = 0) -> None:
        if name in without:
            return
        special = {"ffn_down": down or format_name, **(types or {})}
        format = by_name(special.get(name.split(".")[-2], format_name))
        n, seed = max(1, experts) * rows * columns // format.block, int(rng.integers(1 << 30))
        # Weights of 0.05 on average.
        size = 0.05 / float(format.dequantize(random_blocks(format, n, seed)).std())
        blocks = random_blocks(format, n, seed, size)
        kind = gguf.GGMLQuantizationType(format.type_id)
        shape = (experts, rows, -1) if experts else (rows, -1)
        writer.add_tensor(name, blocks.reshape(shape), raw_dtype=kind)

    def vector(name: str, length: int = HIDDEN) -> None:
        if name not in without:
            writer.add_tensor(name, rng.uniform(0.5, 1.5, length).astype(np.float32))

    matrix("token_embd.weight", len(tokens), HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight")
        vector(block + "ffn_norm.weight")
        head_dim = int(str(numbers.get("attention.key_length", HIDDEN // HEADS)))
        q, kv = head_dim * HEADS, head_dim * KV_HEADS
        for name, rows in {"attn_q": q, "attn_k": kv, "attn_v": kv}.items():
            matrix(f"{block}{name}.weight", rows, HIDDEN)
            if architecture == "qwen2":
                vector(f"{block}{name}.bias", rows)
        if architecture in ("qwen3", "qwen3moe"):
            vector(block + "attn_q_norm.weight", head_dim)
            vector(block + "attn_k_norm.weight", head_dim)
        matrix(block + "attn_output.weight", HIDDEN, q)
        if architecture == "qwen3moe":
            router = rng.standard_normal((EXPERTS, HIDDEN)).astype(np.float32) / 2
            writer.add_tensor(block + "ffn_gate_inp.weight", router)
            matrix(block + "ffn_gate_exps.weight", EXPERT_WIDTH, HIDDEN, EXPERTS)
            matrix(block + "ffn_up_exps.weight", EXPERT_WIDTH, HIDDEN, EXPERTS)
            matrix(block + "ffn_down_exps.weight", HIDDEN, EXPERT_WIDTH, EXPERTS)
            continue
        matrix(block + "ffn_gate.weight", feed_forward, HIDDEN)
        matrix(block + "ffn_up.weight", feed_forward, HIDDEN)
        matrix(block + "ffn_down.weight", HIDDEN, feed_forward)
    vector("output_norm.weight")
    for name, values in (vectors or {}).items():
        writer.add_tensor(name, values)
    if not tied:
        matrix("output.weight", len(tokens), HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
