"""/v1/chat/completions"""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Finished, Logprob, Progress, TextDelta
from seventy.engine.sampler import Sampling
from seventy.errors import SeventyError
from seventy.server.backend import Answer, Backend
from seventy.server.errors import ApiError, validation_error
from seventy.server.json_answer import json_answer
from seventy.server.pool import ModelPool
from seventy.server.schemas import ChatBody, Message, NamedTool, SamplingBody
from seventy.server.streams import DONE, KEEP_ALIVE, KEEP_ALIVE_SECONDS, EventStream, event, merged, while_connected
from seventy.text.chat import ChatFormat
from seventy.text.conventions import AnswerReader
from seventy.text.grammar import Constraint, Grammars
from seventy.text.parts import CallArguments, CallStart, Part, Text, Thought
from seventy.text.tokenizer import Tokenizer


def chat_body(wish: Mapping[str, Any]) -> ChatBody:
    """Validate a request that was translated from another API. Raises ApiError if it is invalid."""
    try:
        return ChatBody.model_validate(wish)
    except ValidationError as error:
        raise validation_error(list(error.errors())) from None


def call_arguments(text: str) -> dict[str, Any]:
    """Parse the arguments of a call as an object; return an empty one if the call was cut off."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Sum up the tokens of all choices of a request. The prompt counts once."""
    ends = [answer.finished for answer in answers if answer.finished]
    prompt = max((end.prompt_tokens for end in ends), default=0)
    written = sum(end.written_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": min((end.cached_tokens for end in ends), default=0)},
        "completion_tokens_details": {
            "accepted_prediction_tokens": sum(end.accepted_tokens for end in ends),
            "rejected_prediction_tokens": sum(end.drafted_tokens - end.accepted_tokens for end in ends),
        },
    }


def timings(finished: Finished) -> dict[str, float]:
    """Return the times of an answer under the names that llama.cpp's server uses."""
    read = finished.prompt_tokens - finished.cached_tokens
    decode = finished.decode_seconds
    return {
        "cache_n": finished.cached_tokens,
        "prompt_n": read,
        "prompt_ms": round(1e3 * finished.prompt_seconds, 3),
        "prompt_per_second": round(read / finished.prompt_seconds, 3) if finished.prompt_seconds else 0.0,
        "predicted_n": finished.written_tokens,
        "predicted_ms": round(1e3 * decode, 3),
        "predicted_per_second": round((finished.written_tokens - 1) / decode, 3) if decode > 0 else 0.0,
        "queued_ms": round(1e3 * finished.queued_seconds, 3),
        "draft_n": finished.drafted_tokens,
        "draft_n_accepted": finished.accepted_tokens,
        "draft_gained_ms": round(1e3 * finished.gained_seconds, 3),
    }


def score(value: Logprob, tokenizer: Tokenizer) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(token)
        # JSON has no infinity: what cannot come is very unlikely.
        return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}

    return one(value.token, value.logprob) | {"top_logprobs": [one(*top) for top in value.top]}


def text_of(message: Message, at: int) -> str | None:
    """Return the text of message number `at`, whose content may be a list of parts."""
    if not isinstance(message.content, list):
        return message.refusal if message.content is None else message.content
    texts = []
    for part in message.content:
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("text", "input_text", "output_text", "refusal") or text is None:
            raise ApiError(
                400, f"this model reads text only, not {part.type[:40]!r}", "unsupported_content", f"messages.{at}"
            )
        texts.append(text)
    return "".join(texts)


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Convert messages to what chat templates expect: call arguments as objects, `developer` as `system`."""
    plain = []
    for at, message in enumerate(messages):
        one: dict[str, Any] = {"role": message.role, "content": text_of(message, at) or ""}
        one["role"] = {"developer": "system", "function": "tool"}.get(message.role, message.role)
        if message.tool_calls:
            one["tool_calls"] = [
                {"id": call.id, "type": "function", "function": _function(call.function.name, call.function.arguments)}
                for call in message.tool_calls
            ]
        for name in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(message, name)) is not None:
                one[name] = value
        plain.append(one)
    return plain


def _function(name: str, arguments: str | dict[str, Any]) -> dict[str, Any]:
    """A call of the history. Arguments that are no object, as models write some, are shown as they were written."""
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments or "{}", strict=False)
        except (ValueError, RecursionError):
            value = None
        arguments = value if isinstance(value, dict) else arguments
    return {"name": name, "arguments": arguments}


def constraint(grammars: Grammars, body: SamplingBody) -> Constraint | None:
    """Compile the form that the answer must have. Takes time: do not call it in the event loop."""
    form = body.form()
    if form is None:
        return None
    try:
        match form.kind:
            case "json":
                return grammars.json()
            case "schema":
                return grammars.json_schema(form.value)
            case "regex":
                return grammars.regex(form.value)
        return grammars.lark(form.value)
    except SeventyError as error:
        raise ApiError(400, f"{form.field}: {error}", "invalid_value", form.field) from None


@dataclass(slots=True)
class Prepared:
    """A request made ready for the engine; `changes` says in words what of it had to be changed for that."""

    text: str
    ids: list[int]
    constraint: Constraint | None
    new_reader: Callable[[], AnswerReader]
    changes: Sequence[str] = ()
    bias: dict[int, float] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that report changes to the request."""
        said = "; ".join([*self.changes, *(f"{place} was let go" for place in self.constraint.gone)]
                         if self.constraint else self.changes)  # fmt: skip
        return {"X-Seventy-Changed": said.encode("ascii", "replace").decode()[:1000]} if said else {}


def prepare(backend: Backend, body: ChatBody) -> Prepared:
    """Render and tokenize the conversation, and compile its constraint. Slow: not for the event loop."""
    chat = backend.llm.chat_format
    offered, wanted = _tools(body)
    think = chat.thinking(wanted_thinking(body)[0])
    messages = plain_messages(body.messages)
    # Before the template sees them: it would take seconds for what is too long anyway.
    backend.llm.check_length(*(message["content"].strip() for message in messages))
    continued = _continued(body, messages)
    prompt = chat.prompt(messages, offered, _variables(chat, body))
    conventions, text = chat.conventions, prompt.text
    if wanted:
        if body.form() is not None:
            raise ApiError(400, "a call that must come leaves no room for a form of the answer", None, "tool_choice")
        parallel = body.parallel_tool_calls is not False and not isinstance(body.tool_choice, NamedTool)
        limit: Constraint | None = backend.grammars.calls(conventions.style.grammar, wanted, parallel)
    else:
        limit = constraint(backend.grammars, body)
    if limit is not None or continued:
        # What must have a form, or goes on from a text, cannot begin with thinking.
        text = conventions.answer_at_once(text, calls=bool(wanted))
    elif think is False:
        text = conventions.answer_at_once(text, calls=bool(offered))
    text += continued or ""
    ids = backend.llm.prompt_ids(text)
    return Prepared(text, ids, limit, lambda: conventions.reader(text, offered), prompt.changes)


def _tools(body: ChatBody) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tools that are offered, and those of which one must be called."""
    offered = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    choice = body.tool_choice
    if choice == "none":
        return [], []
    if isinstance(choice, NamedTool):
        wanted = [tool for tool in offered if tool["function"]["name"] == choice.function.name]
        if not wanted:
            raise ApiError(400, f"tool_choice names {choice.function.name[:64]!r}: no tool", None, "tool_choice")
        return offered, wanted
    if choice == "required" and not offered:
        raise ApiError(400, "tool_choice is required, but there are no tools", None, "tool_choice")
    return offered, offered if choice == "required" else []


def _continued(body: ChatBody, messages: list[dict[str, Any]]) -> str | None:
    """The text that the answer is to go on from, taken out of the messages; None where it begins anew."""
    last = body.messages[-1]
    if body.continue_final_message and body.add_generation_prompt and "add_generation_prompt" in body.model_fields_set:
        said = "add_generation_prompt and continue_final_message exclude each other; leave one of them out"
        raise ApiError(400, said, "invalid_value", "add_generation_prompt")
    if not (body.continue_final_message or last.prefix):
        return None
    if last.role != "assistant" or last.tool_calls:
        name = "continue_final_message" if body.continue_final_message else "prefix"
        raise ApiError(400, f"{name}: the last message must be a text of the assistant", "invalid_value", name)
    return str(messages.pop()["content"])


def _variables(chat: ChatFormat, body: ChatBody) -> dict[str, Any]:
    """What the template is told beside messages and tools."""
    conventions = chat.conventions
    think, effort = wanted_thinking(body)
    if not conventions.thinks and (body.think or effort):
        field = "think" if body.think else "reasoning_effort"
        raise ApiError(400, f"this model's chat template knows no thinking; leave {field} out", None, field)
    if body.documents and "documents" not in chat.source:
        raise ApiError(400, "documents: this model's chat template has no place for them", None, "documents")
    given = dict(body.chat_template_kwargs or {})
    for name in ("add_generation_prompt", "documents", "bos_token", "eos_token"):
        given.pop(name, None)
    variables = conventions.variables(think if effort else chat.thinking(think), effort) | given
    if not body.add_generation_prompt and not body.continue_final_message:
        variables["add_generation_prompt"] = False
    return variables | ({"documents": body.documents} if body.documents else {})


def wanted_thinking(body: ChatBody) -> tuple[bool | None, str | None]:
    """Return whether the request asks to think, and its effort, from the several fields that can say so."""
    given = body.chat_template_kwargs or {}
    effort = body.reasoning_effort
    by_effort = None if effort is None else effort != "none"
    ways = given.get("enable_thinking"), given.get("thinking"), body.think, by_effort
    think = next((value for value in ways if isinstance(value, bool)), None)
    return think, None if effort == "none" else effort


@dataclass(slots=True)
class Choice:
    """One answer: turns the engine's events into messages and deltas."""

    index: int
    answer: Answer
    tokenizer: Tokenizer
    reader: AnswerReader
    parallel: bool
    finish_reason: str | None = None
    scores: list[dict[str, Any]] = field(default_factory=list)
    # How many of the tokens written were thoughts; one that holds both counts for what it begins with.
    thought_tokens: int = 0
    _unread_tokens: int = 0
    _skip: bool = False

    async def parts(self, every_seconds: float | None = None) -> AsyncIterator[Part | Progress | None]:
        """Yield the parts of the answer and the progress of its prompt; None if nothing arrived for `every_seconds`."""
        async for item in self.answer.events(every_seconds):
            if item is None or isinstance(item, Progress):
                yield item
            elif isinstance(item, TextDelta):
                self.scores += [score(value, self.tokenizer) for value in item.scores]
                self._unread_tokens += len(item.tokens)
                for part in self._wanted(self.reader.push(item.text) if item.text else []):
                    yield part
            elif isinstance(item, Finished):
                for part in self._wanted(self._end(item)):
                    yield part

    async def deltas(self, progress: bool, every_seconds: float | None) -> AsyncIterator[dict[str, Any] | None]:
        """Yield deltas, with `prompt_progress` if `progress`; None if nothing arrived for `every_seconds`."""
        async for item in self.parts(every_seconds):
            if item is None:
                yield None
            elif isinstance(item, Progress):
                if progress:
                    yield {"prompt_progress": progress_of(item)}
            else:
                yield _delta(item)

    def _end(self, finished: Finished) -> list[Part]:
        parts = self.reader.flush(cut=finished.reason != "stop")
        self.finish_reason = "stop" if self._skip else finished.reason
        if self.reader.calls and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"
        if finished.reason == "cancelled" and not self._skip:
            self.finish_reason = "stop"
        return parts

    def _wanted(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Those that hold something; of several calls the first where one was wanted."""
        if parts:
            self.thought_tokens += self._unread_tokens if isinstance(parts[0], Thought) else 0
            self._unread_tokens = 0
        for part in parts:
            if isinstance(part, CallStart | CallArguments) and part.index and not self.parallel:
                # The others need not be written to their end.
                self._skip = True
                self.answer.cancel()
            elif isinstance(part, CallStart) or part.text:
                yield part

    def take_scores(self) -> list[dict[str, Any]]:
        scores, self.scores = self.scores, []
        return scores


def _delta(part: Part) -> dict[str, Any]:
    """A part of an answer as chunks of a stream have it."""
    match part:
        case Thought(text):
            return {"reasoning_content": text}
        case Text(text):
            return {"content": text}
        case CallStart(index, name):
            call = {"index": index, "id": f"call_{secrets.token_hex(12)}", "type": "function"}
            return {"tool_calls": [call | {"function": {"name": name, "arguments": ""}}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def progress_of(item: Progress) -> dict[str, Any]:
    """Return the progress of reading a prompt in the format of llama.cpp's server."""
    return {
        "total": item.total, "processed": item.done, "cache": item.cached, "seconds_left": item.seconds_left,
        "queued": item.queued,
    }  # fmt: skip


async def prepared_chat(backend: Backend, body: ChatBody, lenient: bool = False) -> Prepared:
    """Prepare a conversation for the engine, in a thread.

    If `lenient`, a model that cannot think answers a request to think without thinking, and a header says so.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", "invalid_value", "top_logprobs")
    changed: list[str] = []
    if lenient and not backend.llm.chat_format.conventions.thinks and (body.think or body.reasoning_effort):
        body = body.model_copy(update={"think": None, "reasoning_effort": None})
        changed.append("the model knows no thinking")
    prepared: Prepared = await backend.run_in_thread(prepare, backend, body)
    bias = await backend.run_in_thread(body.bias, backend.llm.tokenizer)
    return replace(prepared, changes=[*prepared.changes, *changed], bias=bias)


def submit_choices(backend: Backend, body: ChatBody, prepared: Prepared, user: str) -> list[Choice]:
    """Submit all choices of a request, or none of them."""
    llm = backend.llm
    max_tokens = body.max_completion_tokens or body.max_tokens
    choices: list[Choice] = []
    try:
        for index in range(body.n or 1):
            limit = prepared.constraint.copy() if prepared.constraint else None
            answer = backend.answer()
            answer.submit(
                ids=prepared.ids, max_tokens=max_tokens, sampling=sampling(body, index), stops=body.stops(), user=user,
                logit_bias=prepared.bias, top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
                ignore_eos=body.ignore_eos, constraint=limit,
            )  # fmt: skip
            parallel = body.parallel_tool_calls is not False
            choices.append(Choice(index, answer, llm.tokenizer, prepared.new_reader(), parallel))
    except ApiError:
        for choice in choices:
            choice.answer.cancel()
        raise
    return choices


def sampling(body: SamplingBody, index: int) -> Sampling:
    """Return the sampling options of choice number `index`; choices with the same seed get different ones."""
    options = body.sampling()
    if options["seed"] is not None:
        options["seed"] = (options["seed"] + index) % (1 << 64)
    return Sampling(**options)


async def complete(pool: ModelPool, request: HttpRequest, body: ChatBody) -> Response:
    """Answer a conversation: an EventStream where `body.stream`, else the whole answer. Raises ApiError."""
    async with pool.use(request, body.model) as backend:
        prepared = await prepared_chat(backend, body)
        choices = submit_choices(backend, body, prepared, request.state.user)
    answers = [choice.answer for choice in choices]
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": backend.name,
        "system_fingerprint": backend.fingerprint,
    }  # fmt: skip
    if body.stream:
        return EventStream(_stream(head, choices, body), answers, headers=prepared.headers)
    whole = await while_connected(request, answers, _whole(head, choices, bool(body.logprobs)))
    return json_answer(whole, headers=prepared.headers)


def router(pool: ModelPool) -> APIRouter:
    routes = APIRouter()

    @routes.post("/chat/completions", include_in_schema=False)
    @routes.post("/v1/chat/completions", tags=["OpenAI"])
    async def chat_completions(request: HttpRequest, body: ChatBody) -> Response:
        """Answer a conversation."""
        return await complete(pool, request, body)

    @routes.post("/chat/completions/input_tokens", include_in_schema=False)
    @routes.post("/v1/chat/completions/input_tokens", tags=["llama.cpp"])
    async def input_tokens(request: HttpRequest, body: ChatBody) -> Response:
        """Count the tokens of a conversation's prompt."""
        async with pool.use(request, body.model) as backend:
            prepared = await prepared_chat(backend, body)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": len(prepared.ids)})

    @routes.post("/apply-template", tags=["llama.cpp"])
    async def apply_template(request: HttpRequest, body: ChatBody) -> Response:
        """Return the prompt that the chat template makes of a conversation."""
        async with pool.use(request, body.model) as backend:
            prepared = await prepared_chat(backend, body)
        return JSONResponse({"prompt": prepared.text}, headers=prepared.headers)

    return routes


async def _stream(head: dict[str, Any], choices: list[Choice], body: ChatBody) -> AsyncIterator[bytes]:
    head = head | {"object": "chat.completion.chunk"}

    def chunk(choice: Choice, delta: dict[str, Any], reason: str | None = None) -> bytes:
        scores = {"content": choice.take_scores()} if body.logprobs else None
        # Not of the one that says the role: nothing is written yet.
        timed = body.timings_per_token and "role" not in delta
        more = {"timings": timings(choice.answer.so_far())} if timed else {}
        shown = {"index": choice.index, "delta": delta, "logprobs": scores, "finish_reason": reason}
        return event(head | {"choices": [shown]} | more)

    async def of(choice: Choice) -> AsyncIterator[bytes]:
        # No content yet: an empty text would be the beginning of one.
        yield chunk(choice, {"role": "assistant", "content": None})
        async for delta in choice.deltas(body.return_progress, KEEP_ALIVE_SECONDS):
            if delta is None:
                yield KEEP_ALIVE
            elif "prompt_progress" in delta:
                yield event(head | {"choices": [], **delta})
            else:
                yield chunk(choice, delta)
        yield chunk(choice, {}, choice.finish_reason)

    async for data in merged([of(choice) for choice in choices]):
        yield data
    answers = [choice.answer for choice in choices]
    if body.stream_options and body.stream_options.include_usage:
        finished = answers[0].finished
        assert finished is not None
        yield event(head | {"choices": [], "usage": usage(answers), "timings": timings(finished)})
    yield DONE


async def _whole(head: dict[str, Any], choices: list[Choice], logprobs: bool) -> dict[str, Any]:
    results = []
    for choice in choices:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        async for delta in choice.deltas(False, None):
            _add(message, delta or {})
        if message["content"] is None and "tool_calls" not in message:
            message["content"] = ""
        result = {"index": choice.index, "message": message, "finish_reason": choice.finish_reason}
        results.append(result | {"logprobs": {"content": choice.take_scores()} if logprobs else None})
    answers = [choice.answer for choice in choices]
    assert answers[0].finished is not None
    head = head | {"object": "chat.completion", "choices": results, "usage": usage(answers)}
    return head | {"timings": timings(answers[0].finished)}


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Puts a delta to the message it belongs to."""
    for key in ("content", "reasoning_content"):
        if key in delta:
            message[key] = (message.get(key) or "") + delta[key]
    for call in delta.get("tool_calls", ()):
        calls = message.setdefault("tool_calls", [])
        if "id" in call:
            calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
        else:
            calls[-1]["function"]["arguments"] += call["function"]["arguments"]
