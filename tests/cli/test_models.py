import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import gguf_writer as writer
from tests.support import stores
from tests.support.tiny import EXPERTS, USED, write_tiny


def seventy(*arguments: str, models: Path) -> subprocess.CompletedProcess[str]:
    """A command whose own models lie in `models`, and other programs' below `models`/home."""
    command = [sys.executable, "-m", "seventy", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "OLLAMA"))}
    environment |= {"SEVENTY_MODELS": str(models), "PATH": "", "HOME": str(models.parent / "home")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tmp_path /= "models"
    tmp_path.mkdir()
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


def rows_of(result: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    assert result.returncode == 0, result.stderr
    rows = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_list(models: Path) -> None:
    write_tiny(models / "works-Q4_K_M.gguf")
    rows = rows_of(seventy("models", models=models))
    assert rows["NAME"] == ["SIZE", "QUANT", "ARCHITECTURE", "HERE", "IN", "FILE"]
    assert rows["smollm2"][3] == "not here yet; seventy pull smollm2"
    assert rows[str(models / "tiny.gguf")][2:5] == [
        "llama", "no: the model's metadata lacks llama.embedding_length; get the file again", "seventy"
    ]  # fmt: skip
    works = rows[str(models / "works-Q4_K_M.gguf")]
    assert works[1:3] == ["Q4_K_M", "llama"] and re.fullmatch(r"about [\d.]+ tok/s", works[3])


def test_what_other_programs_keep_is_listed_run_and_never_deleted(models: Path, tiny: Path) -> None:
    home, data = models.parent / "home", tiny.read_bytes()
    kept = [
        stores.hugging_face(home, "unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", data + b"1"),
        stores.ollama(home / ".ollama/models", "llama3.2:1b", data + b"2"),
        stores.lm_studio(home, "lmstudio-community/gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q8_0.gguf", data + b"3"),
        stores.jan(home, "Mine-Q6_K", data + b"4"),
    ]
    foreign = stores.ollama(home / ".ollama/models", "own-engine:latest", _other_architecture(models / "x.gguf"))
    (models / "x.gguf").unlink()
    before = {path: path.read_bytes() for path in (*kept, foreign)}
    rows = rows_of(seventy("models", models=models))
    names = {
        "qwen3-8b:Q4_K_M": "Hugging Face cache", "llama-3.2-1b:Q4_K_M": "Ollama", "gemma-3-4b:Q8_0": "LM Studio",
        "Mine-Q6_K": "Jan",
    }  # fmt: skip
    for name, store in names.items():
        assert rows[name][4] == store and rows[name][3].startswith("about "), name
        result = seventy("run", name, "x", "-n", "2", "--raw", "--ignore-eos", "--threads", "1", models=models)
        assert result.returncode == 0 and result.stdout, result.stderr
        result = seventy("models", "rm", name, models=models)
        assert result.returncode == 1 and f"not ours but in {store}" in result.stderr
    assert rows["own-engine:latest"][3] == "no: seventy does not run the architecture nosuch yet"
    assert {path: path.read_bytes() for path in (*kept, foreign)} == before


def _other_architecture(path: Path) -> bytes:
    writer.write(path, {"general.architecture": "nosuch"}, {"t": ((32,), 0, bytes(128))})
    return path.read_bytes()


def test_rm_deletes_what_is_ours_and_says_what_that_frees(models: Path, tiny: Path) -> None:
    ours = models / "unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(tiny.read_bytes())
    with ours.open("rb") as still_open:
        result = seventy("models", "rm", "qwen3-8b:Q8_0", models=models)
        # Whoever has it open keeps it.
        assert still_open.read() == tiny.read_bytes()
    assert re.fullmatch(r"deleted Qwen3-8B-Q8_0\.gguf, freed \d\.\d MB\n", result.stdout), result.stderr
    assert not (models / "unsloth").exists() and (models / "tiny.gguf").exists()
    for arguments in (("models", "rm"), ("models", "rm", "qwen3-8b"), ("models", "rm", "nobody")):
        assert seventy(*arguments, models=models).returncode == 1


def test_rm_of_what_downloads_left_behind(models: Path) -> None:
    partial = models / ".partial"
    partial.mkdir()
    for name in ("aa.part", "aa.part.journal", "aa.lock", "bb.part", "bb.part.journal", "bb.lock"):
        (partial / name).write_bytes(b"x" * 5000)
    assert "unfinished downloads: 0.0 MB" in seventy("models", models=models).stderr
    with (partial / "bb.lock").open("a+b") as busy:
        fcntl.flock(busy.fileno(), fcntl.LOCK_EX)
        result = seventy("models", "rm", "--unfinished", models=models)
    assert result.returncode == 0 and result.stdout.startswith("freed ")
    assert sorted(path.name for path in partial.glob("*.part*")) == ["bb.part", "bb.part.journal"]


def test_add_links_or_copies(models: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> None:
    result = seventy("models", "add", str(tiny), models=models)
    added = models / tiny.name
    # A file of that name is there already.
    assert result.returncode == 1 and "is there already" in result.stderr
    added.unlink()
    result = seventy("models", "add", str(tiny), models=models)
    assert result.stdout == f"{added}\n" and "linked" in result.stderr and added.samefile(tiny)
    result = seventy("models", "rm", tiny.name, models=models)
    assert "freed 0.0 MB; another link to the same bytes remains" in result.stdout and tiny.exists()
    split = write_tiny(tmp_path_factory.mktemp("split") / "parts.gguf", split=12).parent
    result = seventy("models", "add", str(next(split.glob("parts-00002-of-*.gguf"))), models=models)
    assert result.returncode == 0 and len(list(models.glob("parts-*-of-*.gguf"))) > 1, result.stderr
    (models / "bad.gguf").write_bytes(b"GGUF")
    assert seventy("models", "add", str(models / "bad.gguf"), models=models).returncode == 1


def test_all_names(models: Path) -> None:
    rows = rows_of(seventy("models", "--all", models=models))
    assert rows["llama-3.3-70b"][:2] == ["42.5 GB", "Q4_K_M"] and rows["llama-3.3-70b"][3] == "llama3.3:70b"
    for name, row in rows.items():
        assert name == "NAME" or re.match(r"about [\d.]+ tok/s$|no: ", row[2]), row
        assert name == "NAME" or row[4].startswith(("hf:", "ms:"))


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


def test_info_of_a_mixture(models: Path) -> None:
    write_tiny(models / "mixture.gguf", "qwen3moe")
    result = seventy("models", "info", "mixture", models=models)
    rows = {line[:14].strip(): line[14:].strip() for line in result.stdout.splitlines()}
    assert rows["experts"] == f"{EXPERTS}, a token uses {USED}"
    said = r"(\d+\.\d) MB of the weights; four texts at once, a token of each, about (\d+\.\d) MB"
    found = re.fullmatch(said, rows["a token reads"])
    assert found and 0 < float(found[1]) < float(found[2]) < (models / "mixture.gguf").stat().st_size / 1e6


def test_info_of_no_model(models: Path) -> None:
    (models / "bad.gguf").write_bytes(b"GGUF")
    for name in ("bad", "none", str(models)):
        result = seventy("models", "info", name, models=models)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("seventy: ") and len(result.stderr.splitlines()) == 1
