"""Which hub is asked first, and what is said where none gives the model."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seventy.catalog.names import meaning
from seventy.errors import SeventyError
from seventy.hub import hubs
from seventy.hub.huggingface import HuggingFace
from seventy.hub.modelscope import ModelScope
from seventy.hub.names import Catalogued, Hosted
from tests.support.hub import DEAD, Hub, running

FIRST, SECOND = "unsloth/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF"
FILES = {"Qwen3-8B-Q4_K_M.gguf": bytes(1 << 20), "Qwen3-8B-Q8_0.gguf": bytes(2 << 20)}


@pytest.fixture
def other(hub: Hub) -> Iterator[Hub]:
    """A second stand-in: ModelScope, where `hub` is Hugging Face."""
    with running() as server:
        yield server


def wanted() -> Catalogued:
    found = meaning("qwen3-8b")
    assert found
    return Catalogued(found.name, None)


def test_with_a_mirror_set_it_is_asked_and_the_other_hub_is_not(hub: Hub, other: Hub) -> None:
    for server in (hub, other):
        server.add(FIRST).files.update(FILES)
    found = hubs.offered(wanted(), print, (HuggingFace(hub.url), ModelScope(other.url)))
    assert str(found) == f"hf:{FIRST}" and [each.quant for each in found.variants] == ["Q4_K_M", "Q8_0"]
    assert not other.requests and not hub.contents()


def test_with_only_modelscope_set_that_is_asked(hub: Hub, other: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    other.add(FIRST).files.update(FILES)
    found = hubs.offered(wanted(), print, (HuggingFace(hub.url), ModelScope(other.url)))
    assert str(found) == f"ms:{FIRST}" and not hub.requests


def test_a_mirror_that_only_an_address_names_gets_no_token_and_is_named_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(FIRST).files.update(FILES)
    monkeypatch.delenv("HF_ENDPOINT")
    asked = Hosted("hf", FIRST, endpoint=hub.url)
    found = hubs.offered(asked, print)
    with found.variants[0].files[0].open(0, 10) as body:
        assert b"".join(body.chunks)
    assert not any("authorization" in each.headers for each in hub.requests) and len(hub.requests) > 1
    assert found.command("Q8_0") == f"seventy pull {hub.url}/{FIRST}:Q8_0"
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert hubs.offered(asked, print).command("Q8_0") == f"seventy pull hf:{FIRST}:Q8_0"
    assert hub.requests[-1].headers["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize("slow", ["hf", "ms"])
def test_without_a_setting_both_are_tried_and_the_faster_is_taken(
    hub: Hub, other: Hub, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setattr(hubs, "PROBE_SECONDS", 1.5)
    for server in (hub, other):
        server.add(FIRST).files.update(FILES)
    (hub if slow == "hf" else other).bytes_per_second = 100_000
    said: list[str] = []
    found = hubs.offered(wanted(), said.append, (HuggingFace(hub.url), ModelScope(other.url)))
    assert found.hub.kind == {"hf": "ms", "ms": "hf"}[slow]
    assert len(said) == 1 and f"taken: {found.hub.title}" in said[0] and "MB/s" in said[0]
    # A range of the model itself, not the whole of it.
    assert [seen.range for seen in (*hub.contents(), *other.contents())] == ["bytes=0-2097151"] * 2


def test_without_a_setting_one_dead_hub_is_no_matter(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    hub.add(FIRST).files.update(FILES)
    assert hubs.offered(wanted(), print, (HuggingFace(DEAD), ModelScope(hub.url))).hub.kind == "ms"
    assert hubs.offered(wanted(), print, (HuggingFace(hub.url), ModelScope(DEAD))).hub.kind == "hf"


def test_without_a_setting_a_hub_that_never_answers_is_not_waited_for(
    hub: Hub, other: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setattr(hubs, "PROBE_SECONDS", 0.3)
    other.add(FIRST).files.update(FILES)
    hub.add(FIRST).files.update(FILES)
    hub.listing_faults = ["stall"]
    began = time.monotonic()
    assert hubs.offered(wanted(), print, (HuggingFace(hub.url), ModelScope(other.url))).hub.kind == "ms"
    assert time.monotonic() - began < 5


def test_the_next_repository_where_the_first_is_gone(hub: Hub) -> None:
    hub.add(SECOND).files.update(FILES)
    assert hubs.offered(wanted(), print).repository == SECOND


def test_a_mirror_that_is_dead_leaves_the_other_hub(hub: Hub) -> None:
    hub.add(FIRST).files.update(FILES)
    found = hubs.offered(wanted(), print, (HuggingFace(DEAD), ModelScope(hub.url)))
    assert found.hub.kind == "ms"


def test_when_neither_answers_the_message_names_a_mirror_and_modelscope(folder: Path, hub: Hub) -> None:
    example = r"HF_ENDPOINT=https://hf-mirror\.com seventy pull qwen3-8b.*seventy pull ms:unsloth/Qwen3-8B-GGUF"
    with pytest.raises(SeventyError, match=example):
        hubs.offered(wanted(), print, (HuggingFace(DEAD), ModelScope(DEAD)))


def test_a_repository_by_its_name(hub: Hub) -> None:
    hub.add("me/M-GGUF").files.update({"README.md": b"", "M-Q4_K_M.gguf": bytes(10), "mmproj-f16.gguf": bytes(5)})
    hub.add("me/M").files.update({"model.safetensors": bytes(10)})
    for kind in ("hf", "ms"):
        assert [each.name for each in hubs.offered(Hosted(kind, "me/M-GGUF"), print).variants] == ["M-Q4_K_M.gguf"]
        # A file is taken as it is asked for, even where it is no model of its own.
        one = hubs.offered(Hosted(kind, "me/M-GGUF", None, "mmproj-f16.gguf"), print)
        assert [each.name for each in one.variants] == ["mmproj-f16.gguf"]
        with pytest.raises(SeventyError, match=r"no file x\.gguf; its \.gguf files: M-Q4_K_M\.gguf, mmproj-f16\.gguf"):
            hubs.offered(Hosted(kind, "me/M-GGUF", None, "x.gguf"), print)
        with pytest.raises(SeventyError, match=r"has no \.gguf model.*M-GGUF"):
            hubs.offered(Hosted(kind, "me/M"), print)
