"""The commands, run as a person runs them."""

import json
import os
import subprocess
import sys

import pytest


def seventy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "seventy", *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, "COLUMNS": "120"})  # fmt: skip


def test_predict_json_has_the_promised_keys() -> None:
    result = seventy("predict", "--cpu", "E5-2680 v4", "--sockets", "1", "--memory", "4x16@2400", "--model",
                     "llama-3.3-70b", "--quant", "Q4_K_M", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    for key in ("decode_tok_s", "prefill_tok_s", "time_to_first_token_s"):
        assert answer[key]["low"] <= answer[key]["mid"] <= answer[key]["high"]
    assert answer["bound"] == "memory" and answer["fits"] is True


def test_predict_speaks_chinese() -> None:
    result = seventy("predict", "--cpu", "E5-2680 v4", "--memory", "1x64@2400", "--lang", "zh")
    assert "词元/秒" in result.stdout and "内存通道空着" in result.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["predict"], "Which machine?"),
        (["predict", "--cpu", "EPYC 7702", "--memory", "banana"], "--memory 'banana'"),
        (["predict", "--cpu", "EPYC 7702", "--model", "gpt-9"], "no model 'gpt-9'"),
        (["predict", "--cpu", "EPYC 7702", "--params", "69"], "--weights-gib"),
        (["predict", "--cpu", "Nobody 1", "--model", "70b"], "no CPU 'Nobody 1'"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str) -> None:
    result = seventy(*arguments)
    assert result.returncode == 1 and result.stdout == ""
    assert sentence in result.stderr and "Traceback" not in result.stderr and result.stderr.count("\n") == 1


def test_article() -> None:
    result = seventy("plan", "--article")
    assert result.returncode == 0 and "Z440, as ordered" in result.stdout and "45.9 GB" in result.stdout
