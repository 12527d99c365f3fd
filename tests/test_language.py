"""Everything is said in English and Chinese: no message lacks a translation, and none names what there is not."""

import ast
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from seventy import language
from seventy.cli import _language_of, _understood, command
from seventy.cli._typer import recognised
from seventy.errors import SeventyError
from seventy.language import either, listed, said, sentences, t, tn

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "seventy"
# Options of other programs that messages name.
FOREIGN = {
    "--user", "--now", "--cpus", "--cpuset-cpus", "--sort", "--force-reinstall", "--no-cache-dir", "--help",
    "--interleave", "--numa", "--install-completion", "--show-completion",
}  # fmt: skip


@pytest.fixture(scope="module")
def messages() -> Any:
    pytest.importorskip("babel")
    loader = SourceFileLoader("messages", str(ROOT / "scripts" / "messages"))
    module = module_from_spec(spec_from_loader("messages", loader))
    loader.exec_module(module)
    return module


def test_catalogues_are_those_of_the_code_and_nothing_lacks_chinese(messages: Any) -> None:
    catalogue = messages.updated()
    assert messages.untranslated(catalogue) == [], "run scripts/messages, then write the Chinese into the .po file"
    po, mo = messages.written(catalogue)
    stale = "the catalogues are not those of the code: run scripts/messages"
    assert messages.PO.with_suffix(".mo").read_bytes() == mo and messages.PO.read_bytes() == po, stale


def test_translations_fill_in_the_same_values_and_name_options_that_exist(messages: Any) -> None:
    known = {option for each in _commands(command(lang="en")) for parameter in each.params
             for option in (*parameter.opts, *parameter.secondary_opts)} | FOREIGN  # fmt: skip
    for message in messages.updated():
        if not message.id:
            continue
        english = message.id if isinstance(message.id, str) else message.id[-1]
        chinese = message.string if isinstance(message.string, str) else message.string[0]
        places = [set(re.findall(r"\{(\w*(?:![rs])?(?::[^}]*)?)\}", text)) for text in (english, chinese)]
        assert places[0] == places[1], english
        for text in (english, chinese):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)) <= known, text
        # One word for a thing.
        assert not re.search("词元|令牌数|首token|[\u4e00-\u9fff]token|token[\u4e00-\u9fff]", chinese), chinese


def _commands(found: Any) -> list[Any]:
    return [found, *(one for each in getattr(found, "commands", {}).values() for one in _commands(each))]


def test_errors_are_made_of_templates(messages: Any) -> None:
    """An f-string would be English for ever."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in messages._KEYWORDS:
                text = node.args[0]
                assert not isinstance(text, ast.JoinedStr | ast.BinOp), f"{path}:{node.lineno}"


def test_messages_are_english_until_they_are_said() -> None:
    inner = t("{n} tokens", n=3)
    error = SeventyError("cannot read {path}: {reason}", path="x.gguf", reason="No such file or directory")
    assert str(error) == "cannot read x.gguf: No such file or directory" and isinstance(inner, str)
    assert said(error, "en") == str(error)
    assert said(error, "zh") == "无法读取 x.gguf：没有这个文件或文件夹"
    whole = sentences([inner, listed(["a", either(["b", "c"])])]) + t(", {price}", price="1 CNY")
    assert said(whole, "en") == whole == "3 tokens; a, b or c, 1 CNY"
    assert said(whole, "zh") == "3 个 token；a、b 或 c，1 CNY"
    assert [tn("{n} thread", "{n} threads", n=n) for n in (1, 2)] == ["1 thread", "2 threads"]
    assert said(tn("{n} thread", "{n} threads", n=2), "zh") == "2 个线程"
    assert said("any text", "zh") == "any text"


def test_the_language_is_asked_for_or_set_or_the_locales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_spoken", [])
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.delenv("SEVENTY_LANG", raising=False)
    assert language.language() == "zh" and language.language("en") == "en" and language.language("fr") == "en"
    monkeypatch.setenv("SEVENTY_LANG", "en")
    assert language.language() == "en" and language.language("zh-CN") == "zh"


def test_lang_is_taken_wherever_it_stands() -> None:
    assert _language_of(["plan", "--lang", "zh", "--top", "3"]) == ("zh", ["plan", "--top", "3"])
    assert _language_of(["--lang=zh", "help", "run"]) == ("zh", ["help", "run"])
    assert _language_of(["run", "m", "--", "--lang", "zh"])[0] is None
    assert _understood(["help", "run"]) == ["run", "--help"]


def test_what_typer_says_is_recognised() -> None:
    found = recognised("Invalid value for '--top': 'x' is not a valid integer.")
    assert said(found, "zh") == "'--top' 的值不对：'x' 不是整数。"
    assert recognised("something new") == "something new"


@pytest.mark.parametrize("typed", ["--help", "run --help", "runn", "run --threads", "rm", "predict"])
def test_nothing_is_half_translated_or_cut(typed: str) -> None:
    """Help and errors as a terminal of 80 columns shows them."""
    ran = subprocess.run(
        [sys.executable, "-m", "seventy", *typed.split()], capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "SEVENTY_LANG": "zh", "COLUMNS": "80", "PYTHONPATH": str(ROOT / "src"),
             "HOME": "/nonexistent", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    shown = ran.stdout + ran.stderr
    assert "…" not in shown and re.search("[\u4e00-\u9fff]", shown), shown
    assert not re.search(r"\b(the|is|of|with|Missing|Usage|Options|default)\b", shown), shown
