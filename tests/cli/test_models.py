import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import gguf_writer as writer
from tests.support.tiny import write_tiny


def seventy(*arguments: str, models: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seventy", *arguments]
    environment = os.environ | {"SEVENTY_MODELS": str(models), "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny\n\x1b[31mmodel",
        "llama.context_length": 2048,
        "llama.attention.head_count": 4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.chat_template": "{{ 'hello' }}",
    }
    writer.write(tmp_path / "tiny.gguf", metadata, {"t": ((32, 2), 8, bytes(68)), "n": ((32,), 0, bytes(128))})
    return tmp_path


def test_list(models: Path) -> None:
    result = seventy("models", models=models)
    assert result.returncode == 0, result.stderr
    head, *lines = result.stdout.splitlines()
    assert head.split()[0] == "NAME"
    rows = {line.split()[0]: line for line in lines}
    assert "seventy pull smollm2" in rows["smollm2"]
    assert any(line.endswith(str(models / "tiny.gguf")) for line in lines)


def test_info(models: Path) -> None:
    result = seventy("models", "info", "tiny", models=models)
    assert result.returncode == 0, result.stderr
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["name"] == "Tiny  [31mmodel"
    assert (rows["architecture"], rows["context"], rows["tokenizer"]) == ("llama", "2048", "gpt2 smollm")
    assert rows["vocabulary"] == "2 tokens" and rows["heads"].startswith("4, 4")
    assert rows["Q8_0 tensors"] == "1, 0.0 MB" and rows["F32 tensors"] == "1, 0.0 MB"
    assert seventy("models", "info", "tiny", "--template", models=models).stdout == "{{ 'hello' }}\n"


def test_info_says_what_it_needs_and_how_fast_it_should_be(models: Path) -> None:
    write_tiny(models / "works.gguf", context_length=1 << 20)
    result = seventy("models", "info", "works", models=models)
    assert result.returncode == 0, result.stderr
    rows = {line[:14].strip(): line[14:].strip() for line in result.stdout.splitlines()}
    assert re.fullmatch(
        r"\d+\.\d MB with a context of 4096 \(\d+\.\d GB of \d+\.\d GB are free for it\)", rows["needs"]
    )
    assert rows["at its limit"] == "1.3 GB with a context of 1048576"
    assert re.match(r"about \d.* tok/s \(.* to .*\)", rows["speed here"])
    result = seventy("models", "info", "tiny", models=models)
    assert "runs here" in result.stdout and "metadata lacks llama.embedding_length" in result.stdout


def test_info_of_no_model(models: Path) -> None:
    (models / "bad.gguf").write_bytes(b"GGUF")
    for name in ("bad", "none", str(models)):
        result = seventy("models", "info", name, models=models)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("seventy: ") and len(result.stderr.splitlines()) == 1


def test_pull_of_no_model(models: Path) -> None:
    result = seventy("pull", "nobody", models=models)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no model or file 'nobody'" in result.stderr and len(result.stderr.splitlines()) == 1
