"""What models are called: our names, Ollama's, and the quants their files are called by."""

import pytest

from seventy.catalog import names
from seventy.catalog.models import find_model
from seventy.catalog.names import AmbiguousName, all_names, meaning
from seventy.catalog.quants import known_quant, nominal_bits, quant_of, tensor_types
from seventy.catalog.shapes import all_models
from seventy.errors import SeventyError
from seventy.gguf.tensors import GGML_TYPES


@pytest.mark.parametrize(
    "text, name, quant",
    [
        ("llama-3.3-70b", "llama-3.3-70b", None),
        ("Llama 3.3 70B Instruct", "llama-3.3-70b", None),
        ("llama3.3-70b:Q8_0", "llama-3.3-70b", "Q8_0"),
        ("70b", "llama-3.3-70b", None),
        ("qwen3.6-35b-a3b", "qwen3.6-35b-a3b", None),
        ("gpt-oss-120b", "gpt-oss-120b", None),
        ("deepseek-r1-671b", "deepseek-r1-0528", None),
        ("qwen3:8b", "qwen3-8b", "Q4_K_M"),
        ("qwen3", "qwen3-8b", "Q4_K_M"),
        ("qwen3:latest", "qwen3-8b", "Q4_K_M"),
        ("library/qwen3:8b", "qwen3-8b", "Q4_K_M"),
        ("deepseek-r1:70b", "deepseek-r1-distill-llama-70b", "Q4_K_M"),
        ("llama3.3:70b", "llama-3.3-70b", "Q4_K_M"),
        ("llama3.1:8b-instruct-q8_0", "llama-3.1-8b", "Q8_0"),
        ("gpt-oss:20b", "gpt-oss-20b", "MXFP4"),
        ("phi4:14b-fp16", "phi-4", "F16"),
        ("ollama:deepseek-r1", "deepseek-r1-0528-qwen3-8b", "Q4_K_M"),
        ("ollama:qwen3:8b", "qwen3-8b", "Q4_K_M"),
        ("llama-2-70b", "llama-2-70b", None),
        ("Llama-3-70B", "llama-3-70b", None),
        ("llama3:70b", "llama-3-70b", "Q4_0"),
        ("llama2", "llama-2-7b", "Q4_0"),
        ("Llama 3", "llama-3-8b", "Q4_0"),
        ("gemma2:27b", "gemma-2-27b", "Q4_0"),
        ("llama3:8b-instruct-q4_K_M", "llama-3-8b", "Q4_K_M"),
        ("llama4:scout", "llama-4-scout", "Q4_K_M"),
    ],
)
def test_names_as_people_write_them(text: str, name: str, quant: str | None) -> None:
    found = meaning(text)
    assert found is not None and (found.name.name, found.quant) == (name, quant)


def test_a_name_that_is_another_model_at_ollama_lists_both_with_sizes() -> None:
    both = r"deepseek-r1-0528 \(671 B .*404 GB.*qwen3-8b \(8.19 B .*5.03 GB"
    with pytest.raises(AmbiguousName, match=both) as caught:
        meaning("deepseek-r1")
    assert [name.name for name in caught.value.choices] == ["deepseek-r1-0528", "deepseek-r1-0528-qwen3-8b"]


def test_names_of_nothing() -> None:
    assert meaning("nonsense") is None and meaning("qwen3:9999b") is None and meaning("") is None
    assert names.close("llama-3.3-71b")[0] == "llama-3.3-70b"
    with pytest.raises(SeventyError, match=r"did you mean llama-3.3-70b"):
        find_model("llama-3.3-71b")


@pytest.mark.parametrize("text, model", [("llama2", "Llama-2-7B-Chat"), ("Llama 3", "Llama-3-8B-Instruct"),
                                         ("mixtral", "Mixtral-8x7B-Instruct-v0.1")])  # fmt: skip
def test_a_family_alone_is_what_ollama_takes(text: str, model: str) -> None:
    assert find_model(text).name == model


def test_every_name_is_one_model_and_has_its_shapes() -> None:
    shapes = {model.name for model in all_models()}
    called: dict[str, str] = {}
    for name in all_names():
        assert name.model in shapes, name.name
        for text in {names.key(each) for each in (name.name, *name.other_names)}:
            assert called.setdefault(text, name.name) == name.name, text
    at_ollama = [text for name in all_names() for text in name.ollama_names]
    assert len(at_ollama) == len(set(at_ollama))


def test_every_model_has_a_name_to_get_it_by() -> None:
    assert {model.name for model in all_models()} == {name.model for name in all_names()}


def test_repositories_of_other_makers_are_known_by_their_names() -> None:
    for repository in ("bartowski/google_gemma-3-4b-it-GGUF", "lmstudio-community/gemma-3-4b-it-GGUF", "x/Gemma-3-4B"):
        found = names.of_repository(repository)
        assert found is not None and found.name == "gemma-3-4b", repository
    assert names.of_repository("me/My-Own-Model-GGUF") is None


@pytest.mark.parametrize(
    "file, quant, bits",
    [
        ("Llama-3.3-70B-Instruct-Q4_K_M.gguf", "Q4_K_M", 4),
        ("smollm2-135m-instruct-q4_1.gguf", "Q4_1", 4),
        ("UD-IQ2_XXS/DeepSeek-R1-UD-IQ2_XXS-00001-of-00004.gguf", "UD-IQ2_XXS", 2),
        ("qwen2.5-7b-f16.gguf", "F16", 16),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4", 4),
        ("model.i1-Q3_K_L.gguf", "Q3_K_L", 3),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", 4),
        ("x.Q8_0.gguf", "Q8_0", 8),
        ("mystery.gguf", None, 0),
        ("qwen3-8b.gguf", None, 0),
    ],
)
def test_the_quant_that_a_file_name_tells(file: str, quant: str | None, bits: int) -> None:
    assert quant_of(file) == quant
    if quant:
        assert known_quant(quant.lower()) == quant and nominal_bits(quant) == bits


def test_what_is_no_quant() -> None:
    for text in ("8b", "latest", "70b", "Q4_K_MM", "", "Q", "instruct"):
        assert known_quant(text) is None


def test_tensor_types_are_types_of_the_format() -> None:
    known = {entry.name for entry in GGML_TYPES.values()}
    quants = (
        "Q2_K Q3_K_S Q4_K_M UD-Q4_K_XL Q5_0 Q6_K_L Q8_0 Q8_K_XL IQ1_M IQ2_M IQ3_XS IQ3_M IQ4_NL IQ4_XS MXFP4 MXFP4_MOE "
        "NVFP4 F16 BF16 TQ1_0 IQ2_XXS"
    )
    for quant in quants.split():
        assert set(tensor_types(quant)) <= known and tensor_types(quant), quant
    assert tensor_types("Q4_K_M") == ("Q4_K", "Q6_K") and tensor_types("IQ3_M") == ("IQ3_S", "Q4_K")
