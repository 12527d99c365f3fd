"""What coding agents sent (benchmarks/agents.py), sent again: nothing of it is dropped in silence.

The cases have the agents' fields, types and schemas of tools, other words in the place of all texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from seventy.server.anthropic import CountBody, MessagesBody
from seventy.server.fields import REFUSED, WITHOUT_EFFECT
from seventy.server.response_items import ResponsesBody
from seventy.server.schemas import ChatBody
from tests.server.conftest import Running, serving
from tests.support.tiny import write_tiny

CASES = [
    case for path in sorted((Path(__file__).parent / "cases").glob("*.json")) for case in json.loads(path.read_text())
]
BODIES: dict[str, type[BaseModel]] = {
    "/v1/messages": MessagesBody, "/v1/messages/count_tokens": CountBody, "/v1/responses": ResponsesBody,
    "/v1/chat/completions": ChatBody,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # Schemas of tools are letters to this model's tokenizer.
    path = write_tiny(tmp_path_factory.mktemp("models") / "long.gguf", context_length=16384)
    with serving(path, context=16384, parallel=1) as server:
        server.wait()
        yield server


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def dropped(given: Any, known: list[type[BaseModel]], place: str = "") -> Iterator[str]:
    """Places of fields that no model of a body knows."""
    if isinstance(given, list):
        for one in given:
            yield from dropped(one, known, place)
    elif isinstance(given, dict) and known:
        fields = {}
        for model in known:
            for name, field in model.model_fields.items():
                choices = getattr(field.validation_alias, "choices", ())
                for alias in (name, field.alias, *choices):
                    fields[alias] = field
        for name, value in given.items():
            if name in fields:
                yield from dropped(value, list(models_in(fields[name].annotation)), f"{place}.{name}")
            else:
                yield f"{place}.{name}"


def foreign(body: dict[str, Any]) -> set[str]:
    """Kinds of tools that their makers run: they are left out, and a header says so."""
    return {tool["type"] for tool in body.get("tools", ())} - {"function", "custom"} if "input" in body else set()


def named(case: dict[str, Any]) -> str:
    return f"{case['agent']}-{len(json.dumps(case['body']))}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_it_is_answered_as_it_was(case: dict[str, Any], server: Running) -> None:
    body = case["body"] | {"max_output_tokens" if "responses" in case["path"] else "max_tokens": 8}
    answer = server.client.request(case["method"], case["path"], json=body, headers=case["headers"])
    assert answer.status_code == case["status"], answer.text
    for kind in foreign(body):
        assert repr(kind) in answer.headers["X-Seventy-Changed"]
    if body.get("stream"):
        said = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        kinds = [one.get("type") or one["object"] for one in said]
        # What is said between depends on the model.
        assert kinds[0] == case["events"][0] and kinds[-1].partition(".")[0] == case["events"][-1].partition(".")[0]


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_field_is_honoured_or_named(case: dict[str, Any]) -> None:
    left_out = foreign(case["body"])
    tools = [tool for tool in case["body"].get("tools", ()) if tool.get("type") not in left_out]
    lost = dict.fromkeys(dropped(case["body"] | {"tools": tools}, [BODIES[case["path"].partition("?")[0]]]))
    unnamed = [place for place in lost if place.rpartition(".")[2] not in {**WITHOUT_EFFECT, **REFUSED}]
    assert not unnamed
