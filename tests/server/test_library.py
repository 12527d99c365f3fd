"""Ollama's requests about the models themselves, by its Python client where that is installed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from seventy.cli.pull import unattended
from seventy.hub import store
from seventy.hub.local import Local
from seventy.server.guard import Rules
from seventy.server.library import served
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from tests.server.conftest import Loads, Running, running, serving
from tests.support import stores
from tests.support.hub import Hub, hub
from tests.support.tiny import write_tiny

__all__ = ["hub"]

OWNED = Rules({"anna": "secret-a", "bo": "secret-b"}, owners={"anna"})
ANNA, BO = {"Authorization": "Bearer secret-a"}, {"Authorization": "Bearer secret-b"}
REPOSITORY = "me/Own-GGUF"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our models with one in it, and a home without other programs'."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME",
                 "XDG_DATA_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "models").mkdir()
    write_tiny(tmp_path / "models" / "first.gguf")
    return tmp_path / "models"


@pytest.fixture
def server(folder: Path) -> Iterator[Running]:
    with running(ModelPool([served(Local(folder / "first.gguf", "seventy"))], Loads(512)), fetch=unattended) as server:
        server.wait()
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(server.url, trust_env=False)
    yield client
    client._client.close()


def names(server: Running, **options: Any) -> list[str]:
    return [model["name"] for model in server.client.get("/api/tags", **options).json()["models"]]


def offer(hub: Hub, tmp_path: Path) -> bytes:
    data = write_tiny(tmp_path / "source.gguf", format_name="Q8_0").read_bytes()
    hub.add(REPOSITORY).files["Own-Q8_0.gguf"] = data
    return data


def test_its_client_lists_shows_and_answers(client: Any) -> None:
    (listed,) = client.list().models
    assert listed.model == "first" and listed.size and len(listed.digest) == 64
    assert (listed.details.family, listed.details.quantization_level) == ("llama", "Q4_K")
    shown = client.show("first:latest")
    assert shown.modelinfo["general.architecture"] == "llama" and shown.modelinfo["llama.context_length"] == 512
    assert "completion" in shown.capabilities and "add_generation_prompt" in shown.template
    assert client.generate("first", "x", options={"num_predict": 2}, keep_alive="1h").done
    (loaded,) = client.ps().models
    assert loaded.name == "first" and loaded.context_length == 512 and loaded.expires_at


def test_its_client_pulls_copies_and_deletes(
    client: Any, server: Running, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    data = offer(hub, tmp_path)
    lines = [(line.status, line.completed) for line in client.pull(f"hf.co/{REPOSITORY}:Q8_0", stream=True)]
    assert lines[0][0] == "pulling manifest" and lines[-1][0] == "success"
    assert any(status.startswith("pulling hf.co/") and done for status, done in lines)
    path = folder / REPOSITORY / "Own-Q8_0.gguf"
    assert path.read_bytes() == data and names(server) == ["first", "Own-Q8_0"]
    assert client.pull(f"hf.co/{REPOSITORY}:Q8_0").status == "success"
    messages = [{"role": "user", "content": "x"}]
    for name in (f"hf.co/{REPOSITORY}:Q8_0", "Own-Q8_0"):
        assert client.chat(name, messages, options={"num_predict": 2}).model == "Own-Q8_0"
    assert client.copy("Own-Q8_0", "mine:8b").status == "success"
    assert (folder / "mine:8b.gguf").samefile(path) and names(server)[-1] == "mine:8b"
    assert client.delete("Own-Q8_0").status == "success" and not path.exists()
    assert client.chat("mine:8b", messages, options={"num_predict": 2}).done
    assert client.delete("mine:8b").status == "success"
    assert names(server) == ["first"] and store.present() == [folder / "first.gguf"]


def test_every_name_of_a_model_chooses_it(server: Running, hub: Hub, folder: Path, tmp_path: Path) -> None:
    data = offer(hub, tmp_path)
    hub.add("unsloth/Qwen3-8B-GGUF").files["Qwen3-8B-Q4_K_M.gguf"] = data + b"1"
    # Another model whose file is called alike.
    hub.add("you/Own-GGUF").files["Own-Q8_0.gguf"] = data + b"2"
    for name in ("qwen3:8b", f"hf:{REPOSITORY}:Q8_0", "hf:you/Own-GGUF:Q8_0"):
        assert server.client.post("/api/pull", json={"model": name, "stream": False}).status_code == 200
    assert names(server) == ["first", "Qwen3-8B-Q4_K_M", "Own-Q8_0", "hf:you/Own-GGUF:Q8_0"]
    find = server.pool.find
    for name in ("qwen3-8b", "Qwen3-8B:Q4_K_M", "ollama:qwen3", "hf.co/unsloth/qwen3-8b-gguf", "qwen3"):
        assert find(name, strict=True).name == "Qwen3-8B-Q4_K_M", name
    assert find("https://huggingface.co/me/Own-GGUF", strict=True).path == folder / REPOSITORY / "Own-Q8_0.gguf"
    assert find("hf:you/Own-GGUF", strict=True).path == folder / "you/Own-GGUF/Own-Q8_0.gguf"
    for name in ("qwen3-8b:Q8_0", "hf:me/Own-GGUF:Q4_K_M", "qwen3:14b", str(folder / "first.gguf"), "./first.gguf"):
        assert server.client.post("/api/show", json={"model": name}).status_code == 404, name


def test_its_client_is_told_what_is_wrong(client: Any, hub: Hub, folder: Path, tmp_path: Path) -> None:
    ollama = pytest.importorskip("ollama")
    for call in (lambda: client.show("other"), lambda: client.delete("other"), lambda: client.copy("other", "x")):
        with pytest.raises(ollama.ResponseError, match="'other' not found") as error:
            call()
        assert error.value.status_code == 404
    for name in ("../up", "a/b", "x y", "-", ""):
        with pytest.raises(ollama.ResponseError):
            client.copy("first", name)
    with pytest.raises(ollama.ResponseError, match="there is no model or file"):
        list(client.pull("nonsense-9000", stream=True))
    hub.add("me/Unknown-GGUF").files["Unknown-Q4_0.gguf"] = write_tiny(
        tmp_path / "unknown.gguf", "llama", **{"general.x": 1}
    ).read_bytes().replace(b"llama", b"lambo")
    with pytest.raises(ollama.ResponseError, match="cannot be run here"):
        client.pull("hf:me/Unknown-GGUF")
    assert store.present() == [folder / "first.gguf"]


@pytest.mark.parametrize("name", ["./first.gguf", "/etc/passwd", "~/x.gguf", "https://example.org/x.gguf", "SOURCE",
                                  "file:///etc/passwd"])  # fmt: skip
def test_only_names_of_hubs_are_pulled(open_server: Running, hub: Hub, tiny: Path, name: str) -> None:
    name = name.replace("SOURCE", str(tiny))
    answer = open_server.client.post("/api/pull", json={"model": name, "stream": False})
    assert answer.status_code == 400 and answer.json()["error"].startswith("there is no ")
    assert not hub.requests and names(open_server) == ["tiny"]


def test_a_download_ends_with_its_client(server: Running, hub: Hub, folder: Path, tmp_path: Path) -> None:
    offer(hub, tmp_path)
    hub.bytes_per_second = 200_000
    with server.client.stream("POST", "/api/pull", json={"model": f"hf:{REPOSITORY}"}) as response:
        for line in response.iter_lines():
            if json.loads(line).get("completed"):
                break
    # The next one goes on where it was.
    hub.bytes_per_second = 0.0
    assert server.client.post("/api/pull", json={"model": f"hf:{REPOSITORY}", "stream": False}).status_code == 200
    ranges = [seen.range for seen in hub.contents() if seen.range]
    assert len(ranges) > 1 and not ranges[-1].startswith("bytes=0-")


def test_what_other_programs_keep_is_not_deleted(server: Running, tmp_path: Path, tiny: Path) -> None:
    path = stores.lm_studio(tmp_path / "home", "x/Other-GGUF", "Other-Q4_K_M.gguf", tiny.read_bytes())
    server.pool.add(served(Local(path, "LM Studio")))
    answer = server.client.request("DELETE", "/api/delete", json={"model": "Other-Q4_K_M"})
    assert answer.status_code == 403 and "not in seventy's own folder" in answer.json()["error"] and path.exists()


def changing(client: httpx.Client, **options: Any) -> list[int]:
    """The answers to a pull, a copy and a delete of what is not there."""
    bodies: dict[str, Any] = {"pull": {"model": "nothing-here", "stream": False}, "delete": {"model": "nothing-here"}}
    bodies["copy"] = {"source": "nothing-here", "destination": "x"}
    return [
        client.request("DELETE" if what == "delete" else "POST", f"/api/{what}", json=body, **options).status_code
        for what, body in sorted(bodies.items())
    ]


ALLOWED, FORBIDDEN = [404, 404, 400], [403, 403, 403]


def test_with_keys_only_owners_change_models(tiny: Path) -> None:
    with serving(tiny, rules=OWNED) as server:
        assert changing(server.client, headers=ANNA) == ALLOWED
        assert changing(server.client, headers=BO) == FORBIDDEN
        assert changing(server.client) == [401, 401, 401]
        assert names(server, headers=BO) == ["tiny"]


@pytest.fixture(scope="module")
def open_server(tiny: Path) -> Iterator[Running]:
    """A server without keys that goes by a name of the network and lets pages of another site in."""
    rules = Rules(hosts=["box.lan"], origins=["https://ui.lan"])
    with running(ModelPool([ServedModel("tiny", tiny)], Loads(512)), rules, unattended) as server:
        yield server


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "10.0.0.7"}, {"X-Forwarded-Host": "box"}, {"Forwarded": "for=10.0.0.7"}, {"Via": "1.1 x"},
        {"X-Real-IP": "10.0.0.7"}, {"Host": "192.168.1.5:8070"}, {"Host": "box.lan"}, {"Origin": "https://ui.lan"},
    ],
)  # fmt: skip
def test_without_keys_only_this_machine_itself_does(open_server: Running, header: dict[str, str]) -> None:
    assert changing(open_server.client) == ALLOWED
    assert changing(open_server.client, headers={"Origin": open_server.url}) == ALLOWED
    assert changing(open_server.client, headers=header) == FORBIDDEN
    assert open_server.client.get("/v1/models", headers=header).status_code == 200
