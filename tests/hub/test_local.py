"""What is on this disk: our folder and other programs' stores, found by every name and never changed."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.hub import local
from tests.support import stores
from tests.support.tiny import write_tiny


@pytest.fixture
def home(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def data(tiny: Path) -> bytes:
    return tiny.read_bytes()


def labels() -> dict[str, str]:
    return {model.label: model.store for model in local.inventory().models}


def test_every_store(home: Path, folder: Path, data: bytes) -> None:
    stores.hugging_face(home, "unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", data + b"1")
    stores.ollama(home / ".ollama/models", "qwen3:4b", data + b"2")
    stores.ollama(home / ".ollama/models", "mine/thing:latest", data + b"3", "Q8_0")
    stores.ollama(home / ".ollama/models", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0", data + b"4", "Q8_0")
    stores.lm_studio(home, "lmstudio-community/gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q4_K_M.gguf", data + b"5")
    stores.lm_studio(home, "lmstudio-community/gemma-3-4b-it-GGUF", "mmproj-gemma-3-4b-it-f16.gguf", data)
    stores.jan(home, "Jan-v3-4B-Q8_0", data + b"6")
    for path in (folder / "qwen2.5-7b-instruct-q4_k_m.gguf", folder / "me/My-GGUF/My-Q6_K.gguf"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + path.name.encode())
    assert labels() == {
        "qwen2.5-7b:Q4_K_M": "seventy",
        "hf:me/My-GGUF:Q6_K": "seventy",
        "qwen3-8b:Q4_K_M": "Hugging Face cache",
        "qwen3-4b-thinking-2507:Q4_K_M": "Ollama",
        "mine/thing:latest": "Ollama",
        "llama-3.2-1b:Q8_0": "Ollama",
        "gemma-3-4b:Q4_K_M": "LM Studio",
        "Jan-v3-4B-Q8_0": "Jan",
    }


@pytest.mark.parametrize("name", ["qwen3-8b", "qwen3:8b", "qwen3", "qwen3-8b:Q4_K_M", "hf:unsloth/Qwen3-8B-GGUF",
                                  "hf:unsloth/Qwen3-8B-GGUF:Q4_K_M", "hf.co/unsloth/qwen3-8b-gguf:q4_k_m",
                                  "https://huggingface.co/unsloth/Qwen3-8B-GGUF/resolve/main/Qwen3-8B-Q4_K_M.gguf",
                                  "Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M"])  # fmt: skip
def test_a_file_of_the_hub_cache_by_its_names(home: Path, data: bytes, name: str) -> None:
    path = stores.hugging_face(home, "unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", data)
    assert local.find(name) == path
    with pytest.raises(SeventyError, match="not on this machine yet; get it with: seventy pull qwen3-8b:Q8_0"):
        local.find("qwen3-8b:Q8_0")


@pytest.mark.parametrize("name", ["qwen3:8b", "qwen3-8b", "ollama:qwen3:8b"])
def test_a_blob_of_ollama_by_its_names(home: Path, data: bytes, name: str) -> None:
    blob = stores.ollama(home / ".ollama/models", "qwen3:8b", data)
    assert local.find(name) == blob


def test_models_that_only_ollama_knows(home: Path, data: bytes) -> None:
    blob = stores.ollama(home / ".ollama/models", "mine/thing:latest", data)
    assert local.find("mine/thing") == local.find("mine/thing:latest") == blob
    # What is here under a name that means two models is meant.
    other = stores.ollama(home / ".ollama/models", "deepseek-r1:latest", data + b"x")
    assert local.find("deepseek-r1") == other


def test_what_ollama_keeps_in_a_way_of_its_own_is_refused_by_name(home: Path, data: bytes) -> None:
    stores.ollama(home / ".ollama/models", "tuned:latest", data, further=("adapter",))
    with pytest.raises(SeventyError, match=r"tuned:latest in Ollama cannot be used: it has an adapter"):
        local.find("tuned")


def test_other_layouts_of_ollamas_store(home: Path, data: bytes) -> None:
    root = home / ".ollama/models"
    manifests = root / "manifests/registry.ollama.ai/library"
    blob = stores.ollama(root, "qwen3:8b", data)
    # As it wrote blobs at first.
    blob.rename(blob.with_name(blob.name.replace("-", ":")))
    assert local.find("qwen3:8b").read_bytes() == data
    stores.ollama(root, "apart:latest", b"1", further=("tensor",))
    stores.ollama(root, "far:cloud", b"2")
    for name, kept, config in (("apart/latest", "tensor", None), ("far/cloud", "template", {"remote_host": "x.com"})):
        manifest = json.loads((manifests / name).read_text())
        manifest["layers"] = [layer for layer in manifest["layers"] if layer["mediaType"].endswith(kept)]
        (manifests / name).write_text(json.dumps(manifest))
        if config:
            digest = manifest["config"]["digest"].replace(":", "-")
            (root / "blobs" / digest).write_text(json.dumps(config))
    with pytest.raises(SeventyError, match="apart:latest in Ollama cannot be used: Ollama keeps each of its tensors"):
        local.find("apart")
    with pytest.raises(SeventyError, match=r"far:cloud in Ollama cannot be used: it runs on x\.com, not here"):
        local.find("far:cloud")


def test_a_pipe_is_no_model(home: Path, folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "x.gguf")
    assert labels() == {}


def test_of_several_quants_the_one_nearest_to_four_bits(home: Path, data: bytes) -> None:
    for quant in ("Q8_0", "Q4_K_M", "Q2_K"):
        stores.lm_studio(home, "x/Qwen3-8B-GGUF", f"Qwen3-8B-{quant}.gguf", data + quant.encode())
    assert local.find("qwen3-8b").name == "Qwen3-8B-Q4_K_M.gguf"
    assert local.find("qwen3-8b:Q8_0").name == "Qwen3-8B-Q8_0.gguf"


def test_a_file_is_shown_once(home: Path, folder: Path, data: bytes) -> None:
    path = stores.lm_studio(home, "x/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", data)
    folder.mkdir()
    os.link(path, folder / "Qwen3-8B-Q4_K_M.gguf")
    assert labels() == {"qwen3-8b:Q4_K_M": "seventy"}


def test_split_models_and_what_is_half_there(home: Path, folder: Path, data: bytes) -> None:
    for number in (1, 2):
        stores.lm_studio(home, "x/Big-GGUF", f"Big-Q4_K_M-0000{number}-of-00002.gguf", data)
    (folder / ".partial").mkdir(parents=True)
    (folder / ".partial/x.gguf").write_bytes(data)
    link = stores.hugging_face(home, "x/Gone-GGUF", "Gone-Q4_K_M.gguf", data)
    link.resolve().unlink()
    found = local.inventory().models
    assert [(model.path.name, model.nbytes) for model in found] == [("Big-Q4_K_M-00001-of-00002.gguf", 2 * len(data))]
    assert len(found[0].files) == 2


def test_folders_that_programs_were_told(
    home: Path, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    stores.ollama(tmp_path / "ollama", "qwen3:8b", data + b"1")
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    stores.hugging_face(tmp_path, "x/A-GGUF", "A-Q8_0.gguf", data + b"2")
    (tmp_path / ".cache/huggingface").rename(tmp_path / "hf")
    (home / ".lmstudio-home-pointer").write_text(f"{tmp_path}/lms\n")
    (tmp_path / "lms").mkdir()
    (tmp_path / "lms/settings.json").write_text(json.dumps({"downloadsFolder": f"{tmp_path}/big"}))
    (tmp_path / "big/x/B-GGUF").mkdir(parents=True)
    (tmp_path / "big/x/B-GGUF/B-Q8_0.gguf").write_bytes(data + b"3")
    assert set(labels()) == {"qwen3-8b:Q4_K_M", "hf:x/A-GGUF:Q8_0", "hf:x/B-GGUF:Q8_0"}


def test_a_store_that_may_not_be_read_is_said(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("SEVENTY_MODELS", f"{home}/models")
        root = Path(home, ".ollama/models")
        stores.ollama(root, "qwen3:8b", data)
        blob = stores.ollama(root, "qwen3:4b", data + b"x")
        for path in (Path(home, ".ollama"), *Path(home, ".ollama").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        user = os.geteuid()
        for closed, shown in ((root / "manifests", 0), (root / "blobs", 0), (blob.parent.parent.parent, 0)):
            closed.chmod(0o700 if user == 0 else 0)
            # Root may read everything.
            os.seteuid(65534 if user == 0 else user)
            try:
                found = local.inventory()
            finally:
                os.seteuid(user)
                closed.chmod(0o755)
            assert len(found.models) == shown
            assert any(str(closed) in note and "may not be read" in note for note in found.notes), found.notes


def test_stores_with_nonsense_in_them(home: Path, data: bytes) -> None:
    root = home / ".ollama/models"
    stores.ollama(root, "qwen3:8b", data)
    library = root / "manifests/registry.ollama.ai/library"
    for at, text in enumerate(("", "[]", "{", '{"layers": 3}', '{"layers": [3, {"digest": 4}]}')):
        (library / f"broken{at}").mkdir()
        (library / f"broken{at}/latest").write_text(text)
    (library / "f").mkdir()
    evil = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../../etc/passwd"}
    (library / "f/latest").write_text(json.dumps({"layers": [evil]}))
    (home / ".lmstudio").mkdir()
    (home / ".lmstudio/settings.json").write_text('{"downloadsFolder": 3}')
    assert list(labels()) == ["qwen3-8b:Q4_K_M"]


def test_a_file_by_its_path(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "some.gguf")
    monkeypatch.chdir(tmp_path)
    assert local.find("some.gguf") == Path("some.gguf") and local.find(str(path)) == path
    with pytest.raises(SeventyError, match=r"no model or file 'other\.gguf'"):
        local.find("other.gguf")
