"""What is here and how it goes: models, health, numbers, tokens."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest
from starlette.requests import Request as HttpRequest

from seventy.hub.local import Local
from seventy.server.backend import Backend
from seventy.server.json_answer import json_answer
from seventy.server.metrics import Metrics
from seventy.server.pool import ModelPool
from seventy.server.schemas import DetokenizeBody, TokenizeBody
from seventy.server.served import ServedModel
from seventy.version import __version__


def router(
    pool: ModelPool,
    metrics: Metrics,
    users: frozenset[str],
    expected: Callable[[Path], float | None],
    history_days: float | None = None,
    tool_users: frozenset[str] = frozenset(),
) -> APIRouter:
    """Build the routes that describe the server.

    `users` are the names of keys. `expected` returns the tokens per second that a model file should reach here.
    Conversations are kept for `history_days`, None for not at all. `tool_users` may use tools.
    """
    routes = APIRouter()

    def about(model: ServedModel) -> dict[str, Any]:
        try:
            size = Local(model.path, "").nbytes
        except OSError:
            # Its file is gone; it is still listed, and says so when it is asked for.
            size = 0
        return {
            "name": model.name, "state": model.state, "progress": model.share, "error": model.error, "size_bytes": size,
            "expected_tokens_per_second": expected(model.path) if size else None,
        }  # fmt: skip

    def card(model: ServedModel) -> dict[str, Any]:
        about: dict[str, Any] = {"id": model.name, "object": "model", "created": model.created, "owned_by": "seventy"}
        # Anthropic's words for the same.
        created = datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z")
        about |= {"type": "model", "display_name": model.name, "created_at": created}
        for context in pool.look(lambda backend: backend.llm.context, model):
            about["context_length"] = context
        return about

    @routes.get("/models", include_in_schema=False)
    @routes.get("/v1/models", tags=["OpenAI"])
    async def models() -> dict[str, Any]:
        """List the models that the server offers."""
        cards = [card(model) for model in pool.models]
        ends = {"first_id": cards[0]["id"], "last_id": cards[-1]["id"]} if cards else {}
        return {"object": "list", "data": cards, "has_more": False, **ends}

    @routes.get("/v1/models/{model:path}", tags=["OpenAI"])
    async def model(model: str) -> dict[str, Any]:
        return card(pool.find(model, strict=True))

    @routes.get("/health", tags=["status"])
    async def health() -> Response:
        """Return 200 if the server can answer, also if a model must load first; 503 before the first one has."""
        loading = [
            {"model": model.name, "what": model.what, "progress": round(model.share, 4)}
            for model in pool.models if model.state == "loading"
        ]  # fmt: skip
        if pool.starting:
            first = pool.default
            body = {"status": "loading", "what": first.what, "progress": round(first.share, 4)}
            return JSONResponse(body, 503)
        if not pool.alive:
            return JSONResponse({"status": "failed"}, 503)
        return JSONResponse({"status": "ok"} | ({"loading": loading} if loading else {}))

    @routes.get("/status", tags=["status"])
    async def status(request: HttpRequest, model: str | None = None) -> dict[str, Any]:
        """Return what the page shows: the model, queue, speed, memory, other models and the user."""
        chosen, memory, user = pool.find(model), psutil.virtual_memory(), request.state.user
        models = await asyncio.to_thread(lambda: [about(each) for each in pool.models])
        body: dict[str, Any] = {
            "version": __version__, "model": chosen.name, "state": chosen.state, "what": chosen.what,
            "progress": chosen.share, "error": chosen.error, "parallel": 0, "waiting": pool.waiting,
            "models": models, "owner": request.state.owner, "user": user if user in users else None,
            "users": sorted(users) if users and request.state.owner else [],
            "history_days": history_days if user in users else None, "tools": user in tool_users,
            "memory_used_bytes": psutil.Process().memory_info().rss, "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
        }  # fmt: skip
        for numbers in pool.look(_numbers, chosen):
            body |= numbers
        return body

    @routes.get("/metrics", tags=["status"])
    async def prometheus() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.post("/tokenize", tags=["tokens"])
    async def tokenize(request: HttpRequest, body: TokenizeBody, model: str | None = None) -> Response:
        """Convert a text to token ids."""
        async with pool.use(request, model) as backend:
            llm = backend.llm
            ids: list[int] = await backend.run_in_thread(llm.tokenize, body.content, body.parse_special)
        bos = llm.tokenizer.bos_id
        if body.add_special and llm.tokenizer.add_bos and bos is not None:
            ids = [bos, *ids]
        tokens: Any = np.array(ids, np.int32)
        if body.with_pieces:
            tokens = ({"id": id, "piece": _piece(llm.tokenizer.token_bytes(id))} for id in ids)
        return json_answer({"tokens": tokens, "count": len(ids)})

    @routes.post("/detokenize", tags=["tokens"])
    async def detokenize(request: HttpRequest, body: DetokenizeBody, model: str | None = None) -> dict[str, str]:
        """Convert token ids to text."""
        async with pool.use(request, model) as backend:
            return {"content": await backend.run_in_thread(backend.llm.detokenize, body.tokens)}

    return routes


def _piece(data: bytes) -> str | list[int]:
    """The text of a token, or its bytes where they are none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _numbers(backend: Backend) -> dict[str, Any]:
    """How a loaded model is doing."""
    s, model = backend.scheduler.statistics, backend.llm.model
    return {
        "parallel": backend.scheduler.parallel, "context": model.context, "running": s.running, "queued": s.queued,
        "weight_bytes": model.weight_bytes, "threads": model.threads,
        "decode_tokens_per_second": s.decode_tokens_per_second,
        "prompt_tokens_per_second": s.prompt_tokens_per_second,
        "kv_used": 1 - model.cache.free_pages / model.cache.n_pages,
        "prefix_hit_rate": s.cached_tokens / s.prompt_tokens if s.prompt_tokens else 0.0,
    }  # fmt: skip
