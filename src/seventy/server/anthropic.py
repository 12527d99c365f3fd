"""Anthropic's API: /v1/messages, which coding agents speak, and /v1/messages/count_tokens.

A message here is a list of blocks: text, thinking, calls of tools and their results. Requests become those of
/v1/chat/completions; answers are told in blocks.
"""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, Field
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Progress
from seventy.server.chat import Choice, call_arguments, chat_body, prepared_chat, submit_choices
from seventy.server.errors import ApiError
from seventy.server.pool import ModelPool
from seventy.server.schemas import Body, ChatBody, Limit, SamplingOptions
from seventy.server.streams import KEEP_ALIVE_SECONDS, EventStream, named_event, while_connected
from seventy.text.parts import CallStart, Part, Text, Thought

# Clients send thinking back only where it is signed; nobody checks it here.
_SIGNATURE = "unsigned"


class Source(Body):
    """The content of a document block."""

    type: str
    media_type: str | None = None
    data: str | None = None
    content: "str | list[Block] | None" = None


class Block(Body):
    """A content block of a message. Its `type` decides which other fields it must have."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str | None = None
    name: str = ""
    input: dict[str, Any] = Field(default_factory=dict)
    tool_use_id: str | None = None
    is_error: bool = False
    content: "str | list[Block] | None" = None
    source: Source | str | None = None
    title: str | None = None


class Message(Body):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Body):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Body):
    """Whether the model thinks before it answers. `budget_tokens` is ignored: only max_tokens limits a thought."""

    type: str
    display: Literal["summarized", "omitted"] | None = None


class Format(Body):
    type: Literal["json_schema"]
    definition: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class CountBody(SamplingOptions):
    """The fields of /v1/messages that make up the prompt. The sampling fields are the same as in the other APIs."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    stop: list[str] | None = Field(None, validation_alias=AliasChoices("stop_sequences", "stop"))

    def wish(self) -> dict[str, Any]:
        """Translate the request to the fields of OpenAI's chat completions."""
        wish: dict[str, Any] = self.model_dump(include=set(SamplingOptions.model_fields))
        system = [Message(role="system", content=self.system)] if self.system else []
        wish["messages"] = [
            one for at, message in enumerate([*system, *self.messages]) for one in _messages(message, at - len(system))
        ]
        # The answer goes on from the beginning that the client wrote.
        last = wish["messages"][-1]
        wish["continue_final_message"] = last["role"] == "assistant" and not last.get("tool_calls")
        if self.tools:
            wish["tools"] = [_tool(tool, at) for at, tool in enumerate(self.tools)]
        wish |= self._choice() | self._thinking()
        form = self.output_format or (self.output_config and self.output_config.format)
        if form:
            wish["response_format"] = {"type": "json_schema", "json_schema": {"schema": form.definition}}
        return wish

    def _choice(self) -> dict[str, Any]:
        if self.tool_choice is None:
            return {}
        kind, parallel = self.tool_choice.type, not self.tool_choice.disable_parallel_tool_use
        choice: Any = "required" if kind == "any" else kind
        if kind == "tool":
            choice = {"type": "function", "function": {"name": self.tool_choice.name or ""}}
        return {"tool_choice": choice, "parallel_tool_calls": parallel}

    def _thinking(self) -> dict[str, Any]:
        effort = self.output_config.effort if self.output_config else None
        kind = self.thinking.type if self.thinking else None
        if kind == "disabled":
            return {"think": False}
        return {"think": True if kind == "enabled" else None, "reasoning_effort": effort}


class MessagesBody(CountBody):
    max_tokens: Limit
    stream: bool = False

    def wish(self) -> dict[str, Any]:
        return super().wish() | {"max_tokens": self.max_tokens}


def _text(content: str | list[Block] | None, place: str) -> str:
    """The text of blocks; where two would run into each other a line ends between them."""
    if not isinstance(content, list):
        return content or ""
    text = ""
    for at, block in enumerate(content):
        piece = _text_of(block, f"{place}.{at}")
        apart = not text or not piece or text[-1].isspace() or piece[0].isspace()
        text += piece if apart else f"\n{piece}"
    return text


def _text_of(block: Block, place: str) -> str:
    source = block.source
    if block.type == "text":
        return block.text
    if block.type == "document" and isinstance(source, Source) and source.type in ("text", "content"):
        inside = source.data or _text(source.content, f"{place}.source.content")
        return f"{block.title}\n{inside}" if block.title else inside
    if block.type == "search_result" and isinstance(source, str):
        return f"{block.title or ''}\n{source}\n{_text(block.content, f'{place}.content')}"
    if block.type in ("image", "document"):
        raise ApiError(400, f"this model reads text only, no {block.type}s", "unsupported_content", place)
    raise ApiError(400, f"{place}: {block.type[:40]!r} cannot stand here", "unsupported_content", place)


def _messages(message: Message, at: int) -> Iterator[dict[str, Any]]:
    """A message as one or, with results of tools, several of OpenAI's."""
    place = "system" if at < 0 else f"messages.{at}.content"
    blocks = message.content if isinstance(message.content, list) else [Block(type="text", text=message.content)]
    if message.role != "assistant":
        for number, block in enumerate(blocks):
            if block.type == "tool_result":
                result = _text(block.content, f"{place}.{number}.content")
                if block.is_error and not result.lower().startswith("error"):
                    result = f"Error: {result}"
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": result}
        rest = [block for block in blocks if block.type != "tool_result"]
        if rest or not blocks:
            yield {"role": message.role, "content": _text(rest, place)}
        return
    calls = [
        {"id": block.id, "function": {"name": block.name, "arguments": block.input}}
        for block in blocks if block.type == "tool_use"
    ]  # fmt: skip
    said = [block for block in blocks if block.type not in ("tool_use", "thinking", "redacted_thinking")]
    thought = "".join(block.thinking for block in blocks if block.type == "thinking")
    yield {
        "role": "assistant", "content": _text(said, place), "tool_calls": calls or None,
        "reasoning_content": thought or None,
    }  # fmt: skip


def _tool(tool: Tool, at: int) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        said = f"{tool.type[:60]} is not here; offer a tool of your own with an input_schema"
        raise ApiError(400, f"tools.{at}: {said}", "unsupported_tool", f"tools.{at}")
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


@dataclass(slots=True)
class _Blocks:
    """The blocks of an answer, and the events that tell of them; without thoughts where `silent`."""

    silent: bool = False
    blocks: list[dict[str, Any]] = field(default_factory=list)
    _json: str = ""
    _open: bool = False

    def push(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield the events for another part of the answer."""
        if isinstance(part, CallStart):
            yield from self._begin(
                {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": part.name, "input": {}}
            )
        elif isinstance(part, Text):
            if not self._is("text"):
                yield from self._begin({"type": "text", "text": ""})
            self.blocks[-1]["text"] += part.text
            yield self._delta({"type": "text_delta", "text": part.text})
        elif isinstance(part, Thought):
            if not self._is("thinking"):
                yield from self._begin({"type": "thinking", "thinking": "", "signature": ""})
            if not self.silent:
                self.blocks[-1]["thinking"] += part.text
                yield self._delta({"type": "thinking_delta", "thinking": part.text})
        else:
            self._json += part.text
            yield self._delta({"type": "input_json_delta", "partial_json": part.text})

    def close(self) -> Iterator[dict[str, Any]]:
        """Yield the events that end the open content block."""
        if not self._open:
            return
        block, self._open = self.blocks[-1], False
        if block["type"] == "thinking":
            block["signature"] = _SIGNATURE
            yield self._delta({"type": "signature_delta", "signature": _SIGNATURE})
        elif block["type"] == "tool_use":
            block["input"] = call_arguments(self._json)
        yield {"type": "content_block_stop", "index": len(self.blocks) - 1}

    def _is(self, kind: str) -> bool:
        return self._open and self.blocks[-1]["type"] == kind

    def _begin(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.close()
        self.blocks.append(block)
        self._open, self._json = True, ""
        yield {"type": "content_block_start", "index": len(self.blocks) - 1, "content_block": dict(block)}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self.blocks) - 1, "delta": delta}


def _end(choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    """Why an answer ended, and its usage: tokens that the cache knew are counted apart."""
    finished = choice.answer.finished
    assert finished is not None
    reason = {"length": "max_tokens", "tool_calls": "tool_use"}.get(choice.finish_reason or "", "end_turn")
    if finished.reason == "length" and finished.cut_by == "context":
        reason = "model_context_window_exceeded"
    if finished.stop and reason == "end_turn":
        reason = "stop_sequence"
    usage = {
        "input_tokens": finished.prompt_tokens - finished.cached_tokens,
        "cache_read_input_tokens": finished.cached_tokens, "cache_creation_input_tokens": 0,
        "output_tokens": finished.written_tokens,
    }  # fmt: skip
    return {"stop_reason": reason, "stop_sequence": finished.stop or None}, usage


async def _events(head: dict[str, Any], choice: Choice, blocks: _Blocks, prompt: int) -> AsyncIterator[dict[str, Any]]:
    """The answer as a stream tells it; `head` becomes the whole message meanwhile."""
    usage = {"input_tokens": prompt, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    yield {"type": "message_start", "message": head | {"content": [], "usage": usage | {"output_tokens": 0}}}
    async for part in choice.parts(KEEP_ALIVE_SECONDS):
        if part is None:
            yield {"type": "ping"}
        elif not isinstance(part, Progress):
            for event in blocks.push(part):
                yield event
    for event in blocks.close():
        yield event
    delta, usage = _end(choice)
    head |= delta | {"usage": usage}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


async def _stream(events: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield named_event(event)
    except ApiError as error:
        yield named_event(error.anthropic_body())


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter(tags=["Anthropic"])

    @routes.post("/v1/messages")
    async def messages(request: HttpRequest, body: MessagesBody) -> Response:
        """Answer a conversation in the format of Anthropic's Messages API."""
        wish: ChatBody = chat_body(body.wish())
        async with pool.use(request, body.model) as backend:
            prepared = await prepared_chat(backend, wish, lenient=True)
            choice = submit_choices(backend, wish, prepared, request.state.user)[0]
        blocks = _Blocks(body.thinking is not None and body.thinking.display == "omitted")
        head: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": backend.name,
            "content": blocks.blocks, "stop_reason": None, "stop_sequence": None,
        }  # fmt: skip
        events = _events(head, choice, blocks, len(prepared.ids))
        if body.stream:
            return EventStream(_stream(events), [choice.answer], headers=prepared.headers)

        async def whole() -> dict[str, Any]:
            async for _ in events:
                pass
            return head

        return JSONResponse(await while_connected(request, [choice.answer], whole()), headers=prepared.headers)

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(request: HttpRequest, body: CountBody) -> dict[str, int]:
        """Count the tokens of a conversation's prompt."""
        wish = chat_body(body.wish())
        async with pool.use(request, body.model) as backend:
            prepared = await prepared_chat(backend, wish, lenient=True)
        return {"input_tokens": len(prepared.ids)}

    return routes
