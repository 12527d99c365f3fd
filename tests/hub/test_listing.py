"""Which files of a repository are one model in one quant."""

import pytest

from seventy.errors import SeventyError
from seventy.hub.huggingface import HuggingFace
from seventy.hub.listing import RemoteFile, is_model, of_file, variants

SUM = "a" * 64


def files(*paths: str) -> list[RemoteFile]:
    hub = HuggingFace("http://127.0.0.1:9")
    return [RemoteFile(hub, "me/Model-GGUF", path, 100 + at, SUM) for at, path in enumerate(paths)]


def test_quants_of_a_repository() -> None:
    found = variants(
        files(
            "Model-Q8_0.gguf",
            "Model-Q4_K_M.gguf",
            "UD-Q2_K_XL/Model-UD-Q2_K_XL-00002-of-00002.gguf",
            "UD-Q2_K_XL/Model-UD-Q2_K_XL-00001-of-00002.gguf",
            "Q6_K/Model-Q6_K-00001-of-00002.gguf",
            "mmproj-Model-f16.gguf",
            "Model-imatrix.gguf",
            "mtp-Model-Q4_K_M.gguf",
            "Model-draft-Q4_K_M.gguf",
        )
    )
    assert [each.quant for each in found] == ["Q8_0", "Q4_K_M", "UD-Q2_K_XL"]
    assert [file.name for file in found[2].files] == [f"Model-UD-Q2_K_XL-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert found[2].nbytes == 102 + 103


def test_of_two_models_in_one_quant_the_one_like_the_others() -> None:
    found = variants(files("Model-128K-Q4_K_M.gguf", "Model-Q4_K_M.gguf", "Model-Q8_0.gguf"))
    assert [each.name for each in found] == ["Model-Q4_K_M.gguf", "Model-Q8_0.gguf"]


def test_a_file_by_its_path_brings_its_split_model() -> None:
    every = files("q/M-00001-of-00002.gguf", "q/M-00002-of-00002.gguf", "mmproj-M.gguf", "N-00001-of-00002.gguf")
    whole = of_file(every, "q/M-00002-of-00002.gguf")
    assert whole is not None and [file.path for file in whole.files] == [f"q/M-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert of_file(every, "none.gguf") is None
    with pytest.raises(SeventyError, match=r"lacks N-00002-of-00002\.gguf"):
        of_file(every, "N-00001-of-00002.gguf")


@pytest.mark.parametrize(
    "path, model",
    [
        ("Qwen3-Embedding-0.6B-Q8_0.gguf", True),
        ("Qwen3.6-27B-MTP-Q4_K_M.gguf", True),
        ("a/model.GGUF", True),
        ("mmproj-model-f16.gguf", False),
        ("model-mmproj-f16.gguf", False),
        ("imatrix.gguf", False),
        ("model.imatrix.gguf", False),
        ("lora/adapter.gguf", False),
        ("mtp-model.gguf", False),
        ("model-eagle3-Q4_K_M.gguf", False),
        ("README.md", False),
    ],
)
def test_what_is_no_model(path: str, model: bool) -> None:
    assert is_model(path) is model


def test_a_repository_cannot_write_elsewhere() -> None:
    for path in ("../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "a\\x.gguf", "a\nb.gguf"):
        with pytest.raises(SeventyError, match="leads out"):
            files(path)
    with pytest.raises(SeventyError, match="leads out"):
        RemoteFile(HuggingFace("http://127.0.0.1:9"), "../M", "x.gguf", 1, SUM)
    with pytest.raises(SeventyError, match="no size or no sha256"):
        RemoteFile(HuggingFace("http://127.0.0.1:9"), "me/M", "x.gguf", 1, "")
