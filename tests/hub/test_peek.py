"""The header of a model on a hub, read before the model is fetched."""

from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub import peek
from seventy.hub.huggingface import HuggingFace
from seventy.hub.listing import Interrupted, RemoteFile
from tests.support import gguf_writer as writer
from tests.support.hub import Hub, sha256


def remote(hub: Hub, data: bytes) -> RemoteFile:
    hub.add("me/M").files["m.gguf"] = data
    return RemoteFile(HuggingFace(), "me/M", "m.gguf", len(data), sha256(data))


def test_as_much_as_the_header_takes(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peek, "_FIRST_BYTES", 4096)
    tokens = [f"token {number}" for number in range(20_000)]
    metadata: dict[str, object] = {"general.architecture": "llama", "tokenizer.ggml.tokens": tokens}
    path = tmp_path / "m.gguf"
    writer.write(path, metadata, {"t": ((1 << 21,), 24, bytes(1 << 21))})
    header = peek.peek(remote(hub, path.read_bytes()))
    with GGUF(path) as whole:
        assert header.tensors == whole.tensors and set(header.metadata) == set(whole.metadata)
    assert list(header.metadata["tokenizer.ggml.tokens"]) == tokens
    ranges = [seen.range for seen in hub.contents()]
    assert ranges[0] == "bytes=0-4095" and len(ranges) < 8
    # Each byte once, and no more than four times what was needed.
    assert sum(int(r.split("-")[1]) + 1 - int(r.split("=")[1].split("-")[0]) for r in ranges if r) < 4 * 500_000
    with pytest.raises(SeventyError, match="not been fetched"):
        header.read(header.tensors["t"])


def test_of_no_model(hub: Hub) -> None:
    with pytest.raises(SeventyError, match="is not a GGUF file: it is a web page"):
        peek.peek(remote(hub, b"<html>" * 10_000))
    assert len(hub.contents()) == 1


def test_broken_answers_are_asked_for_again(hub: Hub) -> None:
    data = writer.build({"general.architecture": "llama"}, {"t": ((64,), 24, bytes(64))})
    file = remote(hub, data)
    hub.faults = ["drop", "503"]
    assert peek.peek(file).metadata["general.architecture"] == "llama"
    hub.faults = ["503"] * 9
    with pytest.raises(SeventyError, match=r"does not give m\.gguf"):
        peek.peek(file)
    hub.faults, hub.ranges = [], False
    assert peek.peek(file).metadata["general.architecture"] == "llama"


def test_interrupted_is_no_message_for_people() -> None:
    assert not issubclass(Interrupted, SeventyError)
