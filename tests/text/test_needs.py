"""What templates ask of conversations is found out by trying; conversations are changed so that nothing is lost."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from seventy.errors import SeventyError
from seventy.text.chat import ChatFormat
from seventy.text.fallbacks import TEMPLATES, fallback
from seventy.text.needs import Needs
from seventy.text.template import NoAnswer
from seventy.text.tokenizer import Tokenizer
from tests.support import reference_files, templates, vocabularies
from tests.support.tiny import byte_tokens
from tests.support.vocabularies import CONTROL

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def message(role: str, content: Any = "", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(id: str | None, arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


@contextmanager
def chat(template: str | None, given: str | None = None) -> Iterator[ChatFormat]:
    special = dict.fromkeys(("<s>", "</s>", "<|im_start|>", "<|im_end|>"), CONTROL)
    metadata = vocabularies.metadata([*byte_tokens(), "ab"], special, pre="smollm", merges=["a b"])
    metadata |= {"tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258}
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    format = ChatFormat(metadata, Tokenizer.from_metadata(metadata), given)
    try:
        yield format
    finally:
        format.close()


TURNS = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('first') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
DROPPED = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
PARTS = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
LOOP = (
    "{% for t in tools %}{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
CALLS = (
    "{{ tools | tojson if tools }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}ID{% endfor %}{{ m.tool_call_id }}{% endfor %}"
)
NINE = "{{ raise_exception('nine') if c.id | length != 9 }}"


@pytest.mark.parametrize(
    ("template", "needs"),
    [
        (templates.PLAIN, {"words"}),
        (TURNS, {"turns", "no_system", "words"}),
        (FIRST, {"one_system", "words"}),
        (DROPPED, {"no_system", "words"}),
        (PARTS, {"parts", "words"}),
        (LOOP, {"list_of_tools", "words"}),
        (CALLS.replace("ID", ""), {"spoken_calls"}),
        (CALLS.replace("ID", "{{ c.id }}{{ c.function.name }}{{ c.function.arguments | tojson }}"), set()),
        (CALLS.replace("ID", "{{ c.function.name + c.function.arguments }}"), {"text_arguments"}),
        (CALLS.replace("ID", "{{ c.function.name }}{{ c.function.arguments }}"), {"text_arguments"}),
        (CALLS.replace("ID", "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}"),
         {"object_arguments"}),
        (CALLS.replace("ID", NINE + "{{ c.function.arguments | tojson }}"), {"nine_letters"}),
        (CALLS.replace("ID", "{{ c.id }}<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}"),
         {"numbered"}),
        (templates.HARMONY, {"whole_tools"}),
    ],
)  # fmt: skip
def test_needs_are_found(template: str, needs: set[str]) -> None:
    with chat(template) as format:
        found = format.needs
        assert {name for name in Needs.__slots__ if getattr(found, name)} == needs
        assert found.fit(found.fit([message("user", "a")]).messages) == found.fit([message("user", "a")])


@pytest.mark.parametrize("template", [templates.PLAIN, TURNS])
def test_a_machine_that_stands_still_once_changes_no_needs(template: str) -> None:
    with chat(template) as format:
        for moment in range(8):
            calls = itertools.count()

            def render(*arguments: Any, moment: int = moment, calls: Iterator[int] = calls) -> str:
                if next(calls) == moment:
                    raise NoAnswer("did not end within 10 s")
                return format._render(*arguments)

            assert Needs.of(render) == format.needs


@pytest.mark.parametrize("template", [TURNS, FIRST, DROPPED, PARTS, LOOP, templates.PLAIN])
def test_nothing_is_lost(template: str) -> None:
    conversation = [
        message("system", "AAA"), message("system", "BBB"), message("assistant", "CCC"), message("assistant", "DDD"),
        message("system", "EEE"), message("user", "FFF"), message("user", "GGG"),
        message("assistant", "", tool_calls=[call("1", {"city": "HHH"})]), message("tool", "III", tool_call_id="1"),
    ]  # fmt: skip
    with chat(template) as format:
        prompt = format.prompt(conversation, [TOOL])
    places = [prompt.text.find(word) for word in ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH", "III")]
    assert -1 not in places and places == sorted(places), prompt.text
    assert "weather" in prompt.text
    assert bool(prompt.changes) == (template in (TURNS, FIRST, DROPPED))


def test_changes_are_said_in_words() -> None:
    with chat(TURNS) as format:
        prompt = format.prompt([message("system", "A"), message("user", "B")])
        assert prompt.text == "[INST] A\n\nB [/INST]"
        assert prompt.changes == ("the system message was put before the user's",)
        assert format.prompt([message("user", "B")]).changes == ()
        assert "empty message" in format.prompt([message("assistant", "B")]).changes[0]


def test_ids_of_calls_pair_with_their_results() -> None:
    def history(*ids: str | None) -> list[dict[str, Any]]:
        calls = [call(id, {"city": str(at)}) for at, id in enumerate(ids)]
        return [
            message("user", "?"), message("assistant", tool_calls=calls),
            *(message("tool", str(at), tool_call_id=id) for at, id in enumerate(ids)),
        ]  # fmt: skip

    def ids(needs: Needs, messages: list[dict[str, Any]]) -> list[str]:
        fitted = needs.fit(messages).messages
        given = [one["id"] for one in fitted[1]["tool_calls"]]
        assert given == [one["tool_call_id"] for one in fitted[2:]] and len(set(given)) == len(given)
        return given

    long = history("call_0123456789abcdef01234567", "call_x")
    assert ids(Needs(), long) == ["call_0123456789abcdef01234567", "call_x"]
    nine = Needs(nine_letters=True)
    assert all(re.fullmatch("[0-9a-zA-Z]{9}", id) for id in ids(nine, long))
    assert ids(nine, history("abcdefghi", "123456789")) == ["abcdefghi", "123456789"]
    for needs in (Needs(), nine, Needs(numbered=True)):
        ids(needs, history(None, None))
        # A result that came back first still belongs to its call.
        swapped = history("a", "b")
        swapped[2:] = reversed(swapped[2:])
        fitted = needs.fit(swapped).messages
        assert [one["tool_call_id"] for one in fitted[2:]] == [one["id"] for one in reversed(fitted[1]["tool_calls"])]
    assert ids(Needs(numbered=True), long) == ["functions.weather:0", "functions.weather:1"]


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city":"Ro', "{", ""])
def test_unreadable_arguments_are_shown_as_they_are(arguments: Any) -> None:
    shown = "Ro" if "Ro" in str(arguments) else "weather"
    conversation = [message("user", "?"), message("assistant", tool_calls=[call("1", arguments)]), message("tool", "R")]
    for code in (
        "{{ c.function.name }}{{ c.function.arguments | tojson }}",
        "{{ c.function.name + c.function.arguments }}",
        "{{ c.function.name }}{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}",
    ):
        with chat(CALLS.replace("ID", code)) as format:
            assert shown in format.prompt(conversation).text


def test_files_without_a_template_get_one() -> None:
    for template in (None, "", "{% if"):
        with chat(template) as format:
            assert format.checked().note.count("chatml is taken") == 1
            text = format.prompt([message("user", "Hi")]).text
            assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with chat(None, "alpaca") as format:
        assert "### Instruction:\nHi" in format.prompt([message("user", "Hi")]).text and not format.checked().note
    with chat(templates.PLAIN, "{{ messages[-1].content }}!") as format:
        assert format.prompt([message("user", "Hi")]).text == "Hi!"
    with chat("{{ 'always the same' }}") as format, pytest.raises(SeventyError, match="leaves out what the user says"):
        format.prompt([message("user", "Hi")])


@pytest.mark.parametrize("name", TEMPLATES)
def test_fallbacks_say_everything(name: str) -> None:
    conversation = [message("system", "AAA"), message("user", "BBB"), message("assistant", "CCC")]
    conversation.append(message("user", "DDD"))
    with chat(None, name) as format:
        text = format.prompt(conversation, [TOOL]).text
    assert all(word in text for word in ("AAA", "BBB", "CCC", "DDD", "weather"))


def test_fallbacks_are_chosen_by_special_tokens() -> None:
    expected = {("<|im_start|>",): "chatml", ("<s>", "</s>"): "llama2", (): "chatml", ("[INST]",): "llama2"}
    for marks, name in expected.items():
        assert fallback(marks.__contains__) == name


def test_every_published_template_takes_every_conversation() -> None:
    """Of llama.cpp's collection; each word of the conversations is in the prompts."""
    paths = sorted((reference_files.folder() / "templates").glob("*.jinja"))
    assert len(paths) > 60
    one, two = call("call_1", {"city": "RRR"}), call("call_2", {"city": "SSS"})
    conversations = [
        [message("user", "AAA")],
        [message("system", "AAA"), message("user", "BBB")],
        [message("system", "AAA"), message("system", "BBB"), message("user", "CCC")],
        [message("user", "AAA"), message("assistant", "BBB"), message("system", "CCC"), message("user", "DDD")],
        [message("user", "AAA"), message("user", "BBB")],
        [message("assistant", "AAA"), message("user", "BBB")],
        [message("user", "AAA"), message("assistant", tool_calls=[one]), message("tool", "TTT", tool_call_id="call_1")],
        [message("user", "AAA"), message("assistant", tool_calls=[one, two]),
         message("tool", "TTT", tool_call_id="call_1"), message("tool", "UUU", tool_call_id="call_2"),
         message("user", "VVV")],
        [message("user", "A"), message("assistant", tool_calls=[call(None, {"city": "RRR"})]), message("tool", "TTT")],
    ]  # fmt: skip
    lost = []
    for path in paths:
        with chat(path.read_text()) as format:
            for conversation in conversations:
                words = set(re.findall("([A-Z])\\1\\1", str(conversation)))
                text = format.prompt(conversation, [TOOL]).text
                lost += [(path.stem, word) for word in sorted(words) if word * 3 not in text]
                assert "weather" in text, path.stem
    assert not lost
