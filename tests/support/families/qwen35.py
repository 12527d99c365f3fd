"""Qwen3.5 and Qwen3.6, dense: gated delta-net and gated attention layers with a SwiGLU each."""

from functools import partial
from pathlib import Path
from typing import Any

from tests.support.families import delta_net
from tests.support.families.common import Model, forward_of, guesses_of
from tests.support.families.delta_net import HIDDEN
from tests.support.families.writer import Writer

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scales": {"scales": True, "interval": 2, "layers": 4},
    "NextN": {"nextn": 1, "tied": True, "k_heads": 2, "v_heads": 6},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "array": ({"recurrent": [True, False, True, False], "layers": 4}, {"interval": 2, "layers": 4}),
    "fused": ({"fused_qkv": True}, {}),
}


def write(path: Path, seed: int = 0, format: str = "F32", feed_forward: int = 320, **corners: Any) -> Path:
    """`corners` are those of delta_net.write."""

    def write_feed_forward(w: Writer, block: str) -> None:
        w.feed_forward(block, HIDDEN, feed_forward)

    keys = {"feed_forward_length": feed_forward, "rope.dimension_sections": [3, 3, 2, 0]}
    return delta_net.write(path, "qwen35", seed, format, write_feed_forward, **keys, **corners)


layer = partial(delta_net.layer_of, feed_forward=Model.feed_forward)
forward, guesses = partial(forward_of, layer=layer), partial(guesses_of, layer=layer)
