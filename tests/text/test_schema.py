from typing import Any

import numpy as np
import pytest

from seventy.errors import SeventyError
from seventy.text.calls import STYLES
from seventy.text.calls.json_calls import Hermes
from seventy.text.calls.xml_calls import FunctionElements
from seventy.text.grammar import ConstraintError, Grammars
from seventy.text.schema import closed, relaxed
from seventy.text.tokenizer import Tokenizer
from tests.support import vocabularies
from tests.support.tiny import byte_tokens
from tests.support.vocabularies import CONTROL


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    metadata = vocabularies.metadata([*byte_tokens(), "ab"], {"<end>": CONTROL}, pre="smollm", merges=["a b"])
    return Grammars(Tokenizer.from_metadata(metadata | {"tokenizer.ggml.eos_token_id": 257}))


SET = {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "maxItems": 2}


@pytest.mark.parametrize(
    ("schema", "gone"),
    [
        (SET, ["uniqueItems"]),
        ({"type": "string", "format": "colour"}, ["format"]),
        ({"type": "string", "pattern": "^(?=a).$"}, ["pattern"]),
        ({"type": "string", "pattern": "(a)\\1"}, ["pattern"]),
        ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]}, ["oneOf"]),
        ({"properties": {"not": SET, "a.b": {"not": {}}}}, ["properties.not.uniqueItems", "properties.a.b.not"]),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}], "$defs": {"x": SET}}, ["$defs.x.uniqueItems"]),
        ({"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": SET},
         ["propertyNames", "additionalProperties.uniqueItems"]),
    ],
)  # fmt: skip
def test_what_only_narrows_is_let_go(schema: dict[str, Any], gone: list[str], grammars: Grammars) -> None:
    wider, places = relaxed(schema)
    assert places == gone and relaxed(wider) == (wider, [])
    assert grammars.json_schema(schema).gone == gone
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {
        key: value for key, value in schema.items() if key != "$defs"
    }}, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}}}]  # fmt: skip
    found = grammars.calls(Hermes.grammar, tools, True).gone
    assert [place.rsplit(".", 1)[-1] for place in found] == [place.rsplit(".", 1)[-1] for place in gone]
    assert all(place.startswith("tools.f.") for place in found)
    # Texts without quotes have no form in the first place.
    assert grammars.calls(FunctionElements.grammar, tools, True)


def test_a_call_has_the_arguments_that_its_schema_names(grammars: Grammars) -> None:
    inner = {"type": "object", "properties": {"b": {"enum": [1]}}, "required": ["b"]}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": inner}}, "required": ["a"]}

    def may_end_only(text: str, **more: Any) -> bool:
        tool = {"type": "function", "function": {"name": "f", "parameters": {**schema, **more}}}
        constraint = grammars.calls(Hermes.grammar, [tool], False)
        for token in grammars._tokenizer.encode('<tool_call>\n{"name": "f", "arguments": {"a": [{"b": 1' + text):
            constraint.accept(token)
        return ord(",") not in vocabularies.allowed(constraint, 258)

    assert may_end_only("") and may_end_only("}]")
    assert not may_end_only("}]", additionalProperties=True)
    for other in ({"properties": {}, "patternProperties": {}}, {"allOf": [schema, {"properties": {}}]}, {}):
        assert closed(other) == other


def test_what_can_be_followed_stays(grammars: Grammars) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "date", "pattern": "^[a-z]+$"}}}
    assert relaxed(schema) == (schema, [])
    disjoint = {"oneOf": [{"type": "string"}, {"type": "integer"}]}
    assert grammars.json_schema(disjoint).gone == ()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "nonsense"}, "nonsense"), ({"$ref": "#/$defs/none"}, "cannot be used"),
        ({"$ref": "#"}, "cannot be used"), ({"enum": []}, "cannot be used"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "cannot be used"),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be(schema: dict[str, Any], said: str, grammars: Grammars) -> None:
    with pytest.raises(SeventyError, match=said) as error:
        grammars.json_schema(schema)
    assert "coerce" not in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300
    tool = {"type": "function", "function": {"name": "broken", "parameters": schema}}
    with pytest.raises(SeventyError, match="tool 'broken'"):
        grammars.calls(Hermes.grammar, [tool], False)


@pytest.mark.parametrize(
    "pattern", [r"[^\s\S]", "(a|b", "(?=a)b", r"(a)\1", "(?i"]
)  # fmt: skip
def test_expressions_that_cannot_be(pattern: str, grammars: Grammars) -> None:
    with pytest.raises(SeventyError, match="regular expression"):
        grammars.regex(pattern)


@pytest.mark.parametrize(
    "grammar",
    [
        "start: nothing", 'start: "a', "start: /[^\\s\\S]/", "", "start: start",
    ],
)  # fmt: skip
def test_grammars_that_cannot_be(grammar: str, grammars: Grammars) -> None:
    with pytest.raises(SeventyError, match="the grammar cannot be used"):
        grammars.lark(grammar)


def test_grammars_that_can_be(grammars: Grammars) -> None:
    for grammar in (
        'start: item ("," item)*\nitem: /[a-z]+/ | "(" start ")"', 'root ::= "a" root | "b"',
        'start: "a"? "b"\n', 'start: %json {"type": "object"}', 'start: x y\nx: "a"*\ny: "b" x',
        'start: _a "x"\n_a: "\\"" | "\\/" | /\\/"|#/ // a comment: start\n',
    ):  # fmt: skip
        assert vocabularies.allowed(grammars.lark(grammar), 258)


@pytest.mark.parametrize("grammar", ['start: start start | "a" | "b"', 'start: ("a"? ("b"? ("a"? "b"?)*)?)* "c"'])
def test_ambiguous_grammars_end_before_they_cost_much(grammar: str, grammars: Grammars) -> None:
    constraint = grammars.lark(grammar)
    tokens = [grammars._tokenizer.encode(letter)[0] for letter in "ab"]
    with pytest.raises(ConstraintError):
        for at in range(5000):
            assert vocabularies.allowed(constraint, 258)
            constraint.accept(tokens[at % 2])


def test_many_tools_are_no_ambiguity(grammars: Grammars) -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10)}}
    tools = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": schema}} for i in range(128)]
    for style in STYLES:
        assert grammars.calls(style.grammar, tools, True).gone == ()


def test_an_answer_begins_with_the_mask_of_the_check(grammars: Grammars) -> None:
    constraint = grammars.regex("[ab]c")
    first, other = constraint.copy(), constraint.copy()
    allowed = np.zeros((3, 300), np.float32)
    first.mask(allowed[0])
    assert set(np.flatnonzero(allowed[0] == 0)) == {ord("a"), ord("b")}
    first.accept(ord("a"))
    first.mask(allowed[1])
    assert set(np.flatnonzero(allowed[1] == 0)) == {ord("c")}
    # Of copies each goes its own way.
    other.mask(allowed[2])
    assert (allowed[2] == allowed[0]).all()
