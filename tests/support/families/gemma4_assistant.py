"""Gemma 4's assistant: a small model that attends to the keys and values of the model that it drafts for."""

from pathlib import Path

import numpy as np

from tests.support.families import gemma4
from tests.support.families.common import Array, Model, gelu, rotate, softmax
from tests.support.families.gemma4 import HEAD_DIM, HEAD_DIM_WINDOWED
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, WIDTH = 128, 4, 192


def write(
    path: Path,
    seed: int = 3,
    format: Types = "F32",
    pattern: tuple[bool, ...] = (True, True, False),
    backbone: int = gemma4.HIDDEN,
    window: int = 48,
    head_dim: int = HEAD_DIM,
    heads: int = HEADS,
    centroids: bool = False,
    width: int = WIDTH,
    without: str = "",
    strange: str = "",
) -> Path:
    """`backbone` is how wide the model is that it drafts for; with `centroids`, parts of the vocabulary are named.

    `width` is that of the feed-forward's tensors, not of the metadata; the matrix `without` is left out, and a vector
    `strange` is there besides.
    """
    layers = len(pattern)
    with Writer(path, "gemma4-assistant", seed, format) as w:
        w.keys({
            "block_count": layers, "nextn_predict_layers": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "embedding_length_out": backbone, "feed_forward_length": WIDTH, "attention.head_count": heads,
            "attention.head_count_kv": 1, "attention.key_length": head_dim, "attention.value_length": head_dim,
            "attention.key_length_swa": HEAD_DIM_WINDOWED, "attention.value_length_swa": HEAD_DIM_WINDOWED,
            "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": window,
            "attention.sliding_window_pattern": list(pattern), "attention.shared_kv_layers": layers,
            "rope.freq_base": 1e6, "rope.freq_base_swa": 10000.0, "rope.dimension_count": head_dim,
            "rope.dimension_count_swa": HEAD_DIM_WINDOWED, "embedding_length_per_layer_input": 0,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, tied=True)
        if without != "nextn.pre_projection.weight":
            w.matrix("nextn.pre_projection.weight", HIDDEN, 2 * backbone)
        if strange:
            w.vector(strange, 16)
        w.matrix("nextn.post_projection.weight", backbone, HIDDEN, gain=0.5)
        w.add("rope_freqs.weight", np.repeat([1.0, 1e30], [head_dim // 8, head_dim // 2 - head_dim // 8]))
        if centroids:
            w.matrix("masked_embd_centroids.weight", 32, HIDDEN)
            w.add("masked_embd_ordering", np.arange(w.vocabulary))
        for layer, windowed in enumerate(pattern):
            block, dim = f"blk.{layer}.", HEAD_DIM_WINDOWED if windowed else head_dim
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.matrix(f"{block}attn_q.weight", heads * dim, HIDDEN)
            w.vector(f"{block}attn_q_norm.weight", dim, 0.15, 0.45)
            w.matrix(f"{block}attn_output.weight", HIDDEN, heads * dim)
            w.feed_forward(block, HIDDEN, width)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            for name in ("post_attention", "post_ffw"):
                w.vector(f"{block}{name}_norm.weight", HIDDEN, 0.25, 0.75)
            w.vector(f"{block}layer_output_scale.weight", 1)
    return path


def guesses(model: Path, path: Path, ids: list[int], fed: list[int]) -> Array:
    """Logits [1 + len(fed), vocabulary] after a text, of which the model has read all but the last, and each guess."""
    m, a = Model(model, ids[:-1]), Model(path, [0])
    rows, cache = gemma4.run(m, ids[:-1])
    state, found = m.norm(rows, "output_norm")[-1:], []
    a.layers, own = a.key("block_count"), m.layers - m.key("attention.shared_kv_layers", 0)
    for token in [ids[-1], *fed]:
        embedding = m["token_embd.weight"][[token]] * np.float32(state.shape[1] ** 0.5)
        x = np.concatenate([embedding, state], axis=1) @ a["nextn.pre_projection.weight"].T
        for layer in range(a.layers):
            block, window = f"blk.{layer}.", a.window(layer, 0)
            source = max(each for each in range(own) if bool(m.window(each, 0)) == bool(window))
            h = attention(a, a.norm(x, f"{block}attn_norm"), block, window, cache[source], len(ids) - 1)
            x = x + a.norm(h, f"{block}post_attention_norm")
            h = a.feed_forward(a.norm(x, f"{block}ffn_norm"), block, activation=gelu)
            x = (x + a.norm(h, f"{block}post_ffw_norm")) * a[f"{block}layer_output_scale.weight"]
        x = a.norm(x, "output_norm")
        found.append(x @ a["token_embd.weight"].T)
        state = x @ a["nextn.post_projection.weight"].T
    return np.concatenate(found)


def attention(a: Model, h: Array, block: str, window: int, cache: tuple[Array, Array], position: int) -> Array:
    """Attention of one row behind all keys."""
    keys, values = cache
    dim = keys.shape[2]
    divisors = 1.0 if window else a["rope_freqs.weight"]
    base = a.key("rope.freq_base_swa") if window else a.key("rope.freq_base")
    turn = np.exp(1j * position * base ** (-np.arange(0, dim, 2) / dim) / divisors)
    q = rotate(a.norm(a.linear(h, f"{block}attn_q").reshape(1, -1, dim), f"{block}attn_q_norm"), turn, True)
    first = max(0, position - window + 1) if window else 0
    keys, values = (np.repeat(each[first:], q.shape[1] // each.shape[1], axis=1) for each in (keys, values))
    weights = softmax(np.einsum("qhd,khd->hqk", q, keys))
    return a.linear(np.einsum("hqk,khd->qhd", weights, values).reshape(1, -1), f"{block}attn_output")
