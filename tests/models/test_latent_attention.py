"""Models with latent attention, in the corners that files have, against float forward passes and llama.cpp."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine.footprint import footprint
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from seventy.models import deepseek2 as architecture
from tests.support.families import deepseek2, deepseek32, glm_dsa
from tests.support.families.judge import IDS, assert_exact
from tests.support.oracle import divergence, llama_cpp_logits

FAMILIES: dict[str, Any] = {"deepseek2": deepseek2, "deepseek32": deepseek32, "glm_dsa": glm_dsa}
# Two old files are enough: lite has as many layers.
CASES = [("deepseek2", case, corners) for case, corners in deepseek2.CASES.items() if case != "legacy lite"]
CASES += [(name, case, own) for name, family in FAMILIES.items() for case, (own, _) in family.TWINS.items()]


@pytest.mark.parametrize(("name", "case", "corners"), CASES, ids=[f"{name}-{case}" for name, case, _ in CASES])
def test_logits_are_those_of_floats(name: str, case: str, corners: dict[str, Any], tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **corners))


@pytest.mark.parametrize("format", ["Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("legacy", [False, True])
def test_quantised_files_are_as_near_to_floats_as_llama_cpp(legacy: bool, format: str, tmp_path: Path) -> None:
    # No experts: where a router hardly decides, rounding decides.
    corners = deepseek2.V3 | {"dense": 3, "legacy": legacy}
    path = deepseek2.write(tmp_path / "model.gguf", format=format, **corners)
    exact, _ = deepseek2.forward(path, IDS)
    with LLM(path, threads=2, context=512) as llm:
        ours, _ = divergence(exact, llm.logits(IDS))
    theirs = max(divergence(exact, llama_cpp_logits(path, IDS, flash))[0] for flash in (False, True))
    print(f"{format}: KL {ours:.1e}, llama.cpp's {theirs:.1e}")
    assert ours <= 1.1 * theirs


def test_a_cache_of_bytes_says_nearly_the_same(tmp_path: Path) -> None:
    path = deepseek2.write(tmp_path / "model.gguf", kv_rank=512, rope=64, dense=3)
    logits, sizes = {}, {}
    for kv in ("f16", "q8_0"):
        with LLM(path, threads=2, context=512, kv=kv) as llm:
            logits[kv], sizes[kv] = llm.logits(IDS), llm.model.cache.memory.position_bytes
            for n in (1, 33, 130):
                assert np.array_equal(llm.logits(IDS[:n], last_only=True)[0], logits[kv][n - 1])
    # Keys once, and no values beside them.
    assert sizes == {"f16": 3 * 576 * 2, "q8_0": 3 * 576 * 34 // 32}
    kl, top1 = divergence(logits["f16"], logits["q8_0"])
    assert kl < 2e-4 * np.var(logits["f16"], axis=-1).mean() and top1 > 0.95


def published(**more: object) -> dict[str, object]:
    """The numbers of DeepSeek R1, or others."""
    numbers: dict[str, object] = {
        "block_count": 61, "embedding_length": 7168, "context_length": 163840, "feed_forward_length": 18432,
        "attention.head_count": 128, "attention.head_count_kv": 1, "attention.q_lora_rank": 1536,
        "attention.kv_lora_rank": 512, "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "rope.dimension_count": 64,
        "attention.layer_norm_rms_epsilon": 1e-6, "leading_dense_block_count": 3, "expert_count": 256,
        "expert_used_count": 8, "expert_shared_count": 1, "expert_feed_forward_length": 2048, "expert_gating_func": 2,
        "expert_weights_norm": True, "expert_weights_scale": 2.5, "expert_group_count": 8, "expert_group_used_count": 4,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": 0.1, "vocab_size": 129280,
    }  # fmt: skip
    return {f"deepseek2.{key}": value for key, value in (numbers | more).items() if value is not None}


def test_scores_of_published_models_are_scaled_as_published() -> None:
    config = architecture.config(published())
    assert config.latent is not None and config.latent.scale == pytest.approx(0.135234, abs=1e-6)
    assert config.shapes[0].rotary.length == pytest.approx(1)
    assert [spec.position_bytes("f16") for spec in architecture.caches(config)] == [1152] * 61
    lite = architecture.config(published(**{"rope.scaling.yarn_log_multiplier": 0.0707}))
    assert lite.latent is not None and lite.latent.scale == pytest.approx(0.114722, abs=1e-6)
    # Without the multiplier what turns is lengthened, too.
    plain = architecture.config(published(**{"rope.scaling.yarn_log_multiplier": None}))
    assert plain.shapes[0].rotary.length == pytest.approx(1.368888, abs=1e-6)


@pytest.mark.parametrize(("layers", "tokens", "scoring"), [(47, 154880, "sigmoid"), (61, 129280, "softmax")])
def test_a_router_that_no_key_describes_is_known_by_the_models_size(layers: int, tokens: int, scoring: str) -> None:
    metadata = published(block_count=layers, expert_gating_func=None) | {"tokenizer.ggml.tokens": range(tokens)}
    config = architecture.config(metadata)
    assert config.experts is not None and config.experts.rule.scoring == scoring


@pytest.mark.parametrize("name", ["deepseek32", "glm_dsa"])
def test_the_context_ends_where_the_indexer_would_leave_keys_out(name: str, tmp_path: Path) -> None:
    path = FAMILIES[name].write(tmp_path / "model.gguf", top_k=96)
    with LLM(path, threads=1) as llm:
        assert llm.context == 96
        assert np.isfinite(llm.logits(IDS[:96])).all()
        with pytest.raises(SeventyError, match="96"):
            llm.logits(IDS[:97])


def test_old_files_take_the_memory_they_are_said_to_take(tmp_path: Path) -> None:
    for format in ("Q4_K", "F32"):
        path = deepseek2.write(tmp_path / f"{format}.gguf", format=format, legacy=True)
        with LLM(path, threads=1, context=64) as llm, GGUF(path) as file:
            weights = llm.model.program.weights
            taken = len(weights.memory) + sum(
                matrix.experts * matrix.packed_bytes for matrix in weights.matrices if matrix.transposed
            )
            assert taken <= footprint(file, llm.model.config, llm.model.cache.memory.specs).weights


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"attention.kv_lora_rank": 40}, "latent vectors of 40, .* the engine needs multiples of 16"),
        ({"attention.kv_lora_rank": 0}, "kv_lora_rank is 0, not a number from 1 to 4096; get the file again"),
        ({"attention.head_count": 4096}, "has 4096 heads with latent vectors of 256"),
        ({"attention.key_length_mla": 16}, "key_length_mla is 16, not a number from 32 to 1024"),
        ({"attention.value_length_mla": 112}, r"attn_v_b.weight has shape .4, 96, 256., its metadata says .4, 112"),
        ({"attention.q_lora_rank": 0}, "has no tensor blk.0.attn_q.weight, which its architecture needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = deepseek2.write(tmp_path / "model.gguf")
    with GGUF(path) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"deepseek2.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)
