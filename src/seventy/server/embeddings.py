"""/v1/embeddings, and Ollama's /api/embed: texts as vectors, from models made for it."""

import base64
import time
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Embedded
from seventy.server.backend import Answer, Backend
from seventy.server.errors import ApiError
from seventy.server.ollama import OllamaEmbedBody, OllamaOldEmbedBody
from seventy.server.pool import ModelPool
from seventy.server.prompts import prompt_ids, prompts
from seventy.server.schemas import EmbeddingBody
from seventy.server.streams import while_connected

_MAX_INPUTS = 256


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter()

    @routes.post("/embeddings", include_in_schema=False)
    @routes.post("/v1/embeddings", tags=["OpenAI"])
    async def embeddings(request: HttpRequest, body: EmbeddingBody) -> Response:
        """Return one embedding of length 1 for each text."""
        async with pool.use(request, body.model) as backend:
            answers = await _open(backend, body, request.state.user)
        return JSONResponse(await while_connected(request, answers, _collect(backend.name, answers, body)))

    @routes.post("/api/embed", tags=["Ollama"])
    async def embed(request: HttpRequest, body: OllamaEmbedBody) -> Response:
        """Return one embedding of length 1 for each text, in Ollama's format."""
        began = time.monotonic_ns()
        wish = EmbeddingBody(input=body.input, dimensions=body.dimensions)
        async with pool.use(request, body.model, body.keep_alive, strict=True) as backend:
            answers = await _open(backend, wish, request.state.user) if body.input else []
        found = await while_connected(request, answers, _collect(backend.name, answers, wish))
        return JSONResponse({
            "model": backend.name, "embeddings": [one["embedding"] for one in found["data"]], "load_duration": 0,
            "total_duration": time.monotonic_ns() - began, "prompt_eval_count": found["usage"]["prompt_tokens"],
        })  # fmt: skip

    @routes.post("/api/embeddings", tags=["Ollama"])
    async def old_embeddings(request: HttpRequest, body: OllamaOldEmbedBody) -> Response:
        """Return the embedding of one text, in the format of older Ollama clients."""
        wish = EmbeddingBody(input=body.prompt)
        async with pool.use(request, body.model, body.keep_alive, strict=True) as backend:
            answers = await _open(backend, wish, request.state.user)
        found = await while_connected(request, answers, _collect(backend.name, answers, wish))
        return JSONResponse({"embedding": found["data"][0]["embedding"]})

    return routes


async def _open(backend: Backend, body: EmbeddingBody, user: str) -> list[Answer]:
    pooling = backend.pooling
    if pooling is None:
        raise ApiError(
            400, f"{backend.name} is not made for embeddings; serve one that is, or start with --pooling mean",
            "no_embeddings", "model",
        )  # fmt: skip
    given, _ = prompts(body.input, "input", _MAX_INPUTS)
    answers: list[Answer] = []
    try:
        for parts in given:
            ids = await backend.apart(prompt_ids, backend, parts)
            answers.append(backend.answer())
            answers[-1].submit(ids=ids, max_tokens=None, user=user, pooling=pooling)
    except BaseException:
        for answer in answers:
            answer.cancel()
        raise
    return answers


async def _collect(name: str, answers: list[Answer], body: EmbeddingBody) -> dict[str, Any]:
    data, tokens = [], 0
    for index, answer in enumerate(answers):
        vector: NDArray[np.float32] = np.zeros(0, np.float32)
        async for item in answer.events():
            if isinstance(item, Embedded):
                vector = item.vector[: body.dimensions]
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        raw = vector.astype("<f4")
        encoded = base64.b64encode(raw.tobytes()).decode() if body.encoding_format == "base64" else raw.tolist()
        data.append({"object": "embedding", "index": index, "embedding": encoded})
        tokens += answer.finished.prompt_tokens if answer.finished else 0
    return {"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
