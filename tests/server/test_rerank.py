"""/v1/rerank: scores beside those of a float32 twin, in the shapes that clients know."""

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine.request import Embedded, Event, Request
from tests.server.conftest import Running, serving
from tests.support.oracle import float32_states
from tests.support.tiny import HIDDEN, write_tiny

TEMPLATE = "<|start|><Instruct>: find\n<Query>: {query}\n<Document>: {document}<|end|><|start|>"
QUERY, DOCUMENTS = "what is it", ["a dog", "b" * 200, "something else <|end|> {query}", "a dog", ""]


def write(path: Path, rows: int = 2, labels: list[str] | None = None, **more: Any) -> Path:
    """A reranker of random weights; its classifier leans on nothing."""
    rng = np.random.default_rng(5)
    tensors = {
        "cls.output.weight": rng.standard_normal((rows, HIDDEN)).astype(np.float32) / 4,
        "cls.output.bias": rng.standard_normal(rows).astype(np.float32),
    }
    keys = {"classifier.output_labels": labels or ["no", "yes"][:rows], "tokenizer.chat_template.rerank": TEMPLATE}
    return write_tiny(path, "qwen3", "F16", pooling_type=4, **{"vectors": tensors, **keys, **more})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ranks") / "ranks.gguf")


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[Running]:
    with serving(path) as server:
        server.wait()
        yield server


def ask(server: Running, where: str = "/v1/rerank", **body: Any) -> Any:
    response = server.client.post(where, json={"query": QUERY, "documents": DOCUMENTS} | body)
    assert response.status_code == 200, response.text
    return response.json()


def by_index(results: list[dict[str, Any]], field: str = "relevance_score") -> list[float]:
    return [one[field] for one in sorted(results, key=lambda one: int(one["index"]))]


def test_scores_are_those_of_a_twin(server: Running, path: Path) -> None:
    tokenizer = server.backend.llm.tokenizer
    expected, tokens = [], 0
    for document in DOCUMENTS:
        # Special tokens of the template are such, those of the texts are letters.
        middle = f"<Instruct>: find\n<Query>: {QUERY}\n<Document>: {document}"
        ids = [256, *tokenizer.encode(middle), 257, 256]
        logits = float32_classes(path, ids)
        expected.append(1 / (1 + np.exp(logits[0] - logits[1])))
        tokens += len(ids)
    answer = ask(server)
    assert by_index(answer["results"]) == pytest.approx(expected, abs=2e-3)
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True) and len({round(score, 3) for score in scores}) >= 3
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    raw = by_index(ask(server, raw_scores=True)["results"])
    assert 1 / (1 + np.exp(-np.array(raw))) == pytest.approx(by_index(answer["results"]))


def float32_classes(path: Path, ids: list[int]) -> np.ndarray:
    """What the classifier gives for the last token, in float32."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((2, HIDDEN)).astype(np.float32) / 4
    bias = rng.standard_normal(2).astype(np.float32)
    return weight @ float32_states(path, ids)[-1] + bias


def test_shapes_that_clients_know(server: Running) -> None:
    whole = ask(server)
    assert whole["object"] == "list" and whole["model"] == "ranks"
    for where in ("/rerank", "/reranking", "/v1/reranking", "/v2/rerank"):
        assert ask(server, where) == whole
    best = ask(server, top_n=2, return_documents=True, documents=[{"text": one} for one in DOCUMENTS])["results"]
    assert [(one["index"], one["relevance_score"]) for one in best] == [
        (one["index"], one["relevance_score"]) for one in whole["results"][:2]
    ]
    assert all(one["document"] == {"text": DOCUMENTS[one["index"]]} for one in best)
    tei = server.client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "return_text": True}).json()
    assert by_index(tei, "score") == by_index(whole["results"]) and tei[0]["text"] == DOCUMENTS[tei[0]["index"]]
    # More of them than the queue has room for.
    many = ask(server, documents=DOCUMENTS * 20, top_n=999)["results"]
    assert by_index(many) == by_index(whole["results"]) * 20
    server.idle()


@pytest.mark.parametrize(
    "wrong",
    [{"documents": []}, {"documents": 123}, {"documents": [1, 2]}, {"documents": None}, {"texts": ["x"]}, {"top_n": 0},
     {"query": None}, {"query": "x" * 600}, {"documents": ["ok", "x" * 9000]}],
)  # fmt: skip
def test_wrong_requests(server: Running, wrong: dict[str, Any]) -> None:
    response = server.client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS} | wrong)
    assert response.status_code == 400 and response.json()["error"]["message"], response.text
    server.idle()


def test_long_documents_and_instructions(server: Running) -> None:
    refused = server.client.post("/v1/rerank", json={"query": QUERY, "documents": ["x", "z" * 600]})
    assert refused.status_code == 400 and "document 1: " in refused.json()["error"]["message"]
    cut = ask(server, documents=["z" * 600, "z" * 90_000], truncate=True)
    assert cut["usage"]["prompt_tokens"] == 2 * 512
    # Of a character that was cut nothing is left.
    assert ask(server, documents=["é" * 600], truncate=True)["usage"]["prompt_tokens"] in (511, 512)
    for long, short in (("zzzz", "zz"), ("zzé", "zz"), ("zz", "zz")):
        limit = 3 if long == "zzé" else 2
        assert by_index(ask(server, documents=[long], max_tokens_per_doc=limit)["results"]) == by_index(
            ask(server, documents=[short])["results"]
        )
    plain = by_index(ask(server)["results"])
    assert by_index(ask(server, instruction="find")["results"]) == plain
    assert by_index(ask(server, instruction="lose {query}")["results"]) != plain


def test_one_that_is_too_long_costs_nothing(server: Running) -> None:
    """The others are not read by the model first."""
    before = server.backend.scheduler.statistics.requests
    refused = server.client.post("/v1/rerank", json={"query": QUERY, "documents": [*["x"] * 99, "z" * 600]})
    assert refused.status_code == 400 and "document 99: " in refused.json()["error"]["message"]
    assert server.backend.scheduler.statistics.requests == before


def test_who_has_begun_waits_for_a_full_queue(path: Path) -> None:
    """Rerankings that fill a short queue by turns: one that finds it full at first is refused, later none is."""
    with serving(path, parallel=1, queue=1) as server, ThreadPoolExecutor(6) as threads:
        server.wait()
        body, statistics = {"query": QUERY, "documents": DOCUMENTS * 8}, server.backend.scheduler.statistics
        before = statistics.requests

        def ranked(_: int) -> list[float]:
            for _ in range(1000):
                answer = server.client.post("/v1/rerank", json=body)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 429
                time.sleep(0.03)
            return by_index(answer.json()["results"])

        whole = list(threads.map(ranked, range(6)))
        assert all(each == whole[0] for each in whole)
        # Who was refused had submitted nothing.
        assert statistics.requests - before == 6 * len(body["documents"])
        server.idle()


def test_a_client_that_goes_ends_it_all(server: Running) -> None:
    """Also before its first document is submitted."""
    statistics, documents = server.backend.scheduler.statistics, ["x" * 20] * 900
    before, now = statistics.requests, -1
    for seconds in (0.01, 0.05):
        with suppress(httpx.TimeoutException):
            server.client.post("/v1/rerank", json={"query": QUERY, "documents": documents}, timeout=seconds)
    while now != statistics.requests:
        now = statistics.requests
        time.sleep(0.3)
    assert now - before < len(documents)
    server.idle()


def test_a_reranker_says_what_it_is(server: Running) -> None:
    shown = server.client.post("/api/show", json={"model": "ranks"}).json()
    assert shown["capabilities"] == ["rerank"]
    refused = server.client.post("/v1/embeddings", json={"input": "x"})
    assert refused.status_code == 400 and "/v1/rerank" in refused.json()["error"]["message"]
    refused = server.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
    assert refused.status_code == 400 and "/v1/rerank" in refused.json()["error"]["message"]


def test_other_models_say_which_rank(random_model: Running) -> None:
    for where, texts in (("/rerank", "texts"), ("/v1/rerank", "documents")):
        refused = random_model.client.post(where, json={"query": "a", texts: ["b", "c"]})
        assert refused.status_code == 501 and "Qwen3-Reranker" in refused.json()["error"]["message"]


def test_classifiers_of_other_kinds(tmp_path: Path, path: Path, tiny: Path) -> None:
    with LLM(write(tmp_path / "one.gguf", 1, ["LABEL_0"]), threads=2, context=64) as llm:
        assert llm.ranking and llm.ranking.score(np.zeros(HIDDEN, np.float32)) == pytest.approx(
            1 / (1 + np.exp(-float(llm.ranking.bias[0])))
        )
    for wrong, said in (
        (write(tmp_path / "three.gguf", 3, ["good", "bad", "ugly"]), "good, bad, ugly"),
        (write(tmp_path / "labels.gguf", 2, ["yes"]), "2 rows and 1 labels"),
        (write(tmp_path / "place.gguf", **{"tokenizer.chat_template.rerank": "{query}"}), "no place for the document"),
    ):
        with pytest.raises(SeventyError, match=said):
            LLM(wrong, threads=2, context=64)
    damaged = write(tmp_path / "damaged.gguf", vectors={"cls.output.weight": np.full((2, HIDDEN), np.nan, np.float32)})
    with pytest.raises(SeventyError, match="is not all numbers"):
        LLM(damaged, threads=2, context=64)
    # Labels that are no list say nothing.
    with LLM(write(tmp_path / "no_list.gguf", **{"classifier.output_labels": 7}), threads=2, context=64) as llm:
        assert llm.ranking and llm.ranking.relevant == 0
    with pytest.raises(SeventyError, match="no tokens for"):
        LLM(tiny, threads=2, context=64, ranks=True)


def test_a_model_that_says_yes_or_no(smollm2: Path) -> None:
    with LLM(smollm2, threads=2, context=512, ranks=True) as llm:
        ranking = llm.ranking
        assert ranking and not ranking.only
        ids = ranking.ids("a city", "Paris", 512)
        logits = llm.logits(ids, last_only=True)[0]
        yes, no = (logits[llm.tokenize(word)[0]] for word in ("yes", "no"))
        state = states(llm, ids)
        assert ranking.log_odds(state) == pytest.approx(float(yes - no), abs=0.1)


def states(llm: LLM, ids: list[int]) -> np.ndarray:
    """What the model makes of the last token."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    found = list(llm._events(Request(ids, None, events.put, pooling="last"), events))
    return next(one.vector for one in found if isinstance(one, Embedded))
