import gc
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.errors import SeventyError
from seventy.text import template as module
from seventy.text.template import ChatTemplate, NoAnswer

FOLDER = Path(__file__).parent / "templates"
CONVERSATIONS = json.loads((FOLDER / "conversations.json").read_text())
# What transformers 5 renders for them (its apply_chat_template), recorded by scripts/record_templates.
RENDERED = json.loads((FOLDER / "rendered.json").read_text())
CASES = [(name, *key.split("/")) for name, cases in RENDERED.items() for key in cases]


def render(source: str, messages: list[dict[str, Any]] | None = None, **variables: Any) -> str:
    template = ChatTemplate(source, "<s>", "</s>")
    try:
        return template.render(messages or [], **variables)
    finally:
        template.close()


@pytest.mark.parametrize(("name", "conversation", "prompt"), CASES)
def test_renders_as_transformers_did(name: str, conversation: str, prompt: str) -> None:
    source = (FOLDER / f"{name}.jinja").read_text()
    text = render(source, **CONVERSATIONS[conversation], add_generation_prompt=prompt == "prompt")
    assert text == RENDERED[name][f"{conversation}/{prompt}"]


def test_renders_as_transformers_does() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    for name, conversation, prompt in CASES:
        theirs = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), bos_token="<s>", eos_token="</s>"
        )
        source = (FOLDER / f"{name}.jinja").read_text()
        expected = theirs.apply_chat_template(
            CONVERSATIONS[conversation]["messages"],
            tools=CONVERSATIONS[conversation].get("tools"),
            chat_template=source,
            add_generation_prompt=prompt == "prompt",
            tokenize=False,
        )
        assert RENDERED[name][f"{conversation}/{prompt}"] == expected


def test_what_hub_templates_expect() -> None:
    assert render("{{ bos_token }}{{ eos_token }}") == "<s></s>"
    assert render("{% generation %}a{% endgeneration %}") == "a"
    assert render("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert render("{{ {'a': '<é>'} | tojson(indent=1) }}") == '{\n "a": "<é>"\n}'
    assert render("{{ documents is none }}{{ thinking }}", thinking=True) == "TrueTrue"
    assert render("  {% if true %}\n  a\n  {% endif %}\n") == "  a\n"
    assert render("{{ 'content' in messages[0] }}", [{"role": "user", "content": None}]) == "False"
    assert render("{% set x = [1] %}{% set _ = x.append(2) %}{{ x | map('string') | tojson }}") == '["1", "2"]'
    with pytest.raises(SeventyError, match=r"does not take these messages: no system message$"):
        render("{{ raise_exception('no\nsystem message') }}")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if", "broken"),
        ("{{ x.y.z }}", "'x' is undefined"),
        ("{{ open('/etc/passwd').read() }}", "'open' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__ }}", "SecurityError"),
        ("{{ namespace.__init__.__globals__.os }}", "SecurityError"),
        ("{{ '{0.__class__.x}'.format(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "failed"),
        ("{% import 'os' as os %}", "failed"),
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "without end"),
        ("{{" + "(" * 10_000 + "1", "without end"),
        ("{{ 'a' * 10 ** 10 }}", "MB"),
        ("{{ '%99999999999d' % 1 }}", "MB"),
        ("{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}", "characters"),
        ("{# " + "x" * (1 << 20) + " #}", "characters"),
    ],
)
def test_hostile_templates(source: str, expected: str) -> None:
    with pytest.raises(SeventyError, match=expected) as error:
        render(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        # A list of itself twice, a hundred times over: 2^100 ones inside one call of str().
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{{ lipsum(n=99999999) }}",
    ],
)
def test_templates_without_end(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SECONDS", 0.5)
    with pytest.raises(SeventyError, match="did not end"):
        render(source)


def test_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}{{ n }}", "", "")
    monkeypatch.setattr(module, "MAX_SECONDS", 0.5)
    with pytest.raises(SeventyError, match="did not end"):
        template.render([], n=99999)
    monkeypatch.setattr(module, "MAX_SECONDS", 10.0)
    assert template.render([], n=1) == "1"
    with pytest.raises(SeventyError, match="OverflowError"):
        template.render([], n=999999)
    assert template.render([], n=2) == "2"
    with pytest.raises(SeventyError, match="no plain data"):
        template.render([{"role": "user", "content": object()}])
    template.close()
    assert template.render([], n=3) == "3"
    template.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")
def test_a_process_that_was_stopped_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SECONDS", 0.2)
    template = ChatTemplate("{{ n }}", "", "")
    assert template._renderer is not None and template.render([], n=1) == "1"
    process = template._renderer.process
    process.send_signal(signal.SIGSTOP)
    timer = threading.Timer(0.7, process.send_signal, [signal.SIGCONT])
    timer.start()
    assert template.render([], n=2) == "2"
    timer.join()
    template.close()


def test_without_threads_it_says_what_is_missing_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ messages[0].content }}", "", "")
    assert template.render([{"role": "user", "content": "a"}]) == "a"
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(NoAnswer, match="starts no more threads"):
            template.render([{"role": "user", "content": "b"}])
    assert template.render([{"role": "user", "content": "c"}]) == "c"


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_process_ends_with_its_template() -> None:
    template = ChatTemplate("x", "", "")
    assert template._renderer is not None
    process = template._renderer.process
    assert template.render([]) == "x"
    del template
    gc.collect()
    assert process.poll() is not None


def test_the_process_can_open_no_file() -> None:
    code = (
        "import runpy, sys; space = runpy.run_path(sys.argv[1]); space['_confine']()\n"
        "try: open('/etc/passwd')\n"
        "except OSError as error: print(error.errno)\n"
    )
    command = [sys.executable, "-c", code, str(module._SCRIPT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.strip() == "24", result.stderr


def test_several_threads() -> None:
    template = ChatTemplate("{{ messages[0].content }}", "", "")
    wrong: list[str] = []

    def work(number: int) -> None:
        for i in range(20):
            text = f"{number} {i}" * number
            if template.render([{"content": text}]) != text:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    template.close()
    assert not wrong


PIECES = [
    "{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "\n", "for", "endfor", "if", "endif", "else", "in", "set", "macro",
    "endmacro", "messages", "message", "role", "loop.index", "namespace", "range", "(", ")", "[", "]", ".", ",", "|",
    "tojson", "trim", "'", '"', "0", "9999", "*", "+", "~", "=", "raise_exception", "generation", "endgeneration",
    "__class__", "join", "items()", "break", "é", "\0",
]  # fmt: skip


@settings(deadline=None)
@given(source=st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_template_is_text_or_one_sentence(source: str) -> None:
    template = _shared
    template._source = source
    try:
        assert isinstance(template.render([{"role": "user", "content": "hi"}]), str)
    except SeventyError as error:
        assert "\n" not in str(error)


_shared = ChatTemplate("", "", "")
