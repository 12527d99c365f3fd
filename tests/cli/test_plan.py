"""The commands, run as a person runs them."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from seventy.cli import main


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def seventy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which spares each test the imports."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["seventy", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        code = exit_.value.code
        return Result(code if isinstance(code, int) else 0, said.out, said.err)

    return run


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "seventy", "predict", "--cpu", "EPYC 7702", "--memory", "8x64@3200"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "tok/s" in result.stdout


def test_predict_json_has_the_promised_keys(seventy: Run) -> None:
    result = seventy("predict", "--cpu", "E5-2680 v4", "--sockets", "1", "--memory", "4x16@2400", "--model",
                     "llama-3.3-70b", "--quant", "Q4_K_M", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    for key in ("decode_tok_s", "prefill_tok_s", "time_to_first_token_s"):
        assert answer[key]["low"] <= answer[key]["mid"] <= answer[key]["high"]
    assert answer["bound"] == "memory" and answer["fits"] is True


def test_several_users(seventy: Run) -> None:
    machine = ("predict", "qwen3-30b-a3b", "--cpu", "EPYC 7702", "--memory", "8x64@3200")
    said = seventy(*machine, "--users", "4")
    assert said.returncode == 0, said.stderr
    assert "all users: " in said.stdout and "each step of 4 tokens reads" in said.stdout
    assert "每步（4 个 token）" in seventy(*machine, "--users", "4", "--lang", "zh").stdout
    one, four = (json.loads(seventy(*machine, "--users", users, "--json").stdout) for users in ("1", "4"))
    assert (four["users"], one["decode_tok_s_together"]) == (4, one["decode_tok_s"])
    assert one["model"]["read_gb_per_token"] > four["model"]["read_gb_per_token"]


def test_a_bare_model_by_either_unit(seventy: Run) -> None:
    machine = ("--cpu", "EPYC 7702", "--memory", "8x64@3200", "--params", "69", "--json")
    gb, gib = (seventy("predict", *machine, *size) for size in (("--weights-gb", "36.83"), ("--weights-gib", "34.3")))
    assert json.loads(gb.stdout)["model"] == json.loads(gib.stdout)["model"]


def test_predict_speaks_chinese(seventy: Run) -> None:
    result = seventy("predict", "--cpu", "E5-2680 v4", "--memory", "1x64@2400", "--lang", "zh")
    assert "token/秒" in result.stdout and "内存通道空着" in result.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["predict"], "Which machine?"),
        (["predict", "--cpu", "EPYC 7702", "--memory", "banana"], "--memory 'banana'"),
        (["predict", "--cpu", "EPYC 7702", "--model", "gpt-9"], "no model 'gpt-9'"),
        (["predict", "--cpu", "EPYC 7702", "--params", "69"], "--weights-gb"),
        (["predict", "--cpu", "Nobody 1", "--model", "70b"], "no CPU 'Nobody 1'"),
    ],
)
def test_mistakes_are_one_sentence(seventy: Run, arguments: list[str], sentence: str) -> None:
    result = seventy(*arguments)
    assert result.returncode == 1 and result.stdout == ""
    assert sentence in result.stderr and "Traceback" not in result.stderr and result.stderr.count("\n") == 1


def test_article(seventy: Run) -> None:
    result = seventy("plan", "--article")
    assert result.returncode == 0 and "Z440, as ordered" in result.stdout and "44.4 GB" in result.stdout


def test_plan_speaks_of_the_workstation(seventy: Run) -> None:
    result = seventy("plan", "--budget", "2100", "--currency", "CNY", "--date", "2025-02", "--quiet", "--place", "home")
    assert result.returncode == 0, result.stderr
    assert "Best: HP Z440 · Xeon E5-2680 v4 · 4x64@2400" in result.stdout
    assert "machines looked at" in result.stdout


def test_plan_upgrade(seventy: Run) -> None:
    result = seventy("plan", "--from", "E5-2680 v4 + 1x64@2400", "--date", "2025-02", "--json")
    answer = json.loads(result.stdout)
    steps = {step["kind"]: step for step in answer["steps"]}
    assert 3.6 < steps["fill"]["gain"] < 4.2 and steps["fill"]["price"] == 825 and "second" not in steps


def test_plan_upgrade_says_each_step_once_and_what_does_not_mix(seventy: Run) -> None:
    said = seventy("plan", "--from", "SER8 1x32", "--model", "gpt-oss:120b").stdout
    assert said.count("2x32") == 1 and "do not mix" not in said
    said = seventy("plan", "--from", "Z440 + E5-2680 v4 + 1x64", "--lang", "zh").stdout
    assert "4x64" in said and "不能混插" in said


def test_plan_html(seventy: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    result = seventy("plan", "--budget", "2100", "--html", str(report), "--lang", "zh")
    assert result.returncode == 0 and 'lang="zh-CN"' in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--best", "beauty"], "--best 'beauty'"),
        (["--place", "moon"], "--place 'moon'"),
        (["--currency", "GBP"], "no prices in GBP"),
        (["--currency", "USD", "--region", "CN"], "never mixed"),
        (["--date", "soon"], "--date 'soon'"),
        (["--prices", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (["--engine", "magic"], "--engine 'magic'"),
    ],
)
def test_plan_mistakes_are_one_sentence(seventy: Run, arguments: list[str], sentence: str) -> None:
    result = seventy("plan", *arguments)
    assert result.returncode == 1 and result.stdout == ""
    assert sentence in result.stderr and result.stderr.count("\n") == 1
