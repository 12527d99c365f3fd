"""/v1/completions: text goes on as it is, without a chat template."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Finished, Logprob, TextDelta
from seventy.server.backend import Answer, Backend
from seventy.server.chat import constraint, sampling, timings, usage
from seventy.server.errors import ApiError
from seventy.server.json_answer import json_answer
from seventy.server.pool import ModelPool
from seventy.server.schemas import CompletionBody
from seventy.server.streams import DONE, KEEP_ALIVE, KEEP_ALIVE_SECONDS, EventStream, event, merged, while_connected
from seventy.text.grammar import Constraint
from seventy.text.tokenizer import Tokenizer

_MAX_PROMPTS = 64


@dataclass(slots=True)
class _Text:
    """One text on its way: a prompt has `n` of them."""

    index: int
    answer: Answer
    echo: str
    offset: int

    def logprobs(self, scores: list[Logprob], tokenizer: Tokenizer) -> dict[str, Any]:
        """Return logprobs in the format of the older completions API: parallel lists."""

        def shown(token: int) -> str:
            return tokenizer.token_bytes(token).decode("utf-8", "replace")

        texts = [shown(score.token) for score in scores]
        offsets = []
        for text in texts:
            offsets.append(self.offset)
            self.offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [max(score.logprob, -9999.0) for score in scores],
            "top_logprobs": [{shown(token): max(logprob, -9999.0) for token, logprob in s.top} for s in scores],
            "text_offset": offsets,
        }


def _prompts(body: CompletionBody) -> list[str | list[int]]:
    prompt: Any = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    many = prompt if prompt and not isinstance(prompt[0], int) else [prompt]
    if not 1 <= len(many) <= _MAX_PROMPTS:
        raise ApiError(400, f"from 1 to {_MAX_PROMPTS} prompts can be sent at once, not {len(many)}", None, "prompt")
    return list(many)


async def _open(backend: Backend, body: CompletionBody, user: str) -> list[_Text]:
    llm, n = backend.llm, body.n or 1
    if body.best_of not in (None, n):
        raise ApiError(400, "best_of other than n is not supported", None, "best_of")
    if body.echo and body.logprobs is not None:
        raise ApiError(400, "echo does not go with logprobs here; ask for one of them", None, "echo")
    bias: dict[int, float] = await backend.run_in_thread(body.bias, llm.tokenizer)
    whole: Constraint | None = await backend.run_in_thread(constraint, backend.grammars, body)
    texts: list[_Text] = []
    try:
        for prompt in _prompts(body):
            if not body.suffix:
                ids: list[int] = await backend.run_in_thread(llm.prompt_ids, prompt)
            elif isinstance(prompt, str):
                ids = await backend.run_in_thread(llm.infill_ids, prompt, body.suffix)
            else:
                raise ApiError(400, "suffix goes with a prompt of text, not of token ids", None, "suffix")
            echo = (prompt if isinstance(prompt, str) else llm.detokenize(ids)) if body.echo else ""
            for index in range(n):
                limit = whole.copy() if whole else None
                answer = backend.answer()
                answer.submit(
                    ids=ids, max_tokens=body.max_tokens or 16,
                    sampling=sampling(body, index), stops=body.stops(), user=user, logit_bias=bias,
                    top_logprobs=body.logprobs, ignore_eos=body.ignore_eos, constraint=limit,
                )  # fmt: skip
                texts.append(_Text(len(texts), answer, echo, 0))
    except BaseException:
        for text in texts:
            text.answer.cancel()
        raise
    return texts


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter()

    @routes.post("/completions", include_in_schema=False)
    @routes.post("/v1/completions", tags=["OpenAI"])
    async def completions(request: HttpRequest, body: CompletionBody) -> Response:
        """Complete a prompt."""
        async with pool.use(request, body.model) as backend:
            texts = await _open(backend, body, request.state.user)
        answers = [text.answer for text in texts]
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()),
            "model": backend.name, "system_fingerprint": backend.fingerprint,
        }  # fmt: skip
        if body.stream:
            return EventStream(_stream(backend, head, texts, body), answers)
        whole = await while_connected(request, answers, _whole(backend, head, texts, body))
        if not request.url.path.startswith("/v1/"):
            # Clients of llama.cpp look for it there.
            whole["content"] = whole["choices"][0]["text"]
        return json_answer(whole)

    return routes


def _reason(finished: Finished) -> str:
    return "length" if finished.reason == "length" else "stop"


async def _stream(
    backend: Backend, head: dict[str, Any], texts: list[_Text], body: CompletionBody
) -> AsyncIterator[bytes]:
    tokenizer = backend.llm.tokenizer

    async def of(text: _Text) -> AsyncIterator[bytes]:
        def chunk(piece: str, scores: Any = None, reason: str | None = None) -> bytes:
            choice = {"index": text.index, "text": piece, "logprobs": scores, "finish_reason": reason}
            more = {"timings": timings(text.answer.so_far())} if body.timings_per_token else {}
            return event(head | {"choices": [choice]} | more)

        if text.echo:
            yield chunk(text.echo)
        async for item in text.answer.events(KEEP_ALIVE_SECONDS):
            if item is None:
                yield KEEP_ALIVE
            elif isinstance(item, TextDelta) and (item.text or item.scores):
                yield chunk(item.text, text.logprobs(list(item.scores), tokenizer) if item.scores else None)
            elif isinstance(item, Finished):
                yield chunk("", None, _reason(item))

    async for data in merged([of(text) for text in texts]):
        yield data
    if body.stream_options and body.stream_options.include_usage:
        yield event(head | {"choices": [], "usage": _usage(texts, body)})
    yield DONE


def _usage(texts: list[_Text], body: CompletionBody) -> dict[str, Any]:
    n, total = body.n or 1, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    for at in range(0, len(texts), n):
        one = usage([text.answer for text in texts[at : at + n]])
        total = {key: total[key] + one[key] for key in total}
    return total


async def _whole(backend: Backend, head: dict[str, Any], texts: list[_Text], body: CompletionBody) -> dict[str, Any]:
    choices = []
    for text in texts:
        pieces, scores, reason = [text.echo], list[Logprob](), "stop"
        async for item in text.answer.events():
            if isinstance(item, TextDelta):
                pieces.append(item.text)
                scores += item.scores
            elif isinstance(item, Finished):
                reason = _reason(item)
        logprobs: Any = None
        if body.logprobs is not None:
            logprobs = await backend.run_in_thread(text.logprobs, scores, backend.llm.tokenizer)
        choices.append({"index": text.index, "text": "".join(pieces), "logprobs": logprobs, "finish_reason": reason})
    finished = texts[0].answer.finished
    assert finished is not None
    return head | {"choices": choices, "usage": _usage(texts, body), "timings": timings(finished)}
