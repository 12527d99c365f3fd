import random
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from seventy.errors import SeventyError
from seventy.text.calls.base import CallStyle
from seventy.text.calls.gemma import Gemma4
from seventy.text.calls.harmony import Harmony
from seventy.text.calls.json_calls import Hermes
from seventy.text.calls.named_json import DeepSeek, Kimi, Mistral
from seventy.text.calls.pythonic import Lfm2
from seventy.text.calls.xml_calls import FunctionElements, Glm, MiniMax
from seventy.text.conventions import Conventions
from seventy.text.grammar import Grammars
from seventy.text.template import ChatTemplate
from seventy.text.tokenizer import StreamDecoder, Tokenizer
from tests.support import reference_files, templates, vocabularies
from tests.support.answers import read
from tests.support.tiny import byte_tokens
from tests.support.vocabularies import CONTROL, USER_DEFINED

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "a"}}


def prompt(template: str, messages: list[dict[str, Any]] | None = None, **switches: Any) -> str:
    conventions = Conventions.of(template)
    tools = switches.pop("tools", None)
    variables = conventions.variables(switches.get("think"), switches.get("effort"))
    renderer = ChatTemplate(template, "<s>", "</s>")
    try:
        return renderer.render(conventions.history(messages or HELLO), tools, **variables)
    finally:
        renderer.close()


@pytest.mark.parametrize(
    ("template", "switches", "end"),
    [
        (templates.QWEN35, {}, "<think>\n"),
        (templates.QWEN35, {"think": True}, "<think>\n"),
        (templates.QWEN35, {"think": True, "effort": "low"}, "<think>\n"),
        (templates.QWEN35, {"think": False}, "<think>\n\n</think>\n\n"),
        (templates.DEEPSEEK, {}, "</think>"),
        (templates.DEEPSEEK, {"think": True}, "<｜Assistant｜><think>"),
        (templates.DEEPSEEK, {"think": False}, "</think>"),
        (templates.GEMMA4, {"think": True}, "<|turn>model\n"),
        (templates.GEMMA4, {"think": False}, "<|channel>thought\n<channel|>"),
        (templates.MINIMAX, {"think": False}, "<think>\n"),
    ],
)
def test_switches_lead_to_the_templates_own(template: str, switches: dict[str, Any], end: str) -> None:
    assert prompt(template, **switches).endswith(end)


@pytest.mark.parametrize(
    ("think", "effort", "level"),
    [
        (None, None, "medium"),
        (True, None, "medium"),
        (True, "minimal", "low"),
        (True, "low", "low"),
        (True, "medium", "medium"),
        (True, "high", "high"),
        (True, "xhigh", "high"),
        (False, None, "low"),
    ],
)
def test_effort_stands_in_harmonys_system_message(think: bool | None, effort: str | None, level: str) -> None:
    assert f"Reasoning: {level}<|end|>" in prompt(templates.HARMONY, think=think, effort=effort)


def test_levels_of_templates_that_name_their_own() -> None:
    template = "{% if reasoning_effort not in ['high', 'low', 'no_think'] %}{{ raise_exception('no') }}{% endif %}"
    conventions = Conventions.of(template)
    assert conventions.variables(False, None) == {"reasoning_effort": "no_think"}
    assert conventions.variables(True, "high") == {"reasoning_effort": "high"}
    assert Conventions.of("{{ reasoning_effort }}").variables(False, None) == {}
    assert Conventions.of("{{ thinking_mode }}").variables(True, None) == {"thinking_mode": "enabled"}
    with pytest.raises(SeventyError, match="does not take these messages: no"):
        prompt(template, think=True, effort="medium")


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        (templates.QWEN35, True),
        (templates.MINIMAX, True),
        (templates.MISTRAL, True),
        (templates.HARMONY, True),
        (templates.PLAIN, False),
        ("thinking: reasoning_effort {# enable_thinking #} {{ 'enable_thinking' }} {{ message.thinking }}", False),
    ],
)
def test_whether_a_template_knows_thinking(template: str, thinks: bool) -> None:
    assert Conventions.of(template).thinks is thinks


def test_earlier_thinking_comes_as_the_template_takes_it() -> None:
    turns = [*HELLO, {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"}]
    assert "<think>\nHm\n</think>\n\nYes" in prompt(templates.QWEN35, turns)
    assert "Hm" not in prompt(templates.QWEN35, [*turns, *HELLO])
    assert "<think>\nHm\n</think>\nYes" in prompt(templates.MINIMAX, [*turns, *HELLO])
    assert "<|channel>thought\nHm\n<channel|>Yes" in prompt(templates.GEMMA4, [*turns, *HELLO])
    assert "[/INST][THINK]Hm[/THINK]Yes</s>[INST]" in prompt(templates.MISTRAL, [*turns, *HELLO])
    assert "Hm" not in prompt(templates.HARMONY, [*turns, *HELLO])
    assert prompt(templates.PLAIN, turns) == "user: Hello\nassistant: Yes\nai:"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_calls_in_harmonys_history() -> None:
    asked = {
        "role": "assistant", "content": "Just a moment.", "reasoning_content": "Hm",
        "tool_calls": [call("a", x=1), call("b")],
    }  # fmt: skip
    results = [{"role": "tool", "content": name, "tool_call_id": f"id-{name}"} for name in ("b", "a")]
    tool = {"function": {"name": "a", "description": ""}}
    going_on = prompt(templates.HARMONY, [*HELLO, asked, *results], tools=[tool])
    assert going_on.split("<|end|>", 1)[1] == (
        "<|start|>developer<|message|>// \ntype a = any;\n<|end|>"
        "<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Hm\n\nJust a moment.<|end|>"
        '<|start|>assistant to=functions.a<|channel|>commentary json<|message|>{"x": 1}<|call|>'
        '<|start|>functions.a to=assistant<|channel|>commentary<|message|>"a"<|end|>'
        "<|start|>assistant to=functions.b<|channel|>commentary json<|message|>{}<|call|>"
        '<|start|>functions.b to=assistant<|channel|>commentary<|message|>"b"<|end|>'
        "<|start|>assistant"
    )
    # Once it has answered, what it thought is left out.
    answer = {"role": "assistant", "content": "Done", "reasoning_content": "So"}
    later = prompt(templates.HARMONY, [*HELLO, asked, *results, answer, *HELLO])
    assert "analysis" not in later and "Hm" not in later and "So" not in later and "Done<|end|>" in later


@pytest.mark.parametrize(
    ("template", "think", "answer", "expected"),
    [
        (templates.QWEN35, None, "hm\n</think>\n\nyes", ("hm", "yes")),
        (templates.QWEN35, False, "yes", ("", "yes")),
        (templates.DEEPSEEK, None, "yes", ("", "yes")),
        (templates.DEEPSEEK, True, "hm</think>yes", ("hm", "yes")),
        (templates.MINIMAX, None, "hm\n</think>\nyes", ("hm", "yes")),
        (templates.GEMMA4, True, "<|channel>thought\nhm\n<channel|>yes", ("hm", "yes")),
        (templates.GEMMA4, False, "yes", ("", "yes")),
        (templates.MISTRAL, None, "[THINK]hm[/THINK]yes", ("hm", "yes")),
        (
            templates.HARMONY, None, "<|channel|>analysis<|message|>hm<|end|>"
            "<|start|>assistant<|channel|>final<|message|>yes", ("hm", "yes"),
        ),
        (templates.PLAIN, None, "yes", ("", "yes")),
    ],
)  # fmt: skip
def test_answers_are_read_by_what_the_prompt_has_opened(
    template: str, think: bool | None, answer: str, expected: tuple[str, str]
) -> None:
    conventions = Conventions.of(template)
    text = prompt(template, think=think)
    for sizes in (None, *map(random.Random, range(10))):
        assert read(conventions.reader(text, []), answer, sizes) == (*expected, [])
    # Where the answer must begin at once, nothing of it is thinking.
    at_once = conventions.answer_at_once(text, calls=False)
    assert read(conventions.reader(at_once, []), '{"yes": 1}') == ("", '{"yes": 1}', [])


def test_calls_are_read_behind_thinking() -> None:
    answer = 'hm</think>\n\nI look.\n<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>'
    conventions = replace(Conventions.of(templates.QWEN35), style=Hermes)
    reader = conventions.reader(prompt(templates.QWEN35), [TOOL])
    thought, said, calls = read(reader, answer, random.Random(3))
    assert (thought, said.strip(), calls, reader.calls) == ("hm", "I look.", [("a", '{"x": 1}')], 1)
    # Thinking about a call is none.
    reader = conventions.reader(prompt(templates.QWEN35), [TOOL])
    assert read(reader, '<tool_call>{"name": "a", "arguments": {}}</tool_call>')[2] == []


def tokenizer(template: str, special: dict[str, int]) -> Tokenizer:
    metadata = vocabularies.metadata([*byte_tokens(), "ab"], special, pre="smollm", merges=["a b"])
    tokenizer = Tokenizer.from_metadata(metadata)
    tokenizer.show(Conventions.of(template).markers)
    return tokenizer


def test_control_tokens_that_steer_show_in_the_answer() -> None:
    special = dict.fromkeys(("[INST]", "[THINK]", "[/THINK]", "</s>", "<|channel>", "<channel|>"), CONTROL)
    mistral, gemma = tokenizer(templates.MISTRAL, special), tokenizer(templates.GEMMA4, special)
    text = "[THINK]hm[/THINK]yes[INST]</s>"
    ids = mistral.encode(text, special=True)
    assert ids == gemma.encode(text, special=True) and len(ids) == 9
    assert mistral.decode(ids) == "[THINK]hm[/THINK]yes" and gemma.decode(ids) == "hmyes"
    assert gemma.decode(gemma.encode("<|channel>thought<channel|>", special=True)) == "<|channel>thought<channel|>"
    decoder = StreamDecoder(mistral)
    reader = Conventions.of(templates.MISTRAL).reader("", [])
    parts = [part for token in ids for part in reader.push(decoder.push(token))]
    assert "".join(part.text for part in parts if hasattr(part, "text")) == "hmyes"
    # They stay control tokens in what users write, and in what a grammar lets through.
    assert len(mistral.encode("[THINK]")) == len("[THINK]")
    logits = Grammars(mistral).regex(r"\[THINK\]x")
    row = vocabularies.allowed(logits, mistral.vocab_size)
    assert mistral.encode("[THINK]", special=True)[0] not in row and ord("[") in row


def test_a_forced_call_in_harmony() -> None:
    marks = dict.fromkeys(("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>"), USER_DEFINED)
    words = tokenizer(templates.HARMONY, marks | {"<|return|>": CONTROL, "<|call|>": CONTROL})
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tools = [{"function": {"name": "add", "parameters": schema}}, {"function": {"name": "now"}}]
    for text, right in {
        '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"x": 12}': True,
        "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}": True,
        "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{}": False,
        "<|channel|>final<|message|>{}": False,
    }.items():
        matcher = Grammars(words).lark(Harmony.grammar(tools, parallel=True))
        follows = True
        for token in words.encode(text, special=True):
            follows = follows and token in vocabularies.allowed(matcher, words.vocab_size)
            if not follows:
                break
            matcher.accept(token)
        assert follows is right, text


FAMILIES = {
    "openai-gpt-oss-120b": (Harmony, "<think>", {"reasoning_effort"}, ("thinking",)),
    "Qwen3.5-4B": (FunctionElements, "<think>", {"enable_thinking"}, ("reasoning_content",)),
    "google-gemma-4-31B-it": (Gemma4, "<|channel>thought", {"enable_thinking"}, ("reasoning_content", "reasoning")),
    "deepseek-ai-DeepSeek-V3.1": (DeepSeek, "<think>", {"enable_thinking", "thinking"}, ()),
    "MiniMax-M2": (MiniMax, "<think>", set(), ("reasoning_content",)),
    "GLM-4.6": (Glm, "<think>", {"enable_thinking"}, ("reasoning_content",)),
    "Kimi-K2-Thinking": (Kimi, "<think>", set(), ("reasoning_content",)),
    "LFM2.5-8B-A1B": (Lfm2, "<think>", set(), ("thinking",)),
    "mistralai-Ministral-3-14B-Reasoning-2512": (Mistral, "[THINK]", set(), ()),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_published_templates(name: str) -> None:
    style, open, switches, keys = FAMILIES[name]
    template = (reference_files.folder() / "templates" / f"{name}.jinja").read_text()
    conventions = Conventions.of(template)
    assert (conventions.style, conventions.tags.open) == (style, open)
    assert (conventions.switches, conventions.history_keys) == (switches, keys)
    assert conventions.thinks and conventions.blocks == ("Ministral" in name)
    earlier = {"role": "assistant", "content": "Yes", "reasoning_content": "XYZZY", "tool_calls": [call("a", x=1)]}
    result = {"role": "tool", "content": "1", "tool_call_id": "id-a", "name": "a"}
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "a", "description": "", "parameters": parameters}}
    asked = prompt(template, [*HELLO, earlier, result], tools=[tool])
    # DeepSeek V3.1 has no place for it.
    assert ("XYZZY" in asked) == ("V3.1" not in name)
    for think in (True, False):
        text = prompt(template, think=think)
        at_once = conventions.answer_at_once(text, calls=False)
        assert read(conventions.reader(at_once, []), "yes") == ("", "yes", [])
        if style is Harmony:
            level = re.search(r"Reasoning: (\w+)", text)
            assert level and level[1] == ("medium" if think else "low")
        elif switches:
            assert text != prompt(template, think=not think)


@pytest.mark.parametrize(
    ("name", "style", "answer"),
    [
        ("LFM2-8B-A1B", Lfm2, "<|im_start|>assistant\n"),
        ("LFM2.5-Instruct", Lfm2, "<|im_start|>assistant\n"),
        ("microsoft-Phi-3.5-mini-instruct", Hermes, "<|assistant|>\n"),
        ("google-gemma-2-2b-it", Hermes, "<start_of_turn>model\n"),
    ],
)
def test_published_templates_that_know_no_thinking(name: str, style: type[CallStyle], answer: str) -> None:
    template = (reference_files.folder() / "templates" / f"{name}.jinja").read_text()
    conventions = Conventions.of(template)
    assert (conventions.style, conventions.thinks, conventions.switches) == (style, False, set())
    # Asking for it or against it changes nothing.
    assert {prompt(template, think=think)[-len(answer) :] for think in (None, True, False)} == {answer}


@pytest.mark.parametrize(
    "template",
    [
        "{{" * 500_000,
        "{{ " + "\\'" * 500_000 + " }}",
        "{{ " + "a" * 1_000_000 + " }}",
        "{%" + "'" * 1_000_000 + "%}",
        "{{ " + "'thinking' in " * 70_000 + " }}",
        "{{ 'type']" + " " * 1_000_000 + "}}",
    ],
    ids=range(6),
)
def test_hostile_templates_take_no_time(template: str) -> None:
    start = time.process_time()
    Conventions.of(template)
    assert time.process_time() - start < 5
