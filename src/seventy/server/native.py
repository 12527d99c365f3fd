"""llama.cpp's own API, for its clients: /completion, /infill, and what they read of /props and /slots.

Where a field of its answers says how that server works inside (slots, batches), it is left out here.
"""

import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Finished, Logprob, TextDelta
from seventy.server.backend import Answer, Backend
from seventy.server.chat import constraint, sampling, timings
from seventy.server.errors import ApiError
from seventy.server.json_answer import json_answer
from seventy.server.pool import ModelPool
from seventy.server.prompts import prompt_ids, prompts
from seventy.server.schemas import InfillBody, NativeBody
from seventy.server.streams import KEEP_ALIVE, KEEP_ALIVE_SECONDS, EventStream, event, merged, while_connected
from seventy.text.grammar import Constraint
from seventy.text.tokenizer import Tokenizer

_MAX_PROMPTS = 64


@dataclass(slots=True)
class _Text:
    """One answer on its way; `settings` are what it was asked with."""

    index: int
    prompt: str
    answer: Answer
    settings: dict[str, Any]
    written: str = ""
    tokens: list[int] = field(default_factory=list)
    scores: list[Logprob] = field(default_factory=list)
    # A line that begins with fewer spaces ends the text, and so do these seconds once a line is whole.
    indent: int = 0
    seconds: float = math.inf
    # Nothing is to be said: the prompt was to be read.
    silent: bool = False
    over: bool = False
    _began: float | None = None

    def add(self, piece: TextDelta) -> str:
        """Take a piece of the answer; what of its text is to be shown."""
        self.tokens += piece.tokens
        self.scores += piece.scores
        if self.silent or self.over:
            return ""
        before, self._began = len(self.written), self._began or time.monotonic()
        self.written += piece.text
        if self.indent and (line := re.search(rf"\n(?! {{{self.indent}}}|[ ]*(?:\n|\Z))", self.written)):
            self.written, self.over = self.written[: line.start()], True
        elif "\n" in self.written and time.monotonic() - self._began > self.seconds:
            self.over = True
        if self.over:
            self.answer.cancel()
        return self.written[before:]


def _read(backend: Backend, parts: list[int | str]) -> tuple[list[int], str]:
    """Token ids of a prompt, and its text. Takes time: not in the event loop."""
    shown = "".join(part if isinstance(part, str) else backend.llm.detokenize([part]) for part in parts)
    return prompt_ids(backend, parts), shown


def _read_infill(backend: Backend, body: InfillBody) -> tuple[list[int], str]:
    before = body.input_prefix + body.prompt
    files = [(file.filename, file.text) for file in body.input_extra]
    return backend.llm.infill_ids(before, body.input_suffix, files), before


async def _open(backend: Backend, body: NativeBody, prompts: list[tuple[list[int], str]], user: str) -> list[_Text]:
    """Take a request into the queue, with the ids and the texts of its prompts."""
    if body.seed is None:
        body.seed = secrets.randbits(32)
    bias: dict[int, float] = await backend.run_in_thread(body.bias, backend.llm.tokenizer)
    whole: Constraint | None = await backend.run_in_thread(constraint, backend.grammars, body)
    texts: list[_Text] = []
    try:
        for ids, shown in prompts:
            for index in range(body.n or 1):
                answer, chosen = backend.answer(), sampling(body, index)
                answer.submit(
                    ids=ids, max_tokens=1 if body.max_tokens == 0 else body.max_tokens, sampling=chosen,
                    stops=body.stops(), user=user, logit_bias=bias, top_logprobs=body.n_probs or None,
                    sampled_probs=body.post_sampling_probs, ignore_eos=body.ignore_eos,
                    constraint=whole.copy() if whole else None,
                )  # fmt: skip
                settings = {
                    "n_predict": -1 if body.max_tokens is None else body.max_tokens, "seed": chosen.seed,
                    "temperature": chosen.temperature, "top_k": chosen.top_k, "top_p": chosen.top_p,
                    "min_p": chosen.min_p, "repeat_penalty": chosen.repeat_penalty,
                    "repeat_last_n": chosen.penalty_window, "presence_penalty": chosen.presence_penalty,
                    "frequency_penalty": chosen.frequency_penalty, "stop": body.stops(), "n_probs": body.n_probs,
                    "ignore_eos": body.ignore_eos, "stream": body.stream, "grammar": body.grammar or "",
                }  # fmt: skip
                seconds = body.t_max_predict_ms / 1000 if body.t_max_predict_ms > 0 else math.inf
                texts.append(
                    _Text(len(texts), shown, answer, settings, indent=body.n_indent, seconds=seconds,
                          silent=body.max_tokens == 0)
                )  # fmt: skip
    except BaseException:
        for text in texts:
            text.answer.cancel()
        raise
    return texts


def _probabilities(scores: Sequence[Logprob], tokenizer: Tokenizer, drawn: bool) -> list[dict[str, Any]]:
    """Of each token its log probability, or the probability that it was drawn with."""
    top = "top_probs" if drawn else "top_logprobs"

    def one(token: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(token)
        shown = {"id": token, "token": data.decode("utf-8", "replace"), "bytes": list(data)}
        # JSON has no infinity: what cannot come is very unlikely.
        return shown | ({"prob": math.exp(logprob)} if drawn else {"logprob": max(logprob, -9999.0)})

    return [one(score.token, score.logprob) | {top: [one(*other) for other in score.top]} for score in scores]


def _end(backend: Backend, text: _Text, finished: Finished) -> dict[str, Any]:
    """What is said when an answer has ended."""
    # The model may have ended it, too, before it was told to.
    cut = text.over or finished.reason in ("length", "cancelled")
    eos = "eos" if finished.end_token is not None else "word" if finished.stop else "none"
    return {
        "index": text.index, "stop": True, "model": backend.name,
        "tokens_predicted": finished.written_tokens, "tokens_evaluated": finished.prompt_tokens,
        "generation_settings": text.settings, "prompt": text.prompt, "has_new_line": "\n" in text.written,
        "truncated": False, "stop_type": "limit" if cut else eos,
        "stopping_word": finished.stop, "tokens_cached": finished.prompt_tokens + finished.written_tokens,
        "timings": timings(finished),
    }  # fmt: skip


async def _whole(backend: Backend, text: _Text, body: NativeBody) -> dict[str, Any]:
    async for item in text.answer.events():
        if isinstance(item, TextDelta):
            text.add(item)
    assert text.answer.finished is not None
    end = _end(backend, text, text.answer.finished)
    answer = {"content": text.written, "tokens": text.tokens if body.return_tokens else []} | end
    if body.n_probs:
        answer["completion_probabilities"] = await backend.run_in_thread(
            _probabilities, text.scores, backend.llm.tokenizer, body.post_sampling_probs
        )
    if body.response_fields:
        answer = {name: value for name in body.response_fields for value in _found(answer, name)}
    return answer


def _found(answer: dict[str, Any], name: str) -> list[Any]:
    """The value that a/b of an answer has, if there is one."""
    value: Any = answer
    for part in name.split("/"):
        if not isinstance(value, dict) or part not in value:
            return []
        value = value[part]
    return [value]


async def _stream(backend: Backend, texts: list[_Text], body: NativeBody) -> AsyncIterator[bytes]:
    async def of(text: _Text) -> AsyncIterator[bytes]:
        async for item in text.answer.events(KEEP_ALIVE_SECONDS):
            if item is None:
                yield KEEP_ALIVE
            elif isinstance(item, TextDelta) and (item.text or item.tokens):
                said = {"index": text.index, "content": text.add(item), "tokens": list(item.tokens), "stop": False}
                if body.timings_per_token:
                    said["timings"] = timings(text.answer.so_far())
                if item.scores and body.n_probs:
                    said["completion_probabilities"] = _probabilities(
                        item.scores, backend.llm.tokenizer, body.post_sampling_probs
                    )
                yield event(said)
            elif isinstance(item, Finished):
                yield event({"content": "", "tokens": []} | _end(backend, text, item))

    async for data in merged([of(text) for text in texts]):
        yield data


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter(tags=["llama.cpp"])

    async def answer(
        request: HttpRequest, backend: Backend, body: NativeBody, texts: list[_Text], several: bool
    ) -> Response:
        answers = [text.answer for text in texts]
        if body.stream:
            return EventStream(_stream(backend, texts, body), answers)

        async def all_of_them() -> list[dict[str, Any]]:
            return [await _whole(backend, text, body) for text in texts]

        results = await while_connected(request, answers, all_of_them())
        return json_answer(results if several else results[0])

    @routes.post("/completion")
    async def completion(request: HttpRequest, body: NativeBody) -> Response:
        """Complete a prompt, in the format of llama.cpp's server."""
        asked, several = prompts(body.prompt, "prompt", _MAX_PROMPTS)
        async with pool.use(request, body.model) as backend:
            read = [await backend.run_in_thread(_read, backend, parts) for parts in asked]
            texts = await _open(backend, body, read, request.state.user)
        return await answer(request, backend, body, texts, several or len(texts) > 1)

    @routes.post("/infill")
    async def infill(request: HttpRequest, body: InfillBody) -> Response:
        """Write the text between a prefix and a suffix, for editors. The model must have fill-in-the-middle tokens."""
        async with pool.use(request, body.model) as backend:
            if not backend.llm.tokenizer.fills_in_the_middle:
                said = f"{backend.name} does not fill in the middle: it has no tokens for that"
                raise ApiError(501, said, "not_supported", "model")
            read = [await backend.run_in_thread(_read_infill, backend, body)]
            texts = await _open(backend, body, read, request.state.user)
        return await answer(request, backend, body, texts, len(texts) > 1)

    @routes.get("/props")
    async def props(model: str | None = None) -> dict[str, Any]:
        """Return the settings a model was loaded with, or only its name if it is not loaded."""
        chosen = pool.find(model)
        about: dict[str, Any] = {"model_alias": chosen.name, "model_path": chosen.path.name, "is_sleeping": False}
        about |= {"modalities": {"vision": False, "audio": False}}
        for more in pool.look(_props, chosen):
            about |= more
        return about

    @routes.get("/slots")
    async def slots(model: str | None = None) -> list[dict[str, Any]]:
        """List the slots for simultaneous answers and which of them are busy, without any text."""
        return [slot for found in pool.look(_slots, pool.find(model)) for slot in found]

    return routes


def _props(backend: Backend) -> dict[str, Any]:
    llm, tokenizer = backend.llm, backend.llm.tokenizer

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.token_text(token)

    return {
        "default_generation_settings": {"n_ctx": llm.context, "params": sampling_defaults()},
        "total_slots": backend.scheduler.parallel, "build_info": backend.fingerprint,
        "chat_template": llm.chat_format.source, "bos_token": text(tokenizer.bos_id),
        "eos_token": text(tokenizer.eos_id),
    }  # fmt: skip


def sampling_defaults() -> dict[str, Any]:
    """Return the sampling options of a request that sets none."""
    chosen = sampling(NativeBody.model_validate({"prompt": ""}), 0)
    return {
        "temperature": chosen.temperature, "top_k": chosen.top_k, "top_p": chosen.top_p, "min_p": chosen.min_p,
        "repeat_penalty": chosen.repeat_penalty, "repeat_last_n": chosen.penalty_window, "seed": chosen.seed,
    }  # fmt: skip


def _slots(backend: Backend) -> list[dict[str, Any]]:
    busy = backend.scheduler.statistics.running
    return [
        {"id": slot, "n_ctx": backend.llm.context, "is_processing": slot < busy}
        for slot in range(backend.scheduler.parallel)
    ]
