"""Every style of calls: what is written is read again, in pieces of any size, and what a grammar forces is a call."""

import json
import random
from typing import Any

import pytest

from seventy.text.calls import STYLES, CallStyle, style
from seventy.text.calls.gemma import Gemma4
from seventy.text.calls.harmony import Harmony
from seventy.text.calls.json_calls import Hermes, Llama3
from seventy.text.calls.named_json import DeepSeek, DeepSeekFenced, Kimi, Mistral, MistralList
from seventy.text.calls.pythonic import Lfm2
from seventy.text.calls.repair import read_object
from seventy.text.calls.xml_calls import Dsml, Dsml4, FunctionElements, Glm, MiniMax
from seventy.text.grammar import Grammars
from seventy.text.tokenizer import Tokenizer
from tests.support import vocabularies
from tests.support.answers import read
from tests.support.tiny import byte_tokens
from tests.support.vocabularies import CONTROL

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "marks": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
    },
    "required": ["city"],
}
TOOLS: dict[str, dict[str, Any]] = {"weather": PARAMETERS, "list.files": {"type": "object"}}
CALLS = [
    {"name": "weather", "arguments": {"city": 'Köln "am" Rhein\n</x> {', "days": 3, "marks": ["a", "5"]}},
    {"name": "weather", "arguments": {"city": "5", "more": {"a": [True, None, 1.5]}}},
]
MARKED = [each for each in STYLES if each is not Harmony]
WITH_TEXT_BEFORE = [each for each in MARKED if each is not Llama3]


def calls_of(found: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"name": name, "arguments": json.loads(arguments)} for name, arguments in found]


@pytest.mark.parametrize("style", MARKED)
def test_what_is_written_is_read(style: type[CallStyle]) -> None:
    for calls in (CALLS, CALLS[:1]):
        text = style.written(calls)
        for sizes in (None, *map(random.Random, range(20))):
            thought, said, found = read(style(TOOLS), text, sizes)
            assert (thought, said, calls_of(found)) == ("", "", calls)


@pytest.mark.parametrize("style", WITH_TEXT_BEFORE)
def test_text_beside_calls_stays(style: type[CallStyle]) -> None:
    text = f"I look.\n\n{style.written(CALLS)}"
    for sizes in (None, *map(random.Random, range(20))):
        _, said, found = read(style(TOOLS), text, sizes)
        assert (said, calls_of(found)) == ("I look.", CALLS)
    plain = "a < b, [x] and <tool , ```py\nx = 1\n``` {}\n\nEnd <"
    for sizes in (None, *map(random.Random, range(20))):
        assert read(style(TOOLS), plain, sizes) == ("", plain, [])


@pytest.mark.parametrize("style", WITH_TEXT_BEFORE)
def test_calls_of_others_are_text(style: type[CallStyle]) -> None:
    text = style.written([{"name": "other", "arguments": {"a": "b"}}])
    for sizes in (None, *map(random.Random, range(10))):
        _, said, found = read(style(TOOLS), text, sizes)
        assert not found and "".join(said.split()) == "".join(text.split())


@pytest.mark.parametrize("style", WITH_TEXT_BEFORE)
def test_a_cut_call_leaves_nothing(style: type[CallStyle]) -> None:
    """Of an answer that was cut within the call, no mark is text."""
    text = style.written(CALLS[:1])
    for end in range(1, len(text)):
        reader = style(TOOLS)
        parts = [*reader.push("Yes. "), *reader.push(text[:end]), *reader.flush(cut=True)]
        said = "".join(part.text for part in parts if type(part).__name__ == "Text").strip()
        # The beginning of a mark may be text as well: only a whole one says that a call was begun.
        assert said.removeprefix("Yes.").strip() in ("", text[:end].strip()) and len(said) < 35, said


@pytest.mark.parametrize(
    ("style", "text", "arguments"),
    [
        (Hermes, '<tool_call>\n{"name": "weather", "arguments": {"city": "a\nb"}}\n</tool_call>', {"city": "a\nb"}),
        (Hermes, "<tool_call>\n{'name': 'weather', 'arguments': {'city': 'a', 'days': None}}\n</tool_call>",
         {"city": "a", "days": None}),
        (Hermes, '<tool_call>\n{"name": "weather", "arguments": {"city": "a"}\n</tool_call>', {"city": "a"}),
        (Hermes, '```json\n{ "name": "weather", "arguments": { "city": "a" } }\n```', {"city": "a"}),
        (Hermes, '```\n{"name": "weather", "arguments": {"city": "a"}}', {"city": "a"}),
        (Llama3, '<|python_tag|>{"name": "weather", "parameters": {"city": "a"}}', {"city": "a"}),
        (Llama3, '{"type": "function", "function": {"name": "weather", "parameters": {"city": "a"}}}', {"city": "a"}),
        (Llama3, '{"function": "weather", "parameters": {"city": "a"}}', {"city": "a"}),
        (FunctionElements, "<function=weather>\n<parameter=city>\na\n</parameter>\n</function>", {"city": "a"}),
        (FunctionElements, '<function=weather>{"city": "a"}</function>', {"city": "a"}),
        (FunctionElements, "<tool_call>\n<function=weather>\n<parameter=days>\n3\n</parameter></function></tool_call>",
         {"days": 3}),
        (Glm, "<tool_call>weather<arg_key>city</arg_key><arg_value>a</arg_value></tool_call>", {"city": "a"}),
        (MiniMax, '<minimax:tool_call><invoke name="weather"><parameter name="city">5</parameter></invoke>'
         "</minimax:tool_call>", {"city": "5"}),
        (DeepSeek, DeepSeekFenced.written([{"name": "weather", "arguments": {"city": "a"}}]), {"city": "a"}),
        (DeepSeekFenced, DeepSeek.written([{"name": "weather", "arguments": {"city": "a"}}]), {"city": "a"}),
        (Kimi, "<|tool_call_begin|>functions.weather:12<|tool_call_argument_begin|>{}<|tool_call_end|>", {}),
        (Mistral, '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "a"}, "id": "abcdefghi"}]', {"city": "a"}),
        (MistralList, '[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "a"}', {"city": "a"}),
        (Lfm2, "<|tool_call_start|>[weather(city='a', days=3, more={'x': true})]<|tool_call_end|>",
         {"city": "a", "days": 3, "more": {"x": True}}),
        (Gemma4, '<|tool_call>call:weather{city:<|"|>a, b: {c}<|"|>,marks:[<|"|>x:y<|"|>]}<tool_call|>',
         {"city": "a, b: {c}", "marks": ["x:y"]}),
    ],
)  # fmt: skip
def test_what_models_write(style: type[CallStyle], text: str, arguments: dict[str, Any]) -> None:
    for sizes in (None, *map(random.Random, range(20))):
        _, said, found = read(style(TOOLS), text, sizes)
        assert (said, calls_of(found)) == ("", [{"name": "weather", "arguments": arguments}])


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"name": "weather"}\n```\nThat is the file.',
        '```json\n{"name": "package", "version": "1"}\n```',
        '```json\n{"name": "weather", "arguments": {}}\n``` is how one calls it',
        '```python\nprint({"name": 1})\n```',
        "```",
    ],
)
def test_fences_that_are_no_calls(text: str) -> None:
    for sizes in (None, *map(random.Random, range(20))):
        assert read(Hermes({"weather": {}, "x": {}}), text, sizes)[1:] == (text, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}), ("", {}), ('"{\\"a\\": 1}"', {"a": 1}), ('{"a": "x\ty"}', {"a": "x\ty"}),
        ("{'a': True, 'b': None}", {"a": True, "b": None}), ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ('{"a": {"b": [1', {"a": {"b": [1]}}), ('{"a": "cut', None), ("[1]", None), ("no", None), ('{"a": 1]', None),
        ("{" * 100_000, None), ("{'a': {1, 2}}", None),
    ],
)  # fmt: skip
def test_arguments_are_read_as_they_were_meant(text: str, value: Any) -> None:
    assert read_object(text) == value


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<|tool_call>call: <|\\\"|>", Gemma4), ("<｜DSML｜function_calls>", Dsml), ("<｜DSML｜tool_calls>", Dsml4),
        ("<｜tool▁call▁begin｜>", DeepSeek), ("<｜tool▁call▁begin｜>```json", DeepSeekFenced),
        ("<|tool_call_argument_begin|>", Kimi), ("<invoke name=", MiniMax), ("[TOOL_CALLS]", MistralList),
        ("[TOOL_CALLS][ARGS]", Mistral), ("<|tool_call_start|>", Lfm2), ("<tool_call><arg_key>", Glm),
        ("<tool_call><function=", FunctionElements), ("<tool_call>", Hermes),
    ],
)  # fmt: skip
def test_styles_by_template(template: str, expected: type[CallStyle]) -> None:
    assert style(template) is expected


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    metadata = vocabularies.metadata(
        [*byte_tokens(), "ab"], {"<end>": CONTROL}, pre="smollm", merges=["a b"], eos_token_id=257
    )
    return Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("parallel", [False, True])
def test_what_is_written_may_be_forced(style: type[CallStyle], parallel: bool, tokenizer: Tokenizer) -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": one}} for name, one in TOOLS.items()]
    calls = CALLS if parallel and style is not Harmony else CALLS[:1]
    # JSON's texts and words, where grammars force them, are not Python's.
    text = style.written(calls) if style is not Lfm2 else '<|tool_call_start|>[weather(city="a")]<|tool_call_end|>'
    constraint = Grammars(tokenizer).calls(style.grammar, tools, parallel)
    ids = tokenizer.encode(text)
    for at, token in enumerate(ids):
        assert token in vocabularies.allowed(constraint, tokenizer.vocab_size), tokenizer.decode(ids[: at + 1])
        constraint.accept(token)
    assert 257 in vocabularies.allowed(constraint, tokenizer.vocab_size)
