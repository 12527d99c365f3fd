"""What the pages tell people to type exists, what is cheap is run, both languages agree, speeds have a source."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from seventy import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("README*.md"), *(path for path in DOCS.glob("*.md") if path.stem not in ("lab", "design"))])
GUIDES = sorted(path for path in DOCS.glob("*.zh-CN.md"))
# Where figures come from: pages with a measurement's command, or held to the program by tests of their own.
SOURCES = ["performance.md", "planning.md", "prediction.md", "lab.md", "questions.md", "models.md"]
OTHER_PROGRAMS = {
    "git", "cd", "curl", "sudo", "apt", "ln", "mkdir", "pip", "python", "python3", "systemctl", "loginctl", "docker",
    "aider", "export", "scripts/test",
}  # fmt: skip


def lines(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks, and of blocks without a language, but for what `seventy run` answers."""
    answers = (">", " ", "#", "（", "prompt ", "上下文 ", "提示词 ", "在本机跑 ", "context ", "A large ",
               "Llama-3.3-70B ")  # fmt: skip
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if language in ("", "sh"):
            yield from (line for line in block.splitlines() if line and not line.startswith(answers))


def programs(line: str) -> Iterator[list[str]]:
    """The programs a shell's line starts, each with its arguments; without variables and sudo."""
    words: list[str] = []
    tokens = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    tokens.whitespace_split, tokens.commenters = True, "#"
    for token in [*tokens, ";"]:
        if set(token) <= set("&|;"):
            if words:
                yield words
            words = []
        elif words or not (re.match(r"[A-Z_]+=", token) or token == "sudo"):
            words.append(token)


def commands() -> dict[str, list[str]]:
    """What is typed of seventy, with its arguments, by the words it is typed with."""
    found = {}
    for page in PAGES:
        for line in lines(page):
            for program, *arguments in programs(line):
                if program.removeprefix("./") == "seventy":
                    found[shlex.join(arguments)] = arguments
                elif program == "docker" and arguments[0] == "run":
                    image = arguments.index("seventy")
                    found[shlex.join(["serve", *arguments[image + 1 :]])] = ["serve", *arguments[image + 1 :]]
                else:
                    assert program in OTHER_PROGRAMS, f"{page.name}: {line}"
    return found


COMMANDS = commands()


def parse(arguments: list[str]) -> dict[str, Any]:
    """Let typer read a command's arguments, and run nothing."""
    command: Any = typer.main.get_command(cli.build())
    rest = cli._understood(arguments)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        name, *rest = rest
        command = command.commands[name]
    context = command.make_context(command.name, list(rest))
    if context.args:  # `service install` hands them to serve.
        parse(["serve", *context.args])
    return dict(context.params)


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_in_the_pages_is_one(typed: str) -> None:
    try:
        parse(COMMANDS[typed])
    except typer.Exit as end:  # --help, --version
        assert end.exit_code == 0


def test_a_wrong_option_would_be_found() -> None:
    assert len(COMMANDS) > 60
    with pytest.raises(Exception, match="--budgett"):
        parse(["plan", "--budgett", "3"])


def cheap() -> list[str]:
    """Commands that need neither a model nor this machine's figures; each once, in whatever language."""
    found = {}
    for typed, arguments in COMMANDS.items():
        needs = {"--here", "--html", "--from", "--prices"} & set(arguments)
        if (arguments[:1] in (["predict"], ["--version"]) and not needs) or typed.startswith("plan --article"):
            found[typed.replace(" --lang zh", "")] = None
    return list(found)


@pytest.mark.parametrize("typed", cheap())
def test_what_is_cheap_runs(typed: str) -> None:
    result = CliRunner().invoke(cli.build(), cli._understood(shlex.split(typed)))
    assert result.exit_code == 0, result.output


def typed_in(page: Path) -> set[str]:
    """The commands of a page without what differs between languages: --lang, and words for a model or a person."""
    found = set()
    for line in lines(page):
        for words in programs(line):
            plain = [word for word in words if word not in ("--lang", "zh")]
            found.add(" ".join(word for word in plain if word.isascii() and " " not in word and word != "Hello"))
    return found


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_both_languages_exist_and_type_the_same(page: Path) -> None:
    english = page.with_name(page.name.replace(".zh-CN", ""))
    text, other = page.read_text(encoding="utf-8"), english.read_text(encoding="utf-8")
    assert f"]({english.name})" in text and f"]({page.name})" in other
    commands = [{each.split()[1] for each in typed_in(one) if each.startswith("seventy ")} for one in (page, english)]
    assert commands[1] <= commands[0]  # The Chinese pages may have more, mirrors above all.


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_speeds_in_the_guides_stand_in_a_page_that_measured_or_predicted_them(page: Path) -> None:
    known = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in SOURCES)
    known += (ROOT / "README.md").read_text(encoding="utf-8")
    known += " 76.8"  # four channels x 2400 MT/s x 8 bytes
    for each in (page, page.with_name(page.name.replace(".zh-CN", ""))):
        text = re.sub(r"^```text.*?^```", "", each.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for figure in re.findall(r"(\d+(?:\.\d+)?) (?:tok/s|token/秒|GB/s)", text):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", known), f"{each.name}: {figure}"


# Other words for what has one: token, 首 token 延迟, 提示词, 读提示词, 调频策略, 元.
OTHER_WORDS = re.compile(
    r"词元|令牌数|内存频宽|首字|预填充|调速器|\d CNY|读提示(?!词)|系统提示(?!词)"
    r"|首token|[\u4e00-\u9fff]token|token[\u4e00-\u9fff]"
)
CHINESE = [*GUIDES, ROOT / "README.zh-CN.md", ROOT / "src/seventy/server/page/words.js",
           ROOT / "src/seventy/locale/zh/LC_MESSAGES/seventy.po"]  # fmt: skip


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_one_word_for_a_thing(page: Path) -> None:
    """What is typed in a terminal, a page of the docs and the chat page say the same of the same."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".po":
        text = re.sub(r"^msgid .*?(?=^msgstr)", "", text, flags=re.DOTALL | re.MULTILINE)
    elif page.suffix == ".js":
        text = text.split("  zh: {")[1]
    assert [found[0] for found in OTHER_WORDS.finditer(text)] == []
