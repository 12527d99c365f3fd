from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from tests.support.oracle import divergence
from tests.support.tiny import write_tiny

IDS = [(7 * i * i + i) % 259 for i in range(700)]


def test_bytes_take_little_more_than_half_the_memory_and_say_nearly_the_same(tmp_path: Path) -> None:
    # Floats as weights: the cache is then the only thing that rounds.
    path = write_tiny(tmp_path / "model.gguf", "llama", "F32")
    logits, sizes = {}, {}
    for kv in ("f16", "q8_0"):
        with LLM(path, threads=2, context=1024, kv=kv) as llm:
            logits[kv] = llm.logits(IDS)
            sizes[kv] = llm.model.cache.memory.position_bytes
    assert sizes["q8_0"] == sizes["f16"] * 17 // 32
    kl, top1 = divergence(logits["f16"], logits["q8_0"])
    assert kl < 2e-4 * np.var(logits["f16"], axis=-1).mean() and top1 > 0.95


def test_a_row_does_not_depend_on_its_company(tiny: Path) -> None:
    with LLM(tiny, threads=2, context=1024, kv="q8_0") as llm:
        together = llm.logits(IDS)
        for n in (1, 33, 300):
            assert np.array_equal(llm.logits(IDS[:n], last_only=True)[0], together[n - 1])


@pytest.mark.parametrize("head_dim", [48, 80])
def test_heads_that_are_no_whole_blocks_are_refused(head_dim: int, tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "model.gguf", "llama", "Q8_0",
        **{"attention.key_length": head_dim, "attention.value_length": head_dim},
    )  # fmt: skip
    with pytest.raises(SeventyError, match=rf"heads have {head_dim} elements, .* keep it as f16"):
        LLM(path, threads=1, kv="q8_0")
    with LLM(path, threads=1, context=64) as llm:
        assert len(llm.logits([1, 2, 3])) == 3


def test_unknown_kind_is_refused(tiny: Path) -> None:
    with pytest.raises(SeventyError, match="kept as f16 or q8_0, not as 'int4'"):
        LLM(tiny, kv="int4")


def test_the_context_may_be_as_long_as_the_model_allows_and_no_longer(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", context_length=131072)
    with LLM(path, threads=1, context=1 << 20, kv="q8_0") as llm:
        assert llm.context == 131072
        # Memory that was not written to was not given.
        assert llm.model.cache.n_pages == 131072 // 32
