"""Every form of a name, and what it means."""

from pathlib import Path

import pytest

from seventy.catalog.names import AmbiguousName
from seventy.errors import SeventyError
from seventy.hub.huggingface import HuggingFace
from seventy.hub.names import Address, Catalogued, Hosted, LocalFile, Packaged, resolve

REPOSITORY = "Qwen/Qwen3-8B-GGUF"


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("smollm2", Packaged("smollm2")),
        (f"hf:{REPOSITORY}", Hosted("hf", REPOSITORY)),
        (f"hf:{REPOSITORY}:q4_k_m", Hosted("hf", REPOSITORY, "Q4_K_M")),
        (f"hf:{REPOSITORY}:latest", Hosted("hf", REPOSITORY)),
        (f"hf:{REPOSITORY}/q4/x y.gguf", Hosted("hf", REPOSITORY, None, "q4/x y.gguf")),
        (f"hf://{REPOSITORY}", Hosted("hf", REPOSITORY)),
        (f"hf.co/{REPOSITORY}:Q4_K_M", Hosted("hf", REPOSITORY, "Q4_K_M")),
        (f"huggingface.co/{REPOSITORY}", Hosted("hf", REPOSITORY)),
        (f"https://huggingface.co/{REPOSITORY}", Hosted("hf", REPOSITORY)),
        (f"https://huggingface.co/{REPOSITORY}:UD-Q4_K_XL", Hosted("hf", REPOSITORY, "UD-Q4_K_XL")),
        (f"https://huggingface.co/{REPOSITORY}/tree/main", Hosted("hf", REPOSITORY)),
        (f"https://huggingface.co/{REPOSITORY}/tree/main/Q4_K_M?x=1", Hosted("hf", REPOSITORY, "Q4_K_M")),
        (f"https://hf.co/{REPOSITORY}/resolve/main/q/a%20b.gguf", Hosted("hf", REPOSITORY, None, "q/a b.gguf")),
        (f"https://hf.co/{REPOSITORY}/blob/main/a.gguf?download=true", Hosted("hf", REPOSITORY, None, "a.gguf")),
        (f"https://hf-mirror.com/{REPOSITORY}", Hosted("hf", REPOSITORY)),
        (f"ms:{REPOSITORY}:Q8_0", Hosted("ms", REPOSITORY, "Q8_0")),
        (f"ms:{REPOSITORY}/a.gguf", Hosted("ms", REPOSITORY, None, "a.gguf")),
        (f"https://www.modelscope.cn/models/{REPOSITORY}/files", Hosted("ms", REPOSITORY)),
        (f"https://modelscope.cn/models/{REPOSITORY}/resolve/master/a.gguf", Hosted("ms", REPOSITORY, None, "a.gguf")),
        (f"HF.CO/{REPOSITORY}/", Hosted("hf", REPOSITORY)),
        (f"HF:{REPOSITORY}:", Hosted("hf", REPOSITORY)),
        (f"hf:{REPOSITORY}:i1-Q4_K_M", Hosted("hf", REPOSITORY, "Q4_K_M")),
        (f"hf.co/{REPOSITORY}:a-Q8_0.gguf", Hosted("hf", REPOSITORY, None, "a-Q8_0.gguf")),
        (f"https://huggingface.co/{REPOSITORY}/tree/main/UD-Q4_K_XL/", Hosted("hf", REPOSITORY, "UD-Q4_K_XL")),
        (f"https://huggingface.co/{REPOSITORY}/raw/main/a.gguf", Hosted("hf", REPOSITORY, None, "a.gguf")),
        (f"https://huggingface.co/{REPOSITORY}?show_file_info=q%2Fa.gguf", Hosted("hf", REPOSITORY, None, "q/a.gguf")),
        (f"https://huggingface.co/{REPOSITORY}/discussions/3", Hosted("hf", REPOSITORY)),
        (f"https://hf.co/{REPOSITORY}/blob/main/%E5%8D%83%20x.gguf", Hosted("hf", REPOSITORY, None, "千 x.gguf")),
        (f"https://modelscope.cn/models/{REPOSITORY}/file/view/master?fileName=a.gguf&status=2",
         Hosted("ms", REPOSITORY, None, "a.gguf")),
        (f"https://modelscope.cn/api/v1/models/{REPOSITORY}/repo?Revision=master&FilePath=q%2Fa.gguf",
         Hosted("ms", REPOSITORY, None, "q/a.gguf")),
        ("https://example.org/x.gguf", Address("https://example.org/x.gguf")),
        ("./x.gguf", LocalFile(Path("x.gguf"))),
        ("x.gguf", LocalFile(Path("x.gguf"))),
        ("/models/x", LocalFile(Path("/models/x"))),
        ("./模型/千问 8B.gguf", LocalFile(Path("模型/千问 8B.gguf"))),
        ("file:///models/a%20b.gguf", LocalFile(Path("/models/a b.gguf"))),
    ],
)
def test_forms(text: str, meaning: object) -> None:
    assert resolve(text) == meaning


def test_the_mirror_that_an_address_names_is_asked_unless_another_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    wanted = resolve(f"https://hf-mirror.com/{REPOSITORY}")
    assert isinstance(wanted, Hosted) and wanted.endpoint
    assert HuggingFace(mirror=wanted.endpoint).endpoint == "https://hf-mirror.com"
    monkeypatch.setenv("HF_ENDPOINT", "http://box:8080/")
    assert HuggingFace(mirror=wanted.endpoint).endpoint == "http://box:8080"
    # A page of that one, as a browser shows it; a file is fetched by its address.
    assert resolve(f"http://box:8080/{REPOSITORY}/tree/main") == Hosted("hf", REPOSITORY)
    page = f"http://box:8080/{REPOSITORY}/blob/main/a.gguf"
    assert resolve(page) == Hosted("hf", REPOSITORY, None, "a.gguf")
    assert isinstance(resolve("http://box:8080/x.gguf"), Address)


@pytest.mark.parametrize("endpoint", ["http://[::1", "127.0.0.1:8080", "ftp://box", "http://box:99999"])
def test_a_setting_that_is_no_address_is_said(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(SeventyError, match=r"HF_ENDPOINT=.* is no address"):
        HuggingFace()


@pytest.mark.parametrize(
    "text", ["https://ollama.com/library/qwen3:8b", "ollama.com/library/qwen3", "registry.ollama.ai/library/qwen3:8b",
             "OLLAMA:qwen3:8b"]
)  # fmt: skip
def test_a_page_of_ollamas_library_is_its_name(text: str) -> None:
    assert resolve(text) == resolve("ollama:qwen3:8b")


@pytest.mark.parametrize("text", ["llama-3.3-70b", "qwen3.6-35b-a3b", "gpt-oss-120b", "qwen3:8b", "deepseek-r1:70b"])
def test_names_of_the_catalogue(text: str) -> None:
    assert isinstance(resolve(text), Catalogued)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("hf:Qwen", "is not like hf:OWNER/REPOSITORY"),
        (f"hf:{REPOSITORY}/x.bin", "is not like"),
        (f"ms:{REPOSITORY}/../../x.gguf", "leads out of the repository"),
        (REPOSITORY, f"is written hf:{REPOSITORY}"),
        (f"https://hf.co/{REPOSITORY}/resolve/v2/a.gguf", "names the revision v2; only the newest"),
        (f"https://hf.co/{REPOSITORY}/resolve/refs%2Fpr%2F1/a.gguf", "names the revision refs/pr/1"),
        (f"https://hf.co/{REPOSITORY}/tree/v2/Q4_K_M", "names the revision v2"),
        (f"https://modelscope.cn/api/v1/models/{REPOSITORY}/repo?Revision=v2&FilePath=a.gguf", "the revision v2"),
        ("qwen3-9b", "did you mean"),
        ("nobody", "names are like llama-3.3-70b"),
    ],
)
def test_what_means_nothing(text: str, sentence: str) -> None:
    with pytest.raises(SeventyError, match=sentence):
        resolve(text)


def test_two_meanings() -> None:
    with pytest.raises(AmbiguousName):
        resolve("deepseek-r1")
