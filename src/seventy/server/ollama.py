"""Ollama's API, for tools that know only that: /api/chat and /api/generate (library.py has what is asked of models).

Its streams are lines of JSON; times are in nanoseconds.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator, Field
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Finished
from seventy.server.backend import Backend
from seventy.server.chat import (
    Choice,
    Prepared,
    call_arguments,
    chat_body,
    constraint,
    prepared_chat,
    submit_choices,
)
from seventy.server.errors import ApiError
from seventy.server.keep_alive import keep_alive_seconds
from seventy.server.pool import ModelPool
from seventy.server.schemas import Body, ChatBody, CheckedBody, SamplingOptions, Tool
from seventy.server.streams import EventStream, while_connected
from seventy.text.conventions import Conventions

Think = bool | Literal["low", "medium", "high", "max"] | None
# Seconds that the model stays when nobody uses it: as long as the server keeps every model where it is not given.
KeepAlive = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(keep_alive_seconds)] | None


class Options(SamplingOptions):
    """Sampling options under Ollama's names."""

    # -1 is no limit, -2 the context.
    num_predict: Annotated[int, Field(ge=-2, lt=1 << 31)] | None = None
    num_ctx: Annotated[int, Field(ge=1)] | None = Field(None, description="No more than the server's context.")


class Function(Body):
    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)


class Call(Body):
    function: Function


class Message(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[Call] | None = None
    tool_name: str | None = None
    thinking: str | None = None


class Chat(CheckedBody):
    model: str = ""
    messages: list[Message] = Field(default_factory=list)
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    format: Literal["json", ""] | dict[str, Any] | None = None
    options: Options | None = None
    think: Think = None
    keep_alive: KeepAlive = None
    stream: bool = True


class Generate(CheckedBody):
    model: str = ""
    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    format: Literal["json", ""] | dict[str, Any] | None = None
    options: Options | None = None
    think: Think = None
    raw: bool = False
    keep_alive: KeepAlive = None
    stream: bool = True


class OllamaEmbedBody(CheckedBody):
    model: str = ""
    input: str | list[str] = Field(default_factory=list)
    dimensions: Annotated[int, Field(ge=1)] | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class OllamaOldEmbedBody(CheckedBody):
    model: str = ""
    prompt: str
    options: Options | None = None
    keep_alive: KeepAlive = None


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _chat_body(chat: Chat) -> ChatBody:
    """The same wish in OpenAI's words."""
    options = chat.options or Options.model_validate({})
    wish: dict[str, Any] = options.model_dump(include=set(SamplingOptions.model_fields))
    if options.num_predict is not None and options.num_predict > 0:
        wish["max_tokens"] = options.num_predict
    if chat.format == "json":
        wish["response_format"] = {"type": "json_object"}
    elif isinstance(chat.format, dict):
        wish["response_format"] = {"type": "json_schema", "json_schema": {"schema": chat.format}}
    level = chat.think if isinstance(chat.think, str) else None
    wish |= {"think": True if level else chat.think, "reasoning_effort": level}
    messages = []
    for at, message in enumerate(chat.messages):
        if message.images:
            raise ApiError(400, "this model reads text only, no images", "unsupported_content", f"messages.{at}")
        one: dict[str, Any] = {"role": message.role, "content": message.content, "name": message.tool_name}
        one["reasoning_content"] = message.thinking
        if message.tool_calls:
            one["tool_calls"] = [
                {"function": {"name": call.function.name, "arguments": call.function.arguments}}
                for call in message.tool_calls
            ]
        messages.append(one)
    tools = [tool.model_dump(exclude_none=True) for tool in chat.tools or ()]
    return chat_body({**wish, "messages": messages, "tools": tools or None})


def _numbers(end: Finished) -> dict[str, Any]:
    def ns(seconds: float) -> int:
        return round(1e9 * seconds)

    return {
        "total_duration": ns(end.queued_seconds + end.prompt_seconds + end.decode_seconds),
        "load_duration": 0,
        "prompt_eval_count": end.prompt_tokens,
        "prompt_eval_duration": ns(end.prompt_seconds),
        "eval_count": end.written_tokens,
        "eval_duration": ns(end.decode_seconds),
    }


async def _lines(model: str, choice: Choice, whole: bool, chat: bool) -> AsyncIterator[dict[str, Any]]:
    """The answer in Ollama's pieces, or in one."""
    head = {"model": model}
    text, thinking, calls = "", "", list[dict[str, Any]]()

    def line(done: bool) -> dict[str, Any]:
        nonlocal text, thinking
        shown: dict[str, Any] = {"role": "assistant", "content": text} if chat else {"response": text}
        if thinking:
            shown["thinking"] = thinking
        if calls and done and chat:
            shown["tool_calls"] = [
                {"function": {"name": call["name"], "arguments": call_arguments(call["arguments"])}} for call in calls
            ]
        text = thinking = ""
        content = {"message": shown} if chat else shown
        return {**head, "created_at": _now(), **content, "done": done}

    async for delta in choice.deltas(False, None):
        for call in (delta or {}).get("tool_calls", ()):
            if "id" in call:
                calls.append({"name": call["function"]["name"], "arguments": ""})
            calls[-1]["arguments"] += call["function"]["arguments"]
        text += (delta or {}).get("content", "")
        thinking += (delta or {}).get("reasoning_content", "")
        if not whole and (text or thinking):
            yield line(False)
    assert choice.answer.finished is not None
    reason = "length" if choice.finish_reason == "length" else "stop"
    yield line(True) | {"done_reason": reason} | _numbers(choice.answer.finished)


def plain(backend: Backend, body: ChatBody, prompt: str, suffix: str | None) -> Prepared:
    """Prepare a prompt to complete, or a prompt and a suffix to fill in between."""
    ids = backend.llm.infill_ids(prompt, suffix) if suffix else backend.llm.prompt_ids(prompt)
    return Prepared(prompt, ids, constraint(backend.grammars, body), lambda: Conventions.of("").reader("", []))


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter(tags=["Ollama"])

    async def load(request: HttpRequest, body: Chat | Generate, empty: dict[str, Any]) -> Response:
        """What Ollama's clients ask without a text: to load a model or, with a keep_alive of 0, to let it go."""
        model, reason = pool.find(body.model, strict=True), "unload" if body.keep_alive == 0 else "load"
        # One that is not here need not come to be let go.
        if reason == "load" or model.backend:
            async with pool.use(request, model.name, body.keep_alive, strict=True):
                pass
        return JSONResponse({"model": model.name, "created_at": _now(), **empty, "done": True, "done_reason": reason})

    async def answer(
        model: str, choice: Choice, prepared: Prepared, request: HttpRequest, stream: bool, chat: bool
    ) -> Response:
        lines = _lines(model, choice, not stream, chat)
        if stream:
            encoded = (json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n" async for line in lines)
            return EventStream(encoded, [choice.answer], "application/x-ndjson", prepared.headers)
        whole: dict[str, Any] = await while_connected(request, [choice.answer], anext(lines))  # type: ignore[arg-type]
        return JSONResponse(whole, headers=prepared.headers)

    def check_room(backend: Backend, options: Options | None) -> None:
        if options and options.num_ctx and options.num_ctx > (room := backend.llm.context):
            raise ApiError(
                400, f"options.num_ctx {options.num_ctx}: this server has a context of {room} (serve --context)",
                "invalid_value", "options.num_ctx",
            )  # fmt: skip

    @routes.post("/api/chat")
    async def chat(request: HttpRequest, body: Chat) -> Response:
        """Answer a conversation, in Ollama's format."""
        if not body.messages:
            return await load(request, body, {"message": {"role": "assistant", "content": ""}})
        wish = _chat_body(body)
        async with pool.use(request, body.model, body.keep_alive, strict=True) as backend:
            check_room(backend, body.options)
            prepared = await prepared_chat(backend, wish)
            choice = submit_choices(backend, wish, prepared, request.state.user)[0]
        return await answer(backend.name, choice, prepared, request, body.stream, True)

    @routes.post("/api/generate")
    async def generate(request: HttpRequest, body: Generate) -> Response:
        """Answer a single prompt, in Ollama's format."""
        if not (body.prompt or body.suffix):
            return await load(request, body, {"response": ""})
        messages = [Message(role="system", content=body.system)] if body.system else []
        messages.append(Message(role="user", content=body.prompt, images=body.images))
        wish = _chat_body(Chat(messages=messages, format=body.format, options=body.options, think=body.think))
        async with pool.use(request, body.model, body.keep_alive, strict=True) as backend:
            check_room(backend, body.options)
            if body.raw or body.suffix:
                # As it is, without the chat template: editors complete text that way.
                prepared: Prepared = await backend.run_in_thread(plain, backend, wish, body.prompt, body.suffix)
            else:
                prepared = await prepared_chat(backend, wish)
            choice = submit_choices(backend, wish, prepared, request.state.user)[0]
        return await answer(backend.name, choice, prepared, request, body.stream, False)

    return routes
