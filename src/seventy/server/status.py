"""What is here and how it goes: models, health, numbers, tokens."""

from typing import Any

import psutil
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest

from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.metrics import Metrics
from seventy.server.schemas import DetokenizeBody, TokenizeBody
from seventy.version import __version__


def router(backend: Backend, metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    def card() -> dict[str, Any]:
        about = {"id": backend.name, "object": "model", "created": backend.created, "owned_by": "seventy"}
        return about | ({"context_length": backend.llm.context} if backend.ready else {})

    @routes.get("/v1/models", tags=["OpenAI"])
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [card()]}

    @routes.get("/v1/models/{model:path}", tags=["OpenAI"])
    async def model(model: str) -> dict[str, Any]:
        if model != backend.name:
            raise ApiError(404, f"there is no model {model[:100]!r} here, only {backend.name!r}", "model_not_found")
        return card()

    @routes.get("/health", tags=["status"])
    async def health() -> Response:
        """200 when answers can be had; 503 while the model loads, with how far it is."""
        loading = backend.loading
        body: dict[str, Any] = {"status": "ok" if backend.ready else "failed"}
        if loading.state == "loading":
            body = {"status": "loading", "what": loading.what, "progress": round(loading.share, 4)}
        return JSONResponse(body, 200 if backend.ready else 503)

    @routes.get("/status", tags=["status"])
    async def status() -> dict[str, Any]:
        """For the page: the model, the queue, speed and memory."""
        loading = backend.loading
        memory = psutil.virtual_memory()
        body: dict[str, Any] = {
            "version": __version__, "model": backend.name, "state": loading.state, "what": loading.what,
            "progress": loading.share, "error": loading.error,
            "parallel": backend.scheduler.parallel if backend.ready else 0,
            "memory_used_bytes": psutil.Process().memory_info().rss, "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
        }  # fmt: skip
        if not backend.ready:
            return body
        s, model = backend.scheduler.statistics, backend.llm.model
        return body | {
            "context": model.context, "running": s.running, "queued": s.queued, "weight_bytes": model.weight_bytes,
            "threads": model.threads, "decode_tokens_per_second": s.decode_tokens_per_second,
            "prompt_tokens_per_second": s.prompt_tokens_per_second,
            "kv_used": 1 - model.cache.free_pages / model.cache.n_pages,
            "prefix_hit_rate": s.cached_tokens / s.prompt_tokens if s.prompt_tokens else 0.0,
        }  # fmt: skip

    @routes.get("/metrics", tags=["status"])
    async def prometheus() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.post("/tokenize", tags=["tokens"])
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """Token ids of a text."""
        llm = backend.llm
        ids: list[int] = await backend.apart(llm.tokenize, body.content, body.parse_special)
        bos = llm.tokenizer.bos_id
        if body.add_special and llm.tokenizer.add_bos and bos is not None:
            ids = [bos, *ids]
        return {"tokens": ids, "count": len(ids)}

    @routes.post("/detokenize", tags=["tokens"])
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """The text of token ids."""
        return {"content": await backend.apart(backend.llm.detokenize, body.tokens)}

    return routes
