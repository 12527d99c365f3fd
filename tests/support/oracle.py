"""What other implementations say: llama.cpp through the prebuilt wheel cyllama, and a float32 model in numpy."""

from pathlib import Path

import numpy as np
import pytest

from seventy import models
from seventy.formats import formats
from seventy.gguf.file import GGUF

TEXTS = {
    "English": (
        "The memory of a computer is read one cache line at a time. When a language model writes a word, every weight "
        "of the model has to travel from memory to the processor once, and so the number of words in a second is the "
        "bandwidth of the memory divided by the size of the model. A second-hand workstation with four memory channels "
        "moves about seventy gigabytes in a second; put one stick into it instead of four and it moves a quarter of "
        "that. Whoever buys such a machine should therefore count the channels before the cores, and read what the "
        "board's manual says about the order in which its slots are filled."
    ),
    "Chinese": (
        "本地部署大模型最大的成本是内存带宽。模型每写一个字，全部权重都要从内存读到处理器一次，所以每秒的字数等于内存带宽除以模型的大小。"
        "一台二手工作站有四个内存通道，只插一条内存就只有四分之一的速度。买机器之前，先数通道，再数核心。"
        "安静、省电、便宜，这三样很难同时得到，但是插满通道几乎不要钱。"
    ),
    "code": (
        "import os\n\n\ndef read_lines(path: str, limit: int = 100) -> list[str]:\n"
        '    """The first lines of a file."""\n    if not os.path.exists(path):\n'
        "        raise FileNotFoundError(path)\n"
        "    lines = []\n    with open(path, encoding='utf-8') as source:\n"
        "        for number, line in enumerate(source):\n"
        "            if number >= limit:\n                break\n            lines.append(line.rstrip('\\n'))\n"
        "    return lines\n\n\nfor i in range(10):\n    print(f'{i}: {i ** 2}')\n"
    ),
}


def llama_cpp_logits(
    path: Path, ids: list[int], flash: bool, threads: int = 2, q8_kv: bool = False, f32_kv: bool = False
) -> np.ndarray:
    """float32 [n, vocabulary] from llama.cpp; the test is skipped where its wheel is not installed."""
    native = pytest.importorskip("cyllama.llama.llama_cpp", reason="the oracle extra (cyllama) is not installed")

    with GGUF(path) as gguf:
        size = len(gguf.metadata["tokenizer.ggml.tokens"])

    class Model(native.LlamaModel):
        # 0.2.18 asks the model for this and does not have it.
        n_vocab = property(lambda self: size)

    parameters = native.LlamaModelParams()
    parameters.n_gpu_layers = 0
    model = Model(str(path), parameters, verbose=False)
    settings = native.LlamaContextParams()
    settings.n_ctx = settings.n_batch = len(ids) + 8
    settings.n_threads = settings.n_threads_batch = threads
    settings.flash_attn_type = int(flash)
    if q8_kv:
        settings.type_k = settings.type_v = 8
    if f32_kv:
        settings.type_k = settings.type_v = 0
    context = native.LlamaContext(model, settings, verbose=False)
    batch = native.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
    batch.set_batch(ids, 0, True)
    context.decode(batch)
    return np.array([np.array(context.get_logits_ith(i), np.float32) for i in range(len(ids))])


def float32_states(path: Path, ids: list[int]) -> np.ndarray:
    """What `float32_logits` multiplies with the head, [n, hidden]."""
    return _float32(path, ids, None)[0]


def float32_logits(path: Path, ids: list[int], gaps: list[float] | None = None) -> np.ndarray:
    """A model in float32 on the dequantised weights, as plainly as it can be written; dense or a mixture of experts.

    Its numbers are read as the engine reads them; rotary factors are those of a context as short as `ids`. For each
    layer and row, `gaps` learns how far the score of the last expert that was chosen was above that of the first that
    was not.
    """
    states, head = _float32(path, ids, gaps)
    return states @ head.T


def _float32(path: Path, ids: list[int], gaps: list[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """The normalised states of all rows, and the head."""
    with GGUF(path) as gguf:
        c = models.find(gguf.metadata["general.architecture"]).config(gguf.metadata)

        def tensor(name: str) -> np.ndarray:
            info = gguf.tensors[name]
            entry = formats()[info.type]
            return entry.dequantize(gguf.read(info).reshape(-1, entry.nbytes)).reshape(info.shape)

        def norm(x: np.ndarray, name: str) -> np.ndarray:
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.epsilon) * tensor(name)

        def linear(x: np.ndarray, name: str) -> np.ndarray:
            y = x @ tensor(name + ".weight").T
            return y + tensor(name + ".bias") if name + ".bias" in gguf.tensors else y

        n, shape = len(ids), c.shapes[0]
        factors = tensor("rope_freqs.weight") if "rope_freqs.weight" in gguf.tensors else None
        if shape.rotary.scaling == "longrope":
            factors = tensor(f"rope_factors_{'long' if n > shape.rotary.original else 'short'}.weight")
        turn = np.exp(1j * np.arange(n)[:, None, None] * shape.rotary.frequencies(factors)) * shape.rotary.length
        half = shape.rotary.dim // 2

        def rotate(x: np.ndarray) -> np.ndarray:
            rest = x[..., 2 * half :]
            first, second = np.s_[..., 0 : 2 * half : 2], np.s_[..., 1 : 2 * half : 2]
            if not shape.rotary.interleaved:
                first, second = np.s_[..., :half], np.s_[..., half : 2 * half]
            turned = (x[first] + 1j * x[second]) * turn
            out = np.empty_like(x[..., : 2 * half])
            out[first], out[second] = turned.real, turned.imag
            return np.concatenate([out, rest], axis=-1).astype(np.float32)

        mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        embedding = tensor("token_embd.weight")
        x = embedding[ids]
        for layer in range(c.layers):
            block = f"blk.{layer}."
            h = norm(x, block + "attn_norm.weight")
            q = linear(h, block + "attn_q").reshape(n, c.heads, shape.head_dim)
            k = linear(h, block + "attn_k").reshape(n, shape.kv_heads, shape.head_dim)
            v = linear(h, block + "attn_v").reshape(n, shape.kv_heads, shape.head_dim)
            if c.query_norm == "head":
                q, k = norm(q, block + "attn_q_norm.weight"), norm(k, block + "attn_k_norm.weight")
            q, k = rotate(q), rotate(k)
            k, v = (np.repeat(a, c.heads // shape.kv_heads, axis=1) for a in (k, v))
            scores = np.einsum("qhd,khd->hqk", q, k) * shape.head_dim**-0.5 + mask
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            attended = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v).reshape(n, -1)
            x = x + linear(attended, block + "attn_output")
            h = norm(x, block + "ffn_norm.weight")
            if c.experts is None:
                gate, up = linear(h, block + "ffn_gate"), linear(h, block + "ffn_up")
                x = x + linear(gate / (1 + np.exp(-gate)) * up, block + "ffn_down")
                continue
            scores = linear(h, block + "ffn_gate_inp")
            p = np.exp(scores - scores.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            order = np.argsort(-p, axis=-1, kind="stable")
            used = c.experts.rule.used
            chosen = order[:, :used]
            if gaps is not None and used < c.experts.count:
                ends = np.take_along_axis(p, order[:, used - 1 : used + 1], -1)
                gaps += np.log(ends[:, 0] / ends[:, 1]).tolist()
            weight = np.take_along_axis(p, chosen, -1)
            weight /= weight.sum(-1, keepdims=True)
            gates, ups, downs = (tensor(f"{block}ffn_{name}_exps.weight") for name in ("gate", "up", "down"))
            given = np.zeros_like(x)
            for row, rank in np.ndindex(chosen.shape):
                e = chosen[row, rank]
                gate, up = gates[e] @ h[row], ups[e] @ h[row]
                given[row] += weight[row, rank] * (downs[e] @ (gate / (1 + np.exp(-gate)) * up))
            x = x + given
        head = tensor("output.weight") if "output.weight" in gguf.tensors else embedding
        return norm(x, "output_norm.weight"), head


def divergence(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean KL(a || b) in nats and the share of rows with the same likeliest token, of two [n, vocabulary] logits."""

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = log_softmax(a), log_softmax(b)
    return float((np.exp(p) * (p - q)).sum(-1).mean()), float((a.argmax(-1) == b.argmax(-1)).mean())


def references(path: Path, ids: list[list[int]]) -> dict[str, np.ndarray]:
    """Teacher-forced logits over some texts: llama.cpp's with and without flash attention, and a float32 model's."""
    return {
        "flash": np.concatenate([llama_cpp_logits(path, each, True) for each in ids]),
        "plain": np.concatenate([llama_cpp_logits(path, each, False) for each in ids]),
        "float32": np.concatenate([float32_logits(path, each) for each in ids]),
    }


def assert_as_right_as_llama_cpp(reference: dict[str, np.ndarray], ours: np.ndarray) -> None:
    """As near to llama.cpp as it is to itself, and to the exact model as it is.

    Two equally good implementations differ by some per cent of the mean, and where two tokens are nearly as likely,
    in which comes first: by up to two standard deviations of the difference of two such counts.
    """
    kl, top1 = divergence(reference["flash"], ours)
    own_kl, own_top1 = divergence(reference["flash"], reference["plain"])
    assert kl <= 1.1 * own_kl
    assert _within(top1, own_top1, len(ours))
    assert_as_near_to_the_exact_model(reference, ours)


def assert_as_near_to_the_exact_model(reference: dict[str, np.ndarray], ours: np.ndarray) -> None:
    """As near as llama.cpp; of weights that are floats the cache's rounding is left, a KL of up to 1e-6."""
    kl, top1 = divergence(reference["float32"], ours)
    theirs = [divergence(reference["float32"], reference[name]) for name in ("flash", "plain")]
    assert kl <= max(1e-6, 1.1 * max(kl for kl, _ in theirs))
    assert _within(top1, min(top1 for _, top1 in theirs), len(ours))


def _within(top1: float, theirs: float, rows: int) -> bool:
    return top1 >= theirs - max(0.015, 2 * (2 * (1 - theirs) / rows) ** 0.5)
