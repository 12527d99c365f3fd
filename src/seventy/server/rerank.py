"""/v1/rerank: which documents answer a query best, by a model made for it, as Jina, Cohere and TEI answer."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request as HttpRequest

from seventy.engine.ranking import Ranking
from seventy.engine.request import TooLong
from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.json_answer import json_answer
from seventy.server.pool import ModelPool
from seventy.server.schemas import RerankBody
from seventy.server.vectors import Vectors, vectors


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter(tags=["llama.cpp"])

    @routes.post("/rerank", include_in_schema=False)
    @routes.post("/reranking", include_in_schema=False)
    @routes.post("/v1/reranking", include_in_schema=False)
    @routes.post("/v2/rerank", include_in_schema=False)
    @routes.post("/v1/rerank")
    async def rerank(request: HttpRequest, body: RerankBody) -> Response:
        """Logprob each document by how well it answers the query, the best first; with `texts`, as TEI answers."""
        is_tei, documents = body.texts is not None, body.given()

        async def read(backend: Backend, at: int) -> tuple[list[int], str]:
            ranking = _ranking(backend)
            ids = await backend.run_in_thread(_ids, backend, ranking, body, documents[at], at)
            return ids, "last"

        def use(name: str | None) -> AbstractAsyncContextManager[Backend]:
            return pool.use(request, name or body.model, strict=name is not None)

        found = await vectors(request, use, range(len(documents)), read)
        ranking = _ranking(found.backend)
        results = await found.backend.run_in_thread(_results, ranking, body, found)
        shown = (_shown(body, documents[at], at, score, is_tei) for score, at in results[: body.top_n])
        if is_tei:
            return json_answer(shown)
        about = {"object": "list", "model": found.backend.name, "usage": found.usage}
        return json_answer(about | {"results": shown})

    return routes


def _ranking(backend: Backend) -> Ranking:
    if backend.llm.ranking is None:
        raise ApiError(
            501, f"{backend.name} is not made for ranking: serve a Qwen3-Reranker GGUF, or start with --pooling rank, "
            "which asks any chat model for yes or no; rerankers of BERT's kind (bge-reranker, jina-reranker) do not "
            "run here", "not_supported", "model",
        )  # fmt: skip
    return backend.llm.ranking


def _ids(backend: Backend, ranking: Ranking, body: RerankBody, document: str, at: int) -> list[int]:
    """Token ids that ask about a document. Takes time: not in the event loop."""
    llm = backend.llm
    if most := body.max_tokens_per_doc:
        document = ranking.cut(document, most)
    try:
        return ranking.ids(body.query, document, llm.context, body.truncate, body.instruction)
    except TooLong as error:
        raise TooLong(f"document {at}: {error}", error.prompt_tokens, error.context) from None


def _results(ranking: Ranking, body: RerankBody, found: Vectors) -> list[tuple[float, int]]:
    """Scores and numbers of all documents, the best first. Takes time: not in the event loop."""
    score = ranking.log_odds if body.raw_scores else ranking.score
    results = [(score(one.values), at) for at, one in enumerate(found.each)]
    return sorted(results, key=lambda result: (-result[0], result[1]))


def _shown(body: RerankBody, document: str, at: int, score: float, is_tei: bool) -> dict[str, Any]:
    if is_tei:
        return {"index": at, "score": score} | ({"text": document} if body.return_text else {})
    shown: dict[str, Any] = {"index": at, "relevance_score": score}
    return shown | ({"document": {"text": document}} if body.return_documents else {})
