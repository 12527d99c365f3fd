"""Answers as JSON: the bytes of json.dumps, in pieces of bounded size, none of which is made by the event loop."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.server import json_answer
from seventy.server.json_answer import LARGE_PIECES, VALUES, json_pieces
from tests.server.conftest import serving

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUE = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=40)


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@settings(deadline=None)
@given(VALUE, st.integers(1, 12))
def test_a_value_has_the_bytes_of_json_dumps(value: Any, values: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_answer, "VALUES", values)
        patch.setattr(json_answer, "_LETTERS", 1)
        assert b"".join(json_pieces(value)) == dumped(value)


def test_arrays_and_iterators_are_lists() -> None:
    array = np.random.default_rng(1).standard_normal((3, 2 * VALUES + 1), np.float32)
    whole: dict[str, Any] = {"rows": array.tolist(), "none": [], "ids": [1, 2], "texts": ["a", {"b": []}]}
    lazy = {"rows": iter(array), "none": iter(()), "ids": np.array([1, 2], np.int32), "texts": iter(["a", {"b": []}])}
    assert b"".join(json_pieces(lazy)) == dumped(whole)
    assert b"".join(json_pieces(array)) == dumped(array.tolist())


@pytest.mark.parametrize("value", [
    np.zeros((40, VALUES), np.float32), [0] * 40 * VALUES, [[[0] * VALUES] * 10] * 4,
    {str(at): [0] * 9 for at in range(9000)}, "x" * (1 << 20), [{"a": "x" * 1000}] * 500,
    [{"token": "a", "bytes": [97], "top": [{"token": "b", "bytes": [98]}] * 20}] * 900,
])  # fmt: skip
def test_no_piece_is_made_of_more_than_some_values(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, encode = list[int](), json_answer._encode

    def counted(part: Any) -> str:
        text = encode(part)
        made[-1] += 1 + text.count(",") + len(text) // 64
        return text

    monkeypatch.setattr(json_answer, "_encode", counted)
    made.append(0)
    for _ in json_pieces(value):
        made.append(0)
    assert len(made) > 20 and max(made) <= 3 * VALUES


def test_a_large_answer_is_not_made_by_the_loop(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop makes the same pieces of two answers, of which one has twice as many vectors."""
    by_loop, by_threads, encode = list[int](), list[int](), json_answer._encode

    def seen(part: Any) -> str:
        try:
            asyncio.get_running_loop()
            by_loop.append(1)
        except RuntimeError:
            by_threads.append(1)
        return encode(part)

    monkeypatch.setattr(json_answer, "VALUES", 32)
    with serving(tiny, pooling="mean") as server:
        server.wait()
        monkeypatch.setattr(json_answer, "_encode", seen)
        for form in ("float", "base64"):
            made = list[tuple[int, int]]()
            for many in (1, 40, 80):
                by_loop.clear(), by_threads.clear()
                body = {"input": [*map(str, range(many))], "encoding_format": form}
                answer = server.client.post("/v1/embeddings", json=body)
                assert [one["index"] for one in answer.json()["data"]] == [*range(many)]
                assert dumped(answer.json()) == answer.content
                assert ("content-length" in answer.headers) == (not by_threads)
                made.append((len(by_loop), len(by_threads)))
            assert made[0][1] == 0 and made[1][0] == made[2][0] <= 9 * LARGE_PIECES and 0 < made[1][1] < made[2][1]


@pytest.mark.parametrize("path, body, field", [
    ("/tokenize", {"content": "a few words " * 300, "with_pieces": True}, "tokens"),
    ("/tokenize", {"content": "a few words " * 300}, "tokens"),
    ("/completion", {"prompt": "x", "n_predict": 200, "n_probs": 5, "ignore_eos": True}, "completion_probabilities"),
    ("/v1/completions", {"prompt": "x", "max_tokens": 200, "logprobs": 5, "ignore_eos": True}, "choices"),
    ("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "x"}], "max_tokens": 200, "logprobs": True, "top_logprobs": 5,
        "ignore_eos": True}, "choices"),
    ("/v1/responses", {
        "input": "x", "max_output_tokens": 200, "top_logprobs": 5,
        "include": ["message.output_text.logprobs"]}, "output"),
])  # fmt: skip
def test_other_large_answers_are_sent_as_they_are_written(
    path: str, body: dict[str, Any], field: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_answer, "VALUES", 32)
    with serving(tiny, context=8192) as server:
        server.wait()
        answer = server.client.post(path, json=body)
        assert answer.status_code == 200 and answer.json()[field], answer.text
        assert dumped(answer.json()) == answer.content and "content-length" not in answer.headers
