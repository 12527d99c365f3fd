"""The numpy forward passes of tests/support/families say what llama.cpp says of the same random files."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.families.common import Model
from tests.support.oracle import llama_cpp_logits

NAMES = (
    "qwen3moe", "gpt_oss", "deepseek2", "glm4moe", "minimax_m2", "qwen2moe", "llama", "qwen35", "qwen35moe",
    "qwen3next", "gemma3", "gemma4", "lfm2", "lfm2moe", "mistral3", "deepseek32", "glm_dsa", "phi3",
)  # fmt: skip
FAMILIES = {name: importlib.import_module(f"tests.support.families.{name}") for name in NAMES}
CASES = [(name, case) for name, family in FAMILIES.items() for case in family.CASES]
TWINS = [(name, case) for name, family in FAMILIES.items() for case in getattr(family, "TWINS", {})]
# Keys and tensors without which most rows would come out otherwise: the corner that a case is there for is felt.
FELT = [
    ("qwen3moe", "yarn", "rope.scaling"),
    ("gpt_oss", "plain", "sliding_window"),
    ("gpt_oss", "plain", "sinks"),
    ("deepseek2", "V3", "exp_probs_b"),
    ("deepseek2", "V3", "expert_group"),
    ("deepseek2", "V3", "yarn_log"),
    ("deepseek2", "temperature", "temperature_scale"),
    ("glm4moe", "softmax", "exp_probs_b"),
    ("minimax_m2", "plain", "exp_probs_b"),
    ("llama", "factors", "rope_freqs"),
    ("qwen35", "NextN", "nextn_predict"),
    ("gemma3", "4B", "rope.scaling"),
    ("mistral3", "Ministral", "yarn_log"),
    ("mistral3", "Ministral", "temperature"),
    ("mistral3", "YaRN", "beta"),
    ("lfm2", "window", "sliding_window"),
    ("lfm2moe", "own head", "exp_probs_b"),
    ("gemma3", "plain", "sliding_window"),
    ("gemma4", "31B", "layer_output_scale"),
    ("gemma4", "26B-A4B", "ffn_down_exps.scale"),
]
QUANTISED = [
    *[
        ("qwen3moe", format)
        for format in ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q3_K", "Q2_K", "IQ4_XS", "MXFP4")
    ],
    *[(name, "Q4_K") for name, family in FAMILIES.items() if family.CASES],
    ("gpt_oss", "MXFP4"),
]
LENGTHS = (1, 7, 64, 65, 200)
IDS = np.random.default_rng(1).integers(0, 256, max(LENGTHS)).tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the models go; pytest would keep gigabytes of them."""
    yield tmp_path
    for path in tmp_path.glob("*.gguf"):
        path.unlink()


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def assert_equal_to_llama_cpp(family: ModuleType, ours: Path, theirs: Path) -> None:
    """Every log-probability of every row, but for rows with a near tie in a router (at most 3 %)."""
    # Gemma's GELU comes from a table of half-precision numbers there.
    rounding: dict[str, Any] = getattr(family, "LLAMA_CPP", {})
    logits, gaps = family.forward(ours, IDS, **rounding)
    exact = family.forward(ours, IDS)[0] if rounding else logits
    assert logits.dtype == exact.dtype == np.float32
    # As sharp as a real model's: neither flat nor certain.
    assert 3 < logits.std() < 6
    clear = gaps >= 1e-3
    assert clear.mean() >= 0.97
    for n in LENGTHS:
        reference = log_probabilities(llama_cpp_logits(theirs, IDS[:n], False, threads=1, f32_kv=True))
        worst, exactly = (
            np.abs(reference - log_probabilities(each[:n])).max(-1)[clear[:n]].max(initial=0)
            for each in (logits, exact)
        )
        print(f"{ours.stem}, {n} tokens: max |delta log-probability| {worst:.1e}")
        assert worst <= getattr(family, "TOLERANCE", 1e-4)
        assert exactly <= (0.05 if rounding else worst)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_forward_is_llama_cpps(name: str, case: str, folder: Path) -> None:
    path = FAMILIES[name].write(folder / f"{name} {case}.gguf", **FAMILIES[name].CASES[case])
    assert_equal_to_llama_cpp(FAMILIES[name], path, path)


@pytest.mark.parametrize(("name", "case"), TWINS)
def test_files_that_the_wheel_is_too_old_for_equal_their_twins(name: str, case: str, folder: Path) -> None:
    family = FAMILIES[name]
    corners, twin = family.TWINS[case]
    path = family.write(folder / f"{name} {case}.gguf", **corners)
    assert_equal_to_llama_cpp(family, path, family.write(folder / "twin.gguf", **twin))


@pytest.mark.parametrize(("name", "format"), QUANTISED)
def test_quantised_files_mean_to_llama_cpp_what_they_mean_to_us(name: str, format: str, folder: Path) -> None:
    path = FAMILIES[name].write(folder / "model.gguf", format=format)
    logits, _ = FAMILIES[name].forward(path, IDS)
    ours = log_probabilities(logits)
    theirs = log_probabilities(llama_cpp_logits(path, IDS, False, threads=1, f32_kv=True))
    # llama.cpp rounds what it multiplies with to 8 bits, and then other experts are chosen here and there.
    divergence = (np.exp(ours) * (ours - theirs)).sum(-1)
    print(f"{name} {format}: KL {divergence.mean():.1e}, median {np.median(divergence):.1e}")
    assert np.median(divergence) <= 0.03


def test_a_shorter_prompt_is_the_beginning_of_a_longer_one(folder: Path) -> None:
    for name, family in FAMILIES.items():
        path = family.write(folder / f"{name}.gguf")
        np.testing.assert_allclose(family.forward(path, IDS[:20])[0], family.forward(path, IDS[:30])[0][:20], atol=1e-4)


@pytest.mark.parametrize(("name", "case", "part"), FELT)
def test_corners_are_felt(name: str, case: str, part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    path = family.write(folder / "model.gguf", **family.CASES[case])
    whole, _ = family.forward(path, IDS)
    key, contains = Model.key, Model.__contains__
    monkeypatch.setattr(
        Model, "key", lambda m, name, default=None: key(m, name, default) if part not in name else default
    )
    monkeypatch.setattr(Model, "__contains__", lambda m, name: part not in name and contains(m, name))
    without, _ = family.forward(path, IDS)
    difference = np.abs(log_probabilities(whole) - log_probabilities(without)).max(-1)
    assert (difference > 0.05).mean() > 0.5
