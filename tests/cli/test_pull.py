"""`seventy pull` and what fetches by name, through the command line, from a stand-in hub."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from seventy.catalog.names import all_names
from seventy.cli import main, pull
from seventy.hub import transfer
from seventy.hub.names import Catalogued
from seventy.plan import here, proposal
from tests.support import stores
from tests.support.hub import Hub, running
from tests.support.tiny import write_tiny


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME",
                 "XDG_DATA_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / "models"))
    return tmp_path / "home"


@pytest.fixture
def seventy(home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["seventy", *arguments])
        monkeypatch.setattr(sys, "stdin", None)
        code: object = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        said = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0, said.out, said.err)

    return run


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> dict[str, bytes]:
    """A repository of the catalogue's qwen3-8b and one it does not know, each in two quants, of tiny files."""
    files = {}
    for quant, kind in (("Q4_K_M", "Q4_K"), ("Q8_0", "Q8_0")):
        files[quant] = write_tiny(tmp_path / f"{quant}.gguf", format_name=kind).read_bytes()
    for repository, stem in (("unsloth/Qwen3-8B-GGUF", "Qwen3-8B"), ("me/Own-GGUF", "Own")):
        hub.add(repository).files.update({f"{stem}-{quant}.gguf": data for quant, data in files.items()})
        hub.repositories[repository].files[f"mmproj-{stem}-f16.gguf"] = b"x"
    return files


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 50 GB/s, on which a model of 8 billion parameters is slower with 8 bits than 10 tok/s."""
    machine = replace(here.this_machine(), measured_gbs=50.0, memory_bytes=16 << 30, room_bytes=15 << 30)
    monkeypatch.setattr(here, "this_machine", lambda: machine)


@pytest.mark.parametrize(
    "name, repository, quant",
    [
        ("qwen3-8b", "unsloth/Qwen3-8B-GGUF", "Q4_K_M"),
        ("qwen3:8b", "unsloth/Qwen3-8B-GGUF", "Q4_K_M"),
        ("qwen3:8b-q8_0", "unsloth/Qwen3-8B-GGUF", "Q8_0"),
        ("qwen3-8b:Q8_0", "unsloth/Qwen3-8B-GGUF", "Q8_0"),
        ("hf:me/Own-GGUF:Q8_0", "me/Own-GGUF", "Q8_0"),
        ("hf.co/me/Own-GGUF:q4_k_m", "me/Own-GGUF", "Q4_K_M"),
        ("https://huggingface.co/me/Own-GGUF:Q4_K_M", "me/Own-GGUF", "Q4_K_M"),
        ("https://huggingface.co/me/Own-GGUF/resolve/main/Own-Q8_0.gguf", "me/Own-GGUF", "Q8_0"),
        ("hf:me/Own-GGUF/Own-Q4_K_M.gguf", "me/Own-GGUF", "Q4_K_M"),
        ("ms:me/Own-GGUF:Q4_K_M", "me/Own-GGUF", "Q4_K_M"),
        ("ms:me/Own-GGUF/Own-Q8_0.gguf", "me/Own-GGUF", "Q8_0"),
        ("https://modelscope.cn/models/me/Own-GGUF:Q8_0", "me/Own-GGUF", "Q8_0"),
        ("https://hf-mirror.com/me/Own-GGUF/tree/main/Q8_0", "me/Own-GGUF", "Q8_0"),
        ("https://ollama.com/library/qwen3:8b", "unsloth/Qwen3-8B-GGUF", "Q4_K_M"),
    ],
)
def test_every_form_of_a_name_ends_in_the_right_file(
    seventy: Run, models: dict[str, bytes], small_machine: None, tmp_path: Path, name: str, repository: str, quant: str
) -> None:
    result = seventy("pull", name)
    stem = repository.partition("/")[2].removesuffix("-GGUF")
    path = tmp_path / "models" / repository / f"{stem}-{quant}.gguf"
    assert (result.code, result.out) == (0, f"{path}\n"), result.err
    assert path.read_bytes() == models[quant]


@pytest.mark.parametrize("where", ["hf:me/Zi-GGUF", "ms:me/Zi-GGUF", "https://hf.co/me/Zi-GGUF/blob/main", "ADDRESS"])
def test_spaces_chinese_and_sub_folders(
    seventy: Run, models: dict[str, bytes], hub: Hub, tmp_path: Path, where: str
) -> None:
    hub.add("me/Zi-GGUF").files["子 目录/千问 Q8_0.gguf"] = models["Q8_0"]
    place = tmp_path / "models/me/Zi-GGUF/子 目录/千问 Q8_0.gguf"
    if where == "ADDRESS":
        where, place = f"{hub.url}/me/Zi-GGUF/resolve/main", tmp_path / "models/千问 Q8_0.gguf"
    result = seventy("pull", f"{where}/子 目录/千问 Q8_0.gguf")
    assert (result.code, result.out) == (0, f"{place}\n"), result.err
    assert place.read_bytes() == models["Q8_0"]
    assert seventy("models", "info", str(place)).code == 0


def test_it_says_which_and_why_and_how_fast(seventy: Run, models: dict[str, bytes], small_machine: None) -> None:
    said = seventy("pull", "qwen3-8b").err.splitlines()
    assert said[0].startswith("Qwen3-8B Q4_K_M from hf:unsloth/Qwen3-8B-GGUF: ")
    assert said[1].startswith("here: about ") and "tok/s (" in said[1] and "of 17.2 GB are free" in said[1]
    assert said[2].startswith("why: on a CPU bytes are seconds; Q4_K_M") and said[3].startswith("larger: Q8_0, ")


def test_what_is_here_is_not_fetched(seventy: Run, home: Path, hub: Hub, models: dict[str, bytes]) -> None:
    path = stores.lm_studio(home, "x/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", models["Q4_K_M"])
    result = seventy("pull", "qwen3-8b")
    assert result.out == f"{path}\n" and "is here already, in LM Studio" in result.err and not hub.requests
    assert seventy("pull", "qwen3-8b:Q8_0").code == 0 and hub.requests


def test_run_takes_the_same_names(seventy: Run, models: dict[str, bytes], home: Path, hub: Hub) -> None:
    result = seventy("run", "hf:me/Own-GGUF:Q4_K_M", "x", "-n", "3", "--raw", "--ignore-eos", "--threads", "1")
    assert result.code == 0 and len(result.out) > 1, result.err
    asked = len(hub.requests)
    blob = stores.ollama(home / ".ollama/models", "qwen3:8b", models["Q8_0"], "Q8_0")
    assert seventy("run", "qwen3", "x", "-n", "3", "--raw", "--ignore-eos", "--threads", "1").code == 0
    assert len(hub.requests) == asked and blob.read_bytes() == models["Q8_0"]


def test_a_large_download_is_asked_about(
    seventy: Run, models: dict[str, bytes], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "_ASK_BYTES", 1000)
    result = seventy("pull", "qwen3-8b:Q4_K_M")
    assert result.code == 1 and "seventy pull hf:unsloth/Qwen3-8B-GGUF:Q4_K_M --yes" in result.err
    assert not hub.contents()
    monkeypatch.setattr(pull, "_person", lambda: True)
    asked: list[str] = []
    for answer in (False, True):
        monkeypatch.setattr(pull, "_agreed", lambda question, answer=answer: asked.append(question) or answer)
        assert seventy("pull", "qwen3-8b:Q4_K_M").code == (0 if answer else 1)
    assert len(asked) == 2 and "MB" in asked[0]
    monkeypatch.setattr(pull, "_person", lambda: False)
    assert seventy("pull", "qwen3-8b:Q8_0", "--yes").code == 0


def test_a_name_of_two_models_asks_or_lists_both(
    seventy: Run, hub: Hub, models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("pull", "deepseek-r1"), ("pull", "deepseek-r1", "--yes"), ("run", "deepseek-r1", "x")):
        result = seventy(*arguments)
        assert result.code == 1 and "404 GB" in result.err and "5.03 GB" in result.err
    assert not hub.requests
    hub.add("unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF").files["X-Q4_K_M.gguf"] = models["Q4_K_M"]
    monkeypatch.setattr(pull, "_person", lambda: True)
    monkeypatch.setattr(pull.typer, "prompt", lambda *_, **__: 2)
    assert seventy("pull", "deepseek-r1").out.endswith("/X-Q4_K_M.gguf\n")


def test_what_does_not_fit(seventy: Run, hub: Hub, models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(here.this_machine(), room_bytes=100_000_000)
    monkeypatch.setattr(here, "this_machine", lambda: tiny)
    result = seventy("pull", "qwen3-8b", "--yes")
    assert result.code == 1 and "no quant of Qwen3-8B fits this machine" in result.err
    # A quant that is named is fetched, after a word.
    result = seventy("pull", "qwen3-8b:Q8_0")
    assert result.code == 1 and "too little" in result.err and "nobody is here to be asked" in result.err
    assert seventy("pull", "qwen3-8b:Q8_0", "--yes").code == 0


def test_fewer_than_three_bits_are_never_taken_unasked(
    seventy: Run, hub: Hub, models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = hub.repositories["me/Own-GGUF"].files
    files.clear()
    files.update({"Own-Q2_K.gguf": models["Q4_K_M"], "Own-Q4_K_M.gguf": models["Q8_0"] + bytes(400_000_000)})
    tight = replace(here.this_machine(), room_bytes=400_000_000)
    monkeypatch.setattr(here, "this_machine", lambda: tight)
    result = seventy("pull", "hf:me/Own-GGUF", "--yes")
    assert result.code == 1 and "ask for it: hf:me/Own-GGUF:Q2_K" in result.err
    monkeypatch.setattr(pull, "_person", lambda: True)
    monkeypatch.setattr(pull, "_agreed", lambda question: "Q2_K" in question)
    assert seventy("pull", "hf:me/Own-GGUF").out.endswith("Own-Q2_K.gguf\n")


def test_what_seventy_cannot_run(
    seventy: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "_WORTH_A_LOOK_BYTES", 1000)
    odd = write_tiny(tmp_path / "odd.gguf", **{"attention.clamp_kqv": 8.0}).read_bytes()
    hub.add("unsloth/Qwen3-8B-GGUF").files["Qwen3-8B-Q4_K_M.gguf"] = odd
    result = seventy("run", "qwen3-8b", "x")
    assert result.code == 1 and "cannot be run here" in result.err and "clamp" in result.err
    result = seventy("pull", "qwen3-8b")
    assert result.code == 1 and "speeds are llama.cpp's" in result.err and "tok/s with llama.cpp" in result.err
    assert seventy("pull", "qwen3-8b", "--yes").code == 0


def test_a_name_of_ollama_means_its_quant_or_what_the_repository_has_for_it(
    seventy: Run, hub: Hub, models: dict[str, bytes], small_machine: None
) -> None:
    files = hub.repositories["unsloth/Qwen3-8B-GGUF"].files
    files.clear()
    files.update({"Qwen3-8B-UD-Q4_K_XL.gguf": models["Q4_K_M"], "Qwen3-8B-Q8_0.gguf": models["Q8_0"]})
    assert seventy("pull", "qwen3:8b").out.endswith("Qwen3-8B-UD-Q4_K_XL.gguf\n")
    result = seventy("pull", "qwen3:8b-q4_K_M")
    assert result.code == 1 and "has no Q4_K_M of Qwen3-8B; it has: " in result.err


def test_a_hub_that_gives_up_is_replaced_by_the_other(
    seventy: Run, hub: Hub, models: dict[str, bytes], small_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(transfer, "SEGMENT_BYTES", 1 << 17)
    with running() as other:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", other.url)
        hub.faults = ["", *["503"] * 99]
        result = seventy("pull", "qwen3-8b")
        assert result.code == 1 and "broke off" in result.err
        other.add("unsloth/Qwen3-8B-GGUF").files.update(hub.repositories["unsloth/Qwen3-8B-GGUF"].files)
        result = seventy("pull", "qwen3-8b")
        assert result.code == 0 and "going on from ModelScope" in result.err
        assert Path(result.out.strip()).read_bytes() == models["Q4_K_M"]
        # What had come from the first was not fetched again.
        assert 0 < len(other.contents()) < -(-len(models["Q4_K_M"]) // (1 << 17))


def test_a_file_whose_name_holds_no_quant(seventy: Run, hub: Hub, models: dict[str, bytes]) -> None:
    for repository in ("me/Plain-GGUF", "Qwen/Qwen3-8B-GGUF"):
        hub.add(repository).files["model.gguf"] = models["Q8_0"]
        for name in (f"hf:{repository}", f"hf:{repository}/model.gguf"):
            result = seventy("pull", name, "--yes")
            assert result.code == 0, result.err
            assert "Q8_0 from hf:" in result.err and "cannot" not in result.err
            Path(result.out.strip()).unlink()
    result = seventy("run", "hf:me/Plain-GGUF/model.gguf", "hello", "-n", "2", "--raw")
    assert result.code == 0, result.err


def test_what_is_not_offered(seventy: Run, models: dict[str, bytes]) -> None:
    result = seventy("pull", "hf:me/Own-GGUF:Q5_K_M")
    assert result.code == 1 and "hf:me/Own-GGUF has no Q5_K_M of" in result.err and "Q4_K_M, Q8_0" in result.err
    result = seventy("pull", "no-such-model")
    assert result.code == 1 and result.err.count("\n") == 1 and "names are like" in result.err


def test_every_name_of_the_table_finds_a_repository(seventy: Run, hub: Hub, models: dict[str, bytes]) -> None:
    """Each name ends in a repository of its own on each hub; the files there are stand-ins."""
    big = replace(here.this_machine(), room_bytes=4 << 40)
    for name in all_names():
        for repository in (*name.hf_repositories[:1], *name.ms_repositories[:1]):
            hub.repositories.clear()
            hub.add(repository).files["x-Q4_K_M.gguf"] = models["Q4_K_M"]
            found = proposal.propose(Catalogued(name, None), big, 4096, print)
            assert found.offered.repository == repository
            assert found.candidate.quant == "Q4_K_M" and found.variant.nbytes == len(models["Q4_K_M"])


def test_predict_and_plan_read_the_header_of_what_the_catalogue_lacks(
    seventy: Run, hub: Hub, models: dict[str, bytes]
) -> None:
    machine = ("--cpu", "EPYC 7702", "--memory", "8x64@3200")
    said = seventy("predict", "hf:me/Own-GGUF:Q8_0", *machine)
    assert said.code == 0 and "Q8_0 on AMD EPYC 7702" in said.out and "tok/s" in said.out
    assert "8x64@3200" in seventy("plan", "--model", "hf:me/Own-GGUF:Q8_0", "--from", "EPYC 7702 8x64@3200").out
    other = seventy("predict", "hf:me/Own-GGUF", *machine, "--quant", "Q6_K")
    assert other.code == 1 and "has no Q6_K" in other.err and "Q8_0" in other.err
