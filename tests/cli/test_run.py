"""run and chat as a person uses them."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny import write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("cli") / "tiny.gguf")


Result = subprocess.CompletedProcess[str]


def seventy(*arguments: str | Path, stdin: str | None = None, cache: Path | None = None) -> Result:
    command = [sys.executable, "-m", "seventy", *map(str, arguments)]
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **given)


def test_first_run_answers_and_says_what_a_70b_would_do(smollm2: Path, tmp_path: Path) -> None:
    first = seventy("run", "--seed", "1", "-n", "40", cache=tmp_path)
    assert first.returncode == 0
    assert len(first.stdout.split()) > 5
    assert "> In two sentences" in first.stderr
    assert re.search(
        r"prompt \d+ tokens at [\d.]+ tok/s; answer \d+ tokens at [\d.]+ tok/s; "
        r"[\d.]+ GB/s read, \d+% of this machine's [\d.]+",
        first.stderr,
    )
    assert re.search(
        r"Llama-3.3-70B Q4_K_M here: needs 44\.4 GB \(you have [\d.]+ GB, [\d.]+ GB free for it\), "
        r"would run about [\d.]+ tok/s "
        r"\(memory limit [\d.]+\); see: seventy plan",
        first.stderr,
    )
    again = seventy("run", "--seed", "1", "-n", "40", cache=tmp_path)
    assert again.stdout == first.stdout
    assert "here: needs" not in again.stderr


def test_prompt_from_argument_stdin_and_alone(tiny: Path) -> None:
    options = ("--raw", "--temperature", "0", "-n", "8", "--ignore-eos")
    by_argument = seventy("run", tiny, "hello there", *options)
    by_stdin = seventy("run", tiny, *options, stdin="hello there")
    assert by_argument.returncode == by_stdin.returncode == 0
    assert by_argument.stdout == by_stdin.stdout
    assert "cut at its longest: --max-tokens" in by_argument.stderr


def test_what_is_piped_in_follows_the_prompt(tiny: Path) -> None:
    options = ("--raw", "--temperature", "0", "-n", "8", "--ignore-eos")
    whole = seventy("run", tiny, "sum up:\n\nhello there", *options)
    assert seventy("run", tiny, "sum up:", *options, stdin="hello there").stdout == whole.stdout
    assert seventy("run", tiny, "-", *options, stdin="sum up:\n\nhello there").stdout == whole.stdout


def test_a_pipe_without_a_word_does_not_hold_up_a_prompt(tiny: Path) -> None:
    command = [sys.executable, "-m", "seventy", "run", str(tiny), "hello there", "-n", "2"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stderr and process.stdout and process.stdin
    errors = process.stderr.read()
    assert process.wait(60) == 0 and "nothing came on stdin for 5 s" in errors
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_options_of_chats_are_refused_with_raw(tiny: Path) -> None:
    result = seventy("run", tiny, "hi", "--raw", "--system", "be brief")
    assert result.returncode == 1 and "--system is for chats" in result.stderr


def on_a_terminal(typed: list[tuple[str, str]], *arguments: str | Path) -> str:
    """What a terminal shows when each text is typed once what it waits for was shown."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "seventy", *map(str, arguments)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown, seen, until = "", 0, time.monotonic() + 90
    waiting = list(typed)
    while time.monotonic() < until:
        if select.select([parent], [], [], 0.2)[0]:
            try:
                shown += os.read(parent, 4096).decode(errors="replace")
            except OSError:
                break
            if "\x1b[6n" in shown[seen:]:
                os.write(parent, b"\x1b[1;1R")
        if waiting and (at := shown.find(waiting[0][0], seen)) >= 0:
            seen = at + len(waiting[0][0])
            os.write(parent, waiting.pop(0)[1].encode())
    os.close(parent)
    assert process.wait(30) == 0 and not waiting, shown
    return shown


def test_run_on_a_terminal_talks_and_takes_pastes_whole(tiny: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    paste = "\x1b[200~first line\nsecond line\x1b[201~\r"
    shown = on_a_terminal(
        [
            ("/exit leaves", paste),
            ("tok/s", "/nonsense\r"),
            ("is no command", "/set temperature 0\r"),
            ("temperature 0", f"/save {saved}\r"),
            ("saved in", "/exit\r"),
        ],
        "run", tiny, "-n", "3",
    )  # fmt: skip
    assert "Traceback" not in shown
    conversation = json.loads(saved.read_text())
    assert [each["role"] for each in conversation["messages"]] == ["user", "assistant"]
    assert conversation["messages"][0]["content"] == "first line\nsecond line"


def test_the_context_taken_is_said_and_that_it_is_full(tiny: Path) -> None:
    options = ("--raw", "--temperature", "0", "--ignore-eos")
    given = seventy("run", tiny, "x" * 40, "--context", "64", *options)
    assert "cut at its longest: the context of 64 tokens is full (--context)" in given.stderr
    assert given.stderr.count("context") == 2
    taken = seventy("run", tiny, "x" * 40, "-n", "2", *options)
    assert taken.stderr.startswith("context 2048 tokens (the longest that the model was made for)\n")
    again = seventy("chat", tiny, "-n", "2", stdin="hello\n/exit\n")
    assert again.stderr.startswith("context 2048 tokens (the longest that the model was made for)\n")


def test_verbose_says_what_was_chosen(tiny: Path) -> None:
    result = seventy("run", tiny, "hi you", "-n", "2", "-v", "--isa", "generic", "--threads", "1")
    assert "2 layers of 256, Q4_K" in result.stderr
    assert "1 threads; ISA generic" in result.stderr
    assert "measure" not in result.stderr
    assert "are the defaults; to measure what is best: seventy bench MODEL --tune" in seventy(
        "run", tiny, "hi you", "-n", "2", "-v"
    ).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "no-such-model", "x"), "there is no model or file 'no-such-model'"),
        (("run", "TINY", ""), "the prompt is empty"),
        (("run", "TINY", "  "), "the prompt is empty"),
        (("run", "TINY", "x", "--isa", "sse9"), "there is no ISA level 'sse9'"),
        (("run", "TINY", "x" * 3000), "the context of 2048 has no room for an answer"),
        (("run", "TINY", "x", "--temperature", "-1"), "temperature must be from 0 to 100"),
        (("run", __file__, "x"), "GGUF"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(tiny: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = seventy(*(str(tiny) if argument == "TINY" else argument for argument in arguments))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("seventy: ") and result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert "Traceback" in seventy("--debug", *(str(tiny) if a == "TINY" else a for a in arguments)).stderr


def test_usage_error_is_exit_code_2(tiny: Path) -> None:
    assert seventy("run", tiny, "x", "--no-such-option").returncode == 2
    assert seventy("run", tiny, "x", "--threads", "0").returncode == 2


def test_chat_remembers_and_clears(tiny: Path) -> None:
    result = seventy("chat", tiny, "-n", "3", stdin="hello\nagain\n/clear\nonce more\n/exit\n")
    assert result.returncode == 0
    prompts = [int(n) for n in re.findall(r"prompt (\d+) tokens", result.stderr)]
    known = [int(n) for n in re.findall(r"\((\d+) more were known\)", result.stderr)]
    assert len(prompts) == 3
    # The second turn finds the first in the cache; after /clear only the template's beginning is the same.
    assert len(known) >= 1 and known[0] > 10
    assert result.stdout.count("\n") >= 3


def test_chat_commands(tiny: Path, tmp_path: Path) -> None:
    saved, other = tmp_path / "talk.json", tmp_path / "notes.txt"
    other.write_text("not a conversation")
    lines = [
        '"""hello', 'you"""', "/system be brief", f"/save {other}", f"/save {saved}", "/clear", "/regen",
        "/save /", "/save /etc/passwd/x", f"/save {tmp_path}", "/load /", "/save ~nobody-of-this-name/x",
        f"/load {saved}", "/regen", "/set top_k 1", "/set top_k many", "/set colour 3", "/set", "/sing",
        "/model no-such-model", "/model", f"/model {tiny}", "//etc/hosts", "/bye",
    ]  # fmt: skip
    result = seventy("chat", tiny, "-n", "3", stdin="\n".join(lines))
    assert result.returncode == 0, result.stderr
    for said in (
        "system prompt: be brief", f"{other} is there and holds no conversation", f"1 answers saved in {saved}",
        "there is no question yet", f"1 answers loaded from {saved}", "top_k 1", "top_k is a number, not 'many'",
        "there is no setting 'colour'", "max_tokens 3", "/sing is no command", "no model or file 'no-such-model'",
        str(tiny),
    ):  # fmt: skip
        assert said in result.stderr, result.stderr
    assert len(re.findall(r"prompt \d+ tokens", result.stderr)) == 3
    assert json.loads(saved.read_text())["messages"][0] == {"role": "user", "content": "hello\nyou"}
    assert other.read_text() == "not a conversation"


def test_chat_without_stdin_ends(tiny: Path) -> None:
    command = f"{sys.executable} -m seventy chat {tiny} <&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "Traceback" not in result.stderr


def test_chat_outgrowing_the_context_goes_on(tiny: Path) -> None:
    result = seventy("chat", tiny, "--context", "64", "-n", "4", stdin="x" * 100 + "\nhi\n/exit\n")
    assert result.returncode == 0
    assert "the context of 64" in result.stderr and "/clear" in result.stderr
    assert len(re.findall(r"prompt \d+ tokens", result.stderr)) == 1


def test_ctrl_c_stops_the_answer_and_not_the_chat(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "seventy", "chat", str(tiny), "--isa", "generic", "--seed", "5"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    while "/exit leaves" not in process.stderr.readline():
        pass
    # 1900 tokens of question leave the answer little room, but take the generic kernels a while to read.
    process.stdin.write("y" * 1900 + "\n")
    process.stdin.flush()
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    output, errors = process.communicate("hello\n/exit\n", timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert len(re.findall(r"prompt \d+ tokens", errors)) >= 1
    assert output


def test_interrupted_run_exits_with_130(smollm2: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "seventy", "run", "smollm2", "Count to a thousand.", "--isa", "generic", "--ignore-eos"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_reader_that_leaves_is_no_error(tiny: Path) -> None:
    command = f"{sys.executable} -m seventy run {tiny} 'hi you' --ignore-eos -n 400 | head -c 5"
    # Five bytes may end within a character.
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, errors="replace", timeout=60)
    assert "Traceback" not in result.stderr
