"""What runs a model: no speed of seventy for what seventy cannot run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seventy import models
from seventy.catalog.models import all_models, find_model
from seventy.errors import SeventyError
from seventy.formats import formats
from seventy.gguf.file import GGUF
from seventy.plan.machine import machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.models_front import suggestions
from seventy.plan.runs import why_not, why_not_file, why_not_model
from seventy.plan.wanted import wanted
from tests.support.families import llama
from tests.support.hub import DEAD
from tests.support.tiny import write_tiny


def test_architecture_types_isa() -> None:
    assert why_not("seventy", "llama", ("Q4_K", "Q6_K")) is None
    assert str(why_not("seventy", "nosuch")) == "seventy does not run the architecture nosuch yet"
    assert "Q1_0" in str(why_not("seventy", "llama", ("Q4_K", "Q1_0")))
    arm = machine_from_parts("Apple M2 Ultra", 1, None)
    assert "i8mm" in str(why_not("seventy", "llama", machine=arm))
    assert why_not("llama.cpp", "nosuch", ("Q1_0",), machine=arm) is None


def test_it_says_of_names_what_it_says_of_files(tmp_path: Path) -> None:
    """Mixtral, which says that it is llama: whatever the engine makes of such a file."""
    with GGUF(llama.write(tmp_path / "experts.gguf")) as file:
        refused = why_not_file(file) is not None
    assert (why_not_model("seventy", find_model("mixtral-8x7b"), "Q4_K_M") is not None) is refused
    assert why_not_model("seventy", find_model("llama-3.3-70b"), "Q4_K_M") is None
    for model in all_models():
        if model.arch in models.architectures() and model.arch.endswith("moe"):
            assert why_not_model("seventy", model, "Q4_K_M") is None, model.name


@pytest.fixture
def llama_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that knows one architecture."""
    monkeypatch.setattr(models, "architectures", lambda: ["llama"])


def test_it_says_of_files_what_the_engine_says(tmp_path: Path) -> None:
    with GGUF(write_tiny(tmp_path / "good.gguf")) as file:
        assert why_not_file(file) is None
    with GGUF(write_tiny(tmp_path / "odd.gguf", **{"attention.clamp_kqv": 8.0})) as file:
        assert "clamp" in str(why_not_file(file))
    vision = {"v.blk.0.attn_q.weight": np.zeros((2, 32), np.float32)}
    with GGUF(write_tiny(tmp_path / "vision.gguf", vectors=vision)) as file:
        assert "a model of images" in str(why_not_file(file))


def test_every_format_of_the_engine_is_known_to_it() -> None:
    for entry in formats().values():
        assert why_not("seventy", "llama", (entry.name,)) is None


def test_a_speed_is_refused_in_both_languages(llama_only: None) -> None:
    want = wanted("qwen3:8b", "Q4_K_M")
    with pytest.raises(SeventyError, match=r"Qwen3-8B Q4_K_M: .* does not run the architecture qwen3 yet; --engine"):
        want.check("seventy", "en")
    with pytest.raises(SeventyError, match="还不能运行 qwen3 架构"):
        want.check("seventy", "zh")
    want.check("llama.cpp", "en")
    assert want.endings("llama.cpp", "en") == [
        "These figures are llama.cpp's: seventy does not run the architecture qwen3 yet.",
        "To get it: seventy pull qwen3-8b:Q4_K_M",
    ]


def test_what_runs_only_elsewhere_is_marked() -> None:
    machine = machine_from_parts("EPYC 7702", 1, parse_dimms("8x64@3200"))
    best = suggestions(machine, "llama.cpp")[0]
    assert replace(best, seventy=False).title == f"{best.name.title} (llama.cpp)"
    assert replace(best, seventy=True).title == best.name.title


@pytest.mark.parametrize(
    "text, name, quant, command",
    [
        ("llama-3.3-70b", "Llama-3.3-70B-Instruct", "Q4_K_M", "seventy pull llama-3.3-70b:Q4_K_M"),
        ("qwen3:8b-q8_0", "Qwen3-8B", "Q8_0", "seventy pull qwen3-8b:Q8_0"),
        ("qwq", "QwQ-32B", "Q4_K_M", "seventy pull qwq-32b:Q4_K_M"),
        ("gpt-oss-120b", "gpt-oss-120b", "MXFP4", "seventy pull gpt-oss-120b:MXFP4"),
        ("gpt-oss:120b", "gpt-oss-120b", "MXFP4", "seventy pull gpt-oss-120b:MXFP4"),
        ("hf:unsloth/Qwen3-8B-GGUF:Q6_K", "Qwen3-8B", "Q6_K", "seventy pull qwen3-8b:Q6_K"),
        ("ms:x/Qwen3-8B-GGUF", "Qwen3-8B", "Q4_K_M", "seventy pull qwen3-8b:Q4_K_M"),
        ("smollm2", "SmolLM2-135M-Instruct", "Q4_1", None),
    ],
)
def test_plan_and_predict_know_the_names_of_pull(text: str, name: str, quant: str, command: str | None) -> None:
    want = wanted(text, "Q4_K_M")
    assert (want.load.name, want.load.quant, want.command) == (name, quant, command)


def test_names_that_plan_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", DEAD)
    hosted = ("hf:me/Own-GGUF", "give numbers: --params")
    for text, sentence in (("deepseek-r1", "say which"), hosted, ("gpt-9", "no model")):
        with pytest.raises(SeventyError, match=sentence):
            wanted(text, "Q4_K_M")
