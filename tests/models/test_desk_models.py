"""Every further model of the desk, whole: as right as llama.cpp. They cover what the default model does not."""

from pathlib import Path

import numpy as np

from seventy import LLM
from seventy.jit.isa import supported
from tests.support.oracle import TEXTS, assert_as_right_as_llama_cpp, references


def test_as_right_as_llama_cpp_on_every_level(desk_models: list[Path]) -> None:
    assert desk_models, "the folder SEVENTY_TEST_MODELS has no .gguf file"
    for path in desk_models:
        with LLM(path, threads=1) as llm:
            ids = [llm.tokenize(text) for text in TEXTS.values()]
        reference = references(path, ids)
        for isa in supported():
            with LLM(path, threads=2, isa=isa.name) as llm:
                assert_as_right_as_llama_cpp(reference, np.concatenate([llm.logits(each) for each in ids]))
