"""OpenAI's /v1/responses: a conversation is a list of items, and may go on from an earlier response.

Requests become those of /v1/chat/completions (response_items.py says how); answers are told in items.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Progress
from seventy.server.backend import Backend
from seventy.server.chat import Choice, Prepared, call_arguments, prepared_chat, progress_of, submit_choices, timings
from seventy.server.errors import ApiError
from seventy.server.fitting import fit
from seventy.server.json_answer import json_answer, json_event
from seventy.server.pool import ModelPool
from seventy.server.response_items import INPUT, Item, ResponsesBody, items_of, left_out, wish
from seventy.server.response_store import ResponseStore
from seventy.server.schemas import ChatBody
from seventy.server.streams import KEEP_ALIVE, KEEP_ALIVE_SECONDS, EventStream, named_event, while_connected
from seventy.text.parts import CallStart, Part, Text, Thought

# A part of an item's content, by the item's type; and the name of its events.
_PARTS = {"message": "output_text", "reasoning": "reasoning_text"}


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"


@dataclass(slots=True)
class _Items:
    """The items of an answer, and the events that tell of them. `custom` are the tools that take a text."""

    custom: frozenset[str]
    take_scores: Callable[[], list[dict[str, Any]]] = list
    items: list[dict[str, Any]] = field(default_factory=list)
    _arguments: str = ""
    _open: bool = False

    def push(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield the events for another part of the answer."""
        if isinstance(part, CallStart):
            yield from self._begin(self._call(part.name))
        elif isinstance(part, Text | Thought):
            kind = "message" if isinstance(part, Text) else "reasoning"
            if not (self._open and self.items[-1]["type"] == kind):
                yield from self._begin(self._text(kind))
                yield self._event("content_part.added", content_index=0, part=self._content())
            content, scores = self.items[-1]["content"][0], self.take_scores()
            content["text"] += part.text
            if kind == "message":
                content["logprobs"] += scores
                yield self._event("output_text.delta", content_index=0, delta=part.text, logprobs=scores)
            else:
                yield self._event("reasoning_text.delta", content_index=0, delta=part.text)
        else:
            self._arguments += part.text
            if self.items[-1]["type"] == "function_call":
                yield self._event("function_call_arguments.delta", delta=part.text)

    def close(self, status: str = "completed") -> Iterator[dict[str, Any]]:
        """Yield the events that end the open item."""
        if not self._open:
            return
        item, self._open = self.items[-1], False
        item["status"] = status
        if item["type"] == "function_call":
            item["arguments"] = self._arguments
            yield self._event("function_call_arguments.done", name=item["name"], arguments=self._arguments)
        elif item["type"] == "custom_tool_call":
            item["input"] = text = str(call_arguments(self._arguments).get(INPUT, ""))
            yield self._event("custom_tool_call_input.delta", delta=text)
            yield self._event("custom_tool_call_input.done", input=text)
        else:
            content = self._content()
            scores = {"logprobs": content["logprobs"]} if item["type"] == "message" else {}
            yield self._event(f"{content['type']}.done", content_index=0, text=content["text"], **scores)
            yield self._event("content_part.done", content_index=0, part=content)
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": _copy(item)}

    def _call(self, name: str) -> dict[str, Any]:
        call = {"status": "in_progress", "call_id": _id("call"), "name": name}
        if name in self.custom:
            return {"type": "custom_tool_call", "id": _id("ctc"), "input": ""} | call
        return {"type": "function_call", "id": _id("fc"), "arguments": ""} | call

    def _text(self, kind: str) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": kind, "id": _id("rs"), "status": "in_progress", "summary": [], "content": []}
        return {"type": kind, "id": _id("msg"), "status": "in_progress", "role": "assistant", "content": []}

    def _begin(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.close()
        self.items.append(item)
        self._open, self._arguments = True, ""
        yield {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": _copy(item)}
        if part := _PARTS.get(item["type"]):
            more: dict[str, Any] = {"annotations": [], "logprobs": []} if part == "output_text" else {}
            item["content"].append({"type": part, "text": "", **more})

    def _content(self) -> dict[str, Any]:
        return _copy(self.items[-1]["content"][0])

    def _event(self, kind: str, /, **values: Any) -> dict[str, Any]:
        item = {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}
        return {"type": f"response.{kind}"} | item | values


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    """What an event says stays as it was said."""
    return {key: list(one) if isinstance(one, list) else one for key, one in value.items()}


def _head(body: ResponsesBody, backend: Backend, chat: ChatBody) -> dict[str, Any]:
    """A response before anything is said, with what was asked as clients look for it."""
    sampling = chat.sampling()
    return {
        "id": _id("resp"), "object": "response", "created_at": int(time.time()), "completed_at": None,
        "status": "in_progress", "model": backend.name, "output": [], "error": None, "incomplete_details": None,
        "instructions": body.instructions, "max_output_tokens": body.max_output_tokens, "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id, "store": body.store, "background": False,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "temperature": sampling["temperature"], "top_p": sampling.get("top_p"), "top_logprobs": body.top_logprobs or 0,
        "text": {"format": body.text.shown() if body.text else {"type": "text"}},
        "tools": [tool.shown() for tool in body.tools or ()], "tool_choice": body.tool_choice or "auto",
        "truncation": body.truncation, "usage": None, "user": body.user,
    }  # fmt: skip


def _usage(choice: Choice) -> dict[str, Any]:
    finished = choice.answer.finished
    assert finished is not None
    return {
        "input_tokens": finished.prompt_tokens,
        "input_tokens_details": {"cached_tokens": finished.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": finished.written_tokens,
        "output_tokens_details": {"reasoning_tokens": choice.thought_tokens},
        "total_tokens": finished.prompt_tokens + finished.written_tokens,
    }  # fmt: skip


async def _events(
    response: dict[str, Any], choice: Choice, items: _Items, body: ResponsesBody
) -> AsyncIterator[dict[str, Any] | None]:
    """The answer as a stream tells it, None to keep the connection alive; `response` becomes whole meanwhile."""
    yield {"type": "response.created", "response": dict(response)}
    yield {"type": "response.in_progress", "response": dict(response)}
    async for part in choice.parts(KEEP_ALIVE_SECONDS):
        if part is None:
            yield None
        elif not isinstance(part, Progress):
            more = {"timings": timings(choice.answer.so_far())} if body.timings_per_token else {}
            for event in items.push(part):
                yield event | (more if event["type"].endswith(".delta") else {})
        elif body.return_progress:
            yield {"type": "response.in_progress", "response": dict(response), "prompt_progress": progress_of(part)}
    cut = choice.finish_reason == "length"
    for event in items.close("incomplete" if cut else "completed"):
        yield event
    response |= {
        "status": "incomplete" if cut else "completed", "output": items.items, "usage": _usage(choice),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "completed_at": int(time.time()),
    }  # fmt: skip
    finished = choice.answer.finished
    assert finished is not None
    yield {"type": f"response.{response['status']}", "response": response, "timings": timings(finished)}


async def _stream(response: dict[str, Any], events: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[bytes]:
    number = 0
    try:
        async for event in events:
            if event is None:
                yield KEEP_ALIVE
                continue
            async for piece in json_event({**event, "sequence_number": number}):
                yield piece
            number += 1
    except ApiError as error:
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        response |= {"status": "failed", "error": {"code": code, "message": error.message}}
        yield named_event({"type": "response.failed", "response": response, "sequence_number": number})


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was made ready: as a chat, and the items it adds to its conversation."""

    chat: ChatBody
    prepared: Prepared
    items: list[Item]


async def _prepare(backend: Backend, body: ResponsesBody, before: list[dict[str, Any]]) -> _Asked:
    """Make a request ready that goes on from these items."""
    items = items_of(body.input)
    chat: ChatBody = await backend.run_in_thread(wish, body, [*map(Item.model_validate, before), *items])
    if body.truncation == "auto":
        chat = (await backend.run_in_thread(fit, backend, chat)).body
    prepared = await prepared_chat(backend, chat, lenient=True)
    return _Asked(chat, replace(prepared, changes=[*prepared.changes, *left_out(body)]), items)


def router(pool: ModelPool) -> APIRouter:
    routes, store = APIRouter(tags=["OpenAI"]), ResponseStore()

    async def conversation(request: HttpRequest, body: ResponsesBody) -> list[dict[str, Any]]:
        previous = body.previous_response_id
        return await asyncio.to_thread(store.conversation, request.state.user, previous) if previous else []

    async def kept(
        request: HttpRequest, body: ResponsesBody, asked: _Asked, response: dict[str, Any],
        events: AsyncIterator[dict[str, Any] | None],
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The events; before the last one the response is kept, where that is wanted."""
        async for event in events:
            if body.store and event and event["type"] in ("response.completed", "response.incomplete"):
                said = [{"id": _id("item")} | item.model_dump(exclude_none=True) for item in asked.items]
                await store.put(request.state.user, response, said, body.previous_response_id)
            yield event

    @routes.post("/responses", include_in_schema=False)
    @routes.post("/v1/responses")
    async def responses(request: HttpRequest, body: ResponsesBody) -> Response:
        """Answer a conversation in the format of OpenAI's Responses API."""
        before = await conversation(request, body)
        async with pool.use(request, body.model) as backend:
            asked = await _prepare(backend, body, before)
            choice = submit_choices(backend, asked.chat, asked.prepared, request.state.user)[0]
        response = _head(body, backend, asked.chat)
        custom = frozenset(tool.name or "" for tool in body.tools or () if tool.type == "custom")
        items = _Items(custom, choice.take_scores)
        events = kept(request, body, asked, response, _events(response, choice, items, body))
        if body.stream:
            return EventStream(_stream(response, events), [choice.answer], headers=asked.prepared.headers)

        async def whole() -> dict[str, Any]:
            async for _ in events:
                pass
            return response

        said = await while_connected(request, [choice.answer], whole())
        return json_answer(said, headers=asked.prepared.headers)

    @routes.post("/v1/responses/input_tokens")
    async def input_tokens(request: HttpRequest, body: ResponsesBody) -> dict[str, Any]:
        """Count the tokens of a request's prompt."""
        before = await conversation(request, body)
        async with pool.use(request, body.model) as backend:
            asked = await _prepare(backend, body, before)
        return {"object": "response.input_tokens", "input_tokens": len(asked.prepared.ids)}

    @routes.get("/v1/responses/{id}")
    async def response(request: HttpRequest, id: str) -> Response:
        """Return a stored response of the user."""
        return Response(store.get(request.state.user, id).response, media_type="application/json")

    @routes.delete("/v1/responses/{id}")
    async def delete(request: HttpRequest, id: str) -> dict[str, Any]:
        """Delete a stored response. Later requests can no longer continue from it."""
        store.delete(request.state.user, id)
        return {"id": id, "object": "response", "deleted": True}

    @routes.get("/v1/responses/{id}/input_items")
    async def input_items(request: HttpRequest, id: str) -> Response:
        """List the input items of a stored response, newest first."""
        items = (await asyncio.to_thread(json.loads, store.get(request.state.user, id).asked))[::-1]
        ends = {"first_id": items[0].get("id"), "last_id": items[-1].get("id")} if items else {}
        return json_answer({"object": "list", "data": items, "has_more": False, **ends})

    return routes
