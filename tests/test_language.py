"""Everything is said in English and Chinese: no message lacks a translation, and none names what there is not."""

import ast
import copy
import pickle
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.error import URLError

import pytest

from seventy import language
from seventy.cli import _language_of, _understood, command
from seventy.cli._typer import recognised
from seventy.errors import SeventyError
from seventy.language import Message, beginning, either, listed, said, sentences, t, tn
from seventy.plan.runs import why_not

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
        places = [{part[1:] for part in Formatter().parse(text) if part[1] is not None} for text in (english, chinese)]
        assert places[0] == places[1], english
        for text in (english, chinese):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)) <= known, text


def _commands(found: Any) -> list[Any]:
    return [found, *(one for each in getattr(found, "commands", {}).values() for one in _commands(each))]


HOSTILE = "{x.__class__} {0} }{ %s [/b] :key:"


def test_every_message_can_be_said_whatever_its_values_hold(messages: Any) -> None:
    for message in messages.updated():
        texts = message.id if isinstance(message.id, tuple) else (message.id,)
        places = [part for part in Formatter().parse(texts[-1]) if part[1]]
        # A format of numbers is given a number.
        values = {name: 2.0 if spec else HOSTILE for _, name, spec, _ in places}
        if len(texts) == 2:
            values["n"] = 2
        for lang in ("en", "zh") if values else ():
            text = said(Message(*texts, **values), lang)
            assert text.count(HOSTILE[:20]) >= sum(value is HOSTILE for value in values.values()), text


def test_messages_are_made_of_templates_that_get_their_values(messages: Any) -> None:
    """An f-string would be English for ever; so would be what is said without a template."""
    sayers = {"say", "session.say", "said", "Interrupted"}
    for path in SOURCE.rglob("*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        # Templates kept as constants get their values later.
        kept = {node for each in module.body if isinstance(each, ast.Assign) for node in ast.walk(each)}
        for node in ast.walk(module):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name, text, where = ast.unparse(node.func), node.args[0], f"{path}:{node.lineno}"
            if name in sayers and "plan" not in path.parts and path.name != "run.py":
                assert not isinstance(text, ast.JoinedStr | ast.Constant), where
            if name not in messages._KEYWORDS:
                continue
            assert not isinstance(text, ast.JoinedStr | ast.BinOp), where
            given = {keyword.arg for keyword in node.keywords} | ({"n"} if name == "tn" else set())
            if isinstance(text, ast.Constant) and None not in given:
                texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                wanted = {part[1] for each in texts for part in Formatter().parse(each) if part[1] is not None}
                assert wanted <= given or node in kept, where
                assert given - wanted <= {"n"}, where


def test_messages_hold_any_value_and_can_be_sent_to_a_process() -> None:
    for value in (HOSTILE, Path("/x/{0}"), {"a": [1]}, KeyError("{a}"), OSError(13, "Permission denied", "/x")):
        error = SeventyError("cannot read {path}: {reason}", path=HOSTILE, reason=value)
        again = pickle.loads(pickle.dumps(error))
        for lang in ("en", "zh"):
            assert HOSTILE in said(error, lang) == said(again, lang) == said(copy.copy(error.text), lang)
    assert str(error) == f"cannot read {HOSTILE}: Permission denied" and said(error, "zh").endswith("：没有权限")
    assert not any(isinstance(each, BaseException) for each in error.text.values.values())
    assert said(SeventyError(HOSTILE), "zh") == HOSTILE and said(SeventyError(""), "zh") == ""
    assert said(URLError(ConnectionRefusedError(111, "Connection refused")), "zh") == "连接被拒绝"
    assert said("[Errno 111] Connection refused", "zh") == "连接被拒绝"
    assert said("a " + t("none") + " {b}", "zh") == "a 无 {b}" and listed(each for each in ()) == ""


def test_a_beginning_ends_at_the_semicolon_of_each_language() -> None:
    whole = sentences([t("too much"), t("none")])
    assert said(beginning(whole), "zh") == "太多" and said(beginning(whole), "en") == beginning(whole) == "too much"


def test_why_seventy_cannot_run_something_is_said_in_chinese() -> None:
    text = said(t("no: {problem}", problem=why_not("seventy", "made-up")), "zh")
    assert not re.search("[a-z]{3,} [a-z]{3,}", text), text


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_encoding_of_a_terminal_ends_a_command(encoding: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "seventy", "--help"], capture_output=True, timeout=120, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "SEVENTY_LANG": "zh", "PYTHONPATH": str(ROOT / "src"), "HOME": "/nonexistent",
             "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert ran.returncode == 0 and ran.stderr == b"", ran.stderr


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


# Sentences of typer, of another parser than the one typed at, of values that are no amounts.
WRONG = ["runn", "run --threads", "ps x y", "service install --port x", "plan --tariff nan", "plan --budget inf"]


@pytest.mark.parametrize("typed", ["--help", "run --help", "rm", "predict", *WRONG])
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
    assert not re.search(r"\b(the|is|of|with|Missing|Usage|Options|default|unexpected|Got|it|must)\b", shown), shown
    assert "Traceback" not in shown
