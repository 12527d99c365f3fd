"""/v1/embeddings, llama.cpp's /embedding and Ollama's /api/embed: texts as vectors, from models made for it."""

import base64
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from numpy.typing import NDArray
from starlette.requests import Request as HttpRequest

from seventy.engine.request import TooLong
from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.json_answer import json_answer
from seventy.server.ollama import OllamaEmbedBody, OllamaOldEmbedBody
from seventy.server.pool import ModelPool
from seventy.server.prompts import prompt_ids, prompts
from seventy.server.schemas import EmbeddingBody
from seventy.server.vectors import Vectors, vectors

_MAX_INPUTS = 2048


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter()

    async def embedded(
        request: HttpRequest, given: Any, model: str | None, strict: bool = False, keep_alive: float | None = None,
        tokens: bool = False,
    ) -> Vectors:
        """The vectors of these texts; with `tokens`, those of each token will do."""
        texts, _ = prompts(given, "input", _MAX_INPUTS)

        async def read(backend: Backend, at: int) -> tuple[list[int], str]:
            pooling = _pooling(backend, tokens)
            return await backend.run_in_thread(_ids, backend, texts[at], at), pooling

        def use(name: str | None) -> AbstractAsyncContextManager[Backend]:
            return pool.use(request, name or model, keep_alive, strict or name is not None)

        return await vectors(request, use, range(len(texts)), read)

    @routes.post("/v1/embeddings", tags=["OpenAI"])
    async def embeddings(request: HttpRequest, body: EmbeddingBody) -> Response:
        """Return one embedding of length 1 for each text."""
        return json_answer(_as_openai(await embedded(request, body.input, body.model), body))

    @routes.post("/embeddings", include_in_schema=False)
    async def either(request: HttpRequest, body: EmbeddingBody) -> Response:
        """Return embeddings in OpenAI's format, or with --pooling none in llama.cpp's."""
        found = await embedded(request, body.input, body.model, tokens=True)
        several = found.each[0].values.ndim > 1
        return json_answer(_as_llama_cpp(found) if several else _as_openai(found, body))

    @routes.post("/embedding", tags=["llama.cpp"])
    async def embedding(request: HttpRequest, body: EmbeddingBody) -> Response:
        """Return a list of embeddings for each text, of length 1; with --pooling none one a token, not normalised."""
        return json_answer(_as_llama_cpp(await embedded(request, body.input, body.model, tokens=True)))

    @routes.post("/api/embed", tags=["Ollama"])
    async def embed(request: HttpRequest, body: OllamaEmbedBody) -> Response:
        """Return one embedding of length 1 for each text, in Ollama's format."""
        began = time.monotonic_ns()
        answer = {"model": pool.find(body.model, strict=True).name, "embeddings": list[Any](), "load_duration": 0}
        tokens = 0
        if body.input:
            found = await embedded(request, body.input, body.model, True, body.keep_alive)
            answer["embeddings"] = (_unit(one.values[: body.dimensions]) for one in found.each)
            tokens = found.usage["prompt_tokens"]
        else:
            # Ollama's clients load a model so.
            async with pool.use(request, body.model, body.keep_alive, strict=True):
                pass
        return json_answer(answer | {"total_duration": time.monotonic_ns() - began, "prompt_eval_count": tokens})

    @routes.post("/api/embeddings", tags=["Ollama"])
    async def old_embeddings(request: HttpRequest, body: OllamaOldEmbedBody) -> Response:
        """Return the embedding of one text, in the format of older Ollama clients."""
        found = await embedded(request, body.prompt, body.model, True, body.keep_alive)
        return json_answer({"embedding": _unit(found.each[0].values)})

    return routes


def _pooling(backend: Backend, tokens: bool) -> str:
    pooling = backend.pooling
    if pooling is None:
        if backend.llm.ranking:
            raise ApiError(400, f"{backend.name} ranks documents: ask /v1/rerank", "no_embeddings", "model")
        raise ApiError(
            400, f"{backend.name} is not made for embeddings; serve one that is, or start with --pooling mean",
            "no_embeddings", "model",
        )  # fmt: skip
    if pooling == "none" and not tokens:
        said = "with --pooling none there is a vector for each token, which this address has no place for: /embedding"
        raise ApiError(400, said, "no_embeddings", "model")
    return pooling


def _ids(backend: Backend, parts: list[int | str], at: int) -> list[int]:
    """Token ids of a text; of an empty one, those of its ends. Takes time: not in the event loop."""
    tokenizer, context, ids = backend.llm.tokenizer, backend.llm.context, list[int]()
    if any(part != "" for part in parts):
        try:
            ids = prompt_ids(backend, parts)
        except TooLong as error:
            raise _too_long(at, error.prompt_tokens, context) from None
    elif tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id]
    end, is_text = tokenizer.eos_id, any(isinstance(part, str) for part in parts)
    if is_text and end is not None and ids[-1:] != [end] and (tokenizer.add_eos or not ids):
        ids.append(end)
    if not ids:
        raise ApiError(400, f"text {at} is empty; give one that has a letter", "invalid_value", "input")
    if len(ids) > context:
        raise _too_long(at, len(ids), context)
    return ids


def _too_long(at: int, tokens: int, context: int) -> TooLong:
    said = f"text {at} is too large: {tokens} tokens at least, and the context has {context}; send a shorter one"
    return TooLong(said, tokens, context)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def _as_openai(found: Vectors, body: EmbeddingBody) -> dict[str, Any]:
    def shown(vector: NDArray[np.float32]) -> Any:
        unit = _unit(vector[: body.dimensions])
        return base64.b64encode(unit.astype("<f4").tobytes()).decode() if body.encoding_format == "base64" else unit

    data = (
        {"object": "embedding", "index": index, "embedding": shown(one.values)} for index, one in enumerate(found.each)
    )
    return {"object": "list", "data": data, "model": found.backend.name, "usage": found.usage}


def _as_llama_cpp(found: Vectors) -> Iterator[dict[str, Any]]:
    for index, one in enumerate(found.each):
        yield {"index": index, "embedding": one.values if one.values.ndim > 1 else [_unit(one.values)]}
