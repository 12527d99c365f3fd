"""Models that are a vocabulary and hardly more, for asking llama.cpp how it makes tokens of a text."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy.text.grammar import Constraint
from tests.support import gguf_writer as writer
from tests.support.tiny import byte_tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_WIDTH, _F32 = 32, 0


def any_two_bytes(seed: int) -> tuple[list[str], list[str]]:
    """Tokens and merges of a vocabulary in which any two bytes may be merged, in random order: two neighbours that
    become one token were not cut, and over some texts each cut shows."""
    characters = byte_tokens()
    pairs = [(left, right) for left in characters for right in characters]
    random.Random(seed).shuffle(pairs)
    return [*characters, *(left + right for left, right in pairs)], [f"{left} {right}" for left, right in pairs]


def metadata(tokens: list[str], special: dict[str, int], **changes: Any) -> dict[str, Any]:
    """`tokenizer.ggml.*` of these tokens and special ones after them; `special` is text -> type."""
    values = {
        "model": "gpt2",
        "tokens": [*tokens, *special],
        "token_type": [NORMAL] * len(tokens) + list(special.values()),
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in values.items() if value is not None}


def write(path: Path, tokenizer: dict[str, Any]) -> Path:
    """A model of one layer that llama.cpp loads (it wants the weights for that, too)."""
    numbers = {
        "general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": _WIDTH,
        "llama.block_count": 1, "llama.feed_forward_length": _WIDTH, "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {"token_embd": (_WIDTH, len(tokenizer["tokenizer.ggml.tokens"])), "output_norm": (_WIDTH,)}
    shapes |= {f"blk.0.{name}": (_WIDTH, _WIDTH) for name in matrices}
    shapes |= {f"blk.0.{name}": (_WIDTH,) for name in ("attn_norm", "ffn_norm")}
    tensors = {
        f"{name}.weight": (shape, _F32, bytes(4 * _WIDTH * (shape[1] if len(shape) > 1 else 1)))
        for name, shape in shapes.items()
    }
    return writer.write(path, numbers | tokenizer, tensors)


def allowed(constraint: Constraint, size: int) -> set[int]:
    """The tokens that a constraint lets come next."""
    logits = np.zeros(size, np.float32)
    constraint.mask(logits)
    return set(np.flatnonzero(logits == 0).tolist())


class LlamaCpp:
    """llama.cpp's tokenizer of a file; the test is skipped where its wheel is not installed."""

    def __init__(self, path: Path) -> None:
        native = pytest.importorskip("cyllama.llama.llama_cpp", reason="the oracle extra (cyllama) is not installed")

        class Model(native.LlamaModel):
            # 0.2.18 asks the model for this and does not have it.
            n_vocab = property(lambda self: 0)

        parameters = native.LlamaModelParams()
        parameters.n_gpu_layers = 0
        self._model = Model(str(path), parameters, verbose=False)
        self._vocabulary = self._model.get_vocab()

    def encode(self, text: str, special: bool = False) -> list[int]:
        return self._vocabulary.tokenize(text, False, special)

    def text(self, token: int) -> str:
        """What the token shows in an answer."""
        return self._vocabulary.token_to_piece(token, 0, False)

    @property
    def add_bos(self) -> bool:
        return self._vocabulary.get_add_bos()

    def ends(self, ids: Iterable[int]) -> set[int]:
        return {token for token in ids if self._vocabulary.is_eog(token)}
