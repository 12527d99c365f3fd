"""The bodies of /v1/responses: items of a conversation, and what they mean in chats."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from seventy.server.chat import chat_body
from seventy.server.errors import ApiError
from seventy.server.schemas import Body, ChatBody, Limit, ResponseFormat, SamplingOptions

# The one argument of a tool that takes a text.
INPUT = "input"
_CALLS, _RESULTS = ("function_call", "custom_tool_call"), ("function_call_output", "custom_tool_call_output")


class Content(Body):
    """A content part of a message, a reasoning item or a tool result."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(Body):
    """An input or output item. Its `type` decides which other fields it must have."""

    type: str = "message"
    id: str | None = None
    status: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Content] | None = None
    summary: list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Content] | None = None


class Tool(Body):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """Return the tool as the response repeats it."""
        shown = self.model_dump(exclude_none=True)
        return {"parameters": None, "strict": None} | shown if self.type == "function" else shown


class TextFormat(ResponseFormat):
    """The format of the answer: the fields of `response_format`, with the schema beside the type."""

    type: Literal["text", "json_object", "json_schema", "regex", "grammar"] = "text"
    name: str | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(Body):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="No effect; ask for it in the prompt.")

    def shown(self) -> dict[str, Any]:
        """Return the text options as the response repeats them."""
        return self.format.model_dump(exclude_none=True, by_alias=True) if self.format else {"type": "text"}


class ReasoningOptions(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponsesBody(SamplingOptions):
    """A request to /v1/responses. The sampling fields are the same as in the other APIs."""

    model: str | None = None
    input: str | list[Item] = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = Field(True, description="Keep the response for an hour, so that others can go on from it.")
    stream: bool = False
    max_output_tokens: Limit = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, Any] | None = None
    user: str | None = None
    return_progress: bool = False
    timings_per_token: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("metadata")
    @classmethod
    def _small(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        if metadata and len(metadata) > 16:
            raise ValueError("at most 16 values can be kept with a response")
        return metadata


def items_of(given: str | list[Item]) -> list[Item]:
    """Return the input items of a request; a plain text becomes one user message."""
    return [Item(role="user", content=given)] if isinstance(given, str) else given


def wish(body: ResponsesBody, items: Sequence[Item]) -> ChatBody:
    """Translate the request and the items of its conversation to a chat request. Raises ApiError if it is invalid."""
    if not items and not body.instructions:
        raise ApiError(400, "input: give a text or a list of items", "invalid_value", "input")
    wish: dict[str, Any] = body.model_dump(include=set(SamplingOptions.model_fields))
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    tools = [_tool(tool) for tool in body.tools or () if tool.type in ("function", "custom")]
    wish |= {
        "messages": system + _messages(items), "tools": tools or None, "max_tokens": body.max_output_tokens,
        "parallel_tool_calls": body.parallel_tool_calls, "chat_template_kwargs": body.chat_template_kwargs,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
    }  # fmt: skip
    if body.tool_choice is not None:
        wish |= _choice(body.tool_choice, tools)
    if body.text and body.text.format:
        wish["response_format"] = body.text.format.model_dump(exclude_none=True, by_alias=True)
    if "message.output_text.logprobs" in (body.include or ()):
        wish |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    return chat_body(wish)


def left_out(body: ResponsesBody) -> list[str]:
    """Describe the tools of the request that only OpenAI can run; agents send them with every request."""
    kinds = {tool.type[:60] for tool in body.tools or () if tool.type not in ("function", "custom")}
    return [f"tools of type {kind!r} are not here and were left out" for kind in sorted(kinds)]


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters
    if tool.type == "custom":
        parameters = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _choice(choice: str | dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """`tool_choice` and, of several allowed tools, those that are offered."""
    if isinstance(choice, str):
        return {"tool_choice": choice}
    if choice.get("type") in ("function", "custom"):
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name", "")}}}
    allowed = choice.get("tools")
    if choice.get("type") == "allowed_tools" and isinstance(allowed, list):
        names = {one.get("name") for one in allowed if isinstance(one, dict)}
        offered = [tool for tool in tools if tool["function"]["name"] in names]
        return {"tool_choice": choice.get("mode", "auto"), "tools": offered or None}
    said = f"tool_choice {str(choice.get('type'))[:60]!r} is not here; name a function"
    raise ApiError(400, said, "invalid_value", "tool_choice")


def _messages(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items as messages: what an answer thought, said and called is one of them."""
    messages: list[dict[str, Any]] = []

    def answer() -> dict[str, Any]:
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        return messages[-1]

    for at, item in enumerate(items):
        place = f"input.{at}"
        if item.type == "message":
            text = _text(item.content, place)
            if item.role == "assistant":
                last = answer()
                last["content"] += f"\n{text}" if last["content"] else text
            else:
                messages.append({"role": item.role or "user", "content": text})
        elif item.type == "reasoning":
            thought = _text(item.content or item.summary, place)
            if thought:
                last = answer()
                last["reasoning_content"] = "\n".join(filter(None, (last.get("reasoning_content"), thought)))
        elif item.type in _CALLS:
            arguments: Any = item.arguments if item.type == "function_call" else {INPUT: item.input or ""}
            call = {"id": item.call_id, "function": {"name": item.name or "", "arguments": arguments or "{}"}}
            answer().setdefault("tool_calls", []).append(call)
        elif item.type in _RESULTS:
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output, place)})
        else:
            said = f"{place}: items of type {item.type[:60]!r} are not here"
            raise ApiError(400, said, "unsupported_content", place)
    return messages


def _text(content: str | list[Content] | None, place: str) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if not part.type.endswith("text") and part.type != "refusal":
            kind = part.type.removeprefix("input_")[:60]
            raise ApiError(400, f"this model reads text only, no {kind}s", "unsupported_content", place)
    return "".join((part.refusal if part.type == "refusal" else part.text) or "" for part in content)
