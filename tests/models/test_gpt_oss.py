"""gpt-oss: windows, sinks, biases and a clamped activation, against float forward passes and llama.cpp."""

from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine.model import Segment
from seventy.gguf.file import GGUF
from seventy.models import gpt_oss
from tests.support.families import gpt_oss as family
from tests.support.families.judge import IDS
from tests.support.oracle import divergence, llama_cpp_logits


@pytest.mark.parametrize("format", ["Q8_0", "MXFP4"])
def test_quantised_files_are_as_right_as_llama_cpp(format: str, tmp_path: Path) -> None:
    # Rows of 11 blocks of 32; and every expert: what a router hardly decides, rounded inputs decide otherwise.
    path = family.write(tmp_path / "model.gguf", format=format, width=352, used=family.EXPERTS)
    exact, _ = family.forward(path, IDS)
    theirs = [divergence(exact, llama_cpp_logits(path, IDS, flash)) for flash in (True, False)]
    with LLM(path, threads=2, context=512) as llm:
        kl, top1 = divergence(exact, llm.logits(IDS))
    print(f"{format}: KL {kl:.1e}, llama.cpp's {', '.join(f'{their_kl:.1e}' for their_kl, _ in theirs)}")
    assert kl <= 1.1 * max(their_kl for their_kl, _ in theirs)
    assert top1 >= min(their_top1 for _, their_top1 in theirs) - 0.02


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_text_that_begins_as_another_goes_on_as_if_alone(kv: str, tmp_path: Path) -> None:
    path = family.write(tmp_path / "model.gguf")
    with LLM(path, threads=2, context=512, kv=kv) as llm:
        alone, model = llm.logits(IDS), llm.model
        model.cache.forget()
        sequence = model.new_sequence()
        # The first 150 tokens, then those up to the middle of a page, then to the end of one.
        for n, known in ((150, 0), (100, 100), (160, 150), (128, 128)):
            assert sequence.open(IDS[:n]) == known
            for at in range(known, known + 20) if known else [n - 1]:
                first = at if known else 0
                sequence.reserve(at + 1)
                step = model.step([Segment(first, IDS[first : at + 1], 1, sequence.pages)])
                assert np.array_equal(step.logits[0], alone[at]), (n, at)
                sequence.commit(IDS[first : at + 1])
            sequence.close()


def test_a_long_text_is_right_without_what_lies_behind_its_windows(tmp_path: Path) -> None:
    path = family.write(tmp_path / "model.gguf", layers=2, window=32)
    ids = np.random.default_rng(2).integers(0, 256, 1800).tolist()
    with LLM(path, threads=2, context=2048) as llm:
        logits, model = llm.logits(ids), llm.model
        assert model.cache.memory.n_slots < model.cache.n_pages - 8
        sequence = model.new_sequence()
        # From near the beginning nothing can go on, for nobody kept the windows there; from the end everything.
        assert sequence.open(ids[:200]) == 0
        sequence.close()
        assert sequence.open(ids[:-1]) == len(ids) - 1
        sequence.reserve(len(ids))
        step = model.step([Segment(len(ids) - 1, ids[-1:], 1, sequence.pages)])
        assert np.array_equal(step.logits[0], logits[-1])
        sequence.close()
    exact, gaps = family.forward(path, ids)
    clear = gaps >= 1e-3
    kl, _ = divergence(exact[clear], logits[clear])
    assert kl <= 2e-5 and clear.mean() >= 0.97


def test_windows_are_those_the_file_names(tmp_path: Path) -> None:
    windows = {}
    for name, pattern in {"usual": None, "every third": 3, "listed": [True, True, False]}.items():
        with GGUF(family.write(tmp_path / "model.gguf", pattern=pattern, window=48)) as gguf:
            windows[name] = [spec.window for spec in gpt_oss.caches(gpt_oss.config(gguf.metadata))]
    assert windows == {"usual": [48, None, 48], "every third": [48, 48, None], "listed": [48, 48, None]}


def test_a_pattern_of_too_few_layers_is_refused(tmp_path: Path) -> None:
    path = family.write(tmp_path / "model.gguf", pattern=[True, False])
    with pytest.raises(SeventyError, match=r"sliding_window_pattern is \[True, False\], not true or false for each"):
        LLM(path, threads=1)
