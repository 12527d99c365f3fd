"""The bodies of requests, as OpenAI's API has them, with what llama.cpp's and vLLM's servers add to it.

A field that is null is one that was not given. Fields nobody knows are ignored, as clients expect; those that others
know and this server does not are in fields.py.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)  # fmt: skip

from seventy.server import fields
from seventy.server.errors import ApiError
from seventy.text.calls.arguments import literal
from seventy.text.tokenizer import Tokenizer

MAX_CHOICES, MAX_STOPS = 16, 16
# Texts of biases are tokenized, which takes a second for a megabyte.
MAX_BIASES, MAX_BIAS_LETTERS = 4096, 256
# A bias that no logit comes up to.
_BANNED = -1e30
_NUMBERS = {int, float, bool, type(None)}
T = TypeVar("T")


def _are_ids(ids: list[int]) -> list[int]:
    if ids and not (min(ids) >= 0 and max(ids) < 1 << 31):
        wrong = next(id for id in ids if not 0 <= id < 1 << 31)
        raise ValueError(f"token ids are from 0 to 2147483647, not {wrong}")
    return ids


# Checked together: it takes a quarter of the time, in which nothing else runs.
TokenIds = Annotated[list[int], AfterValidator(_are_ids)]


def _kind_of_prompt(value: Any) -> str:
    """Which of the forms of a prompt is meant, so that what is said of a wrong one is said of that."""
    first = value[0] if isinstance(value, list) and value else 0
    if not isinstance(value, list):
        return "text"
    return "texts" if isinstance(first, str) else "lists" if isinstance(first, list) else "ids"


# One prompt or several, as texts or as token ids.
Prompts = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[str], Tag("texts")]
    | Annotated[list[TokenIds], Tag("lists")],
    Discriminator(_kind_of_prompt),
]


class Body(BaseModel):
    """The base of all request bodies.

    JSON can contain half of a UTF-16 surrogate pair, for example from a client that cuts a text anywhere. UTF-8 cannot
    represent it, so it is read as U+FFFD.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: Any) -> Any:
        data = whole_characters(data)
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, Mapping) else data


def whole_characters(data: Any) -> Any:
    """Return JSON data with U+FFFD in place of each unpaired UTF-16 surrogate; return data without any unchanged."""
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError:
            return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return data
    if isinstance(data, Mapping):
        return {whole_characters(key): whole_characters(value) for key, value in data.items()}
    if isinstance(data, list) and not _NUMBERS.issuperset(map(type, data)):
        return [whole_characters(each) for each in data]
    return data


def _unless(*values: int) -> BeforeValidator:
    """One of these numbers says that there is no limit, as if the field were not given."""
    return BeforeValidator(lambda value: None if type(value) is int and value in values else value)


# As in chats: no log probabilities, or those of what was written.
_as_number = BeforeValidator(lambda value: {False: None, True: 0}[value] if isinstance(value, bool) else value)
# By -1, clients of llama.cpp and others say that there is no limit but the context.
Limit = Annotated[Annotated[int, Field(ge=1, lt=1 << 31)] | None, _unless(-1)]


class CheckedBody(Body):
    """A body in which a field that other servers know, and this one does not, is an error (fields.py)."""

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            fields.check(data, cls.model_fields)
        return data


class SamplingOptions(CheckedBody):
    """How tokens are sampled. The defaults are those of `seventy run`."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    # 0 and -1 switch it off.
    top_k: Annotated[int, Field(ge=-1, lt=1 << 30)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = Field(
        None, validation_alias=AliasChoices("repeat_penalty", "repetition_penalty")
    )
    repeat_last_n: Annotated[int, Field(ge=-1, lt=1 << 30)] | None = Field(
        None, description="How many tokens penalties look at; -1 for all."
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 64)] = None
    stop: list[str] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, stop: Any) -> Any:
        stops = [stop] if isinstance(stop, str) else stop
        if isinstance(stops, list) and len(stops) > MAX_STOPS:
            raise ValueError(f"{len(stops)} texts are too many; give {MAX_STOPS} at most")
        return stops

    def sampling(self) -> dict[str, Any]:
        """Return the fields of engine.sampler.Sampling."""
        names = SamplingOptions.model_fields.keys() - {"seed", "stop", "repeat_last_n"}
        chosen = {"temperature": 0.7} | self.model_dump(include=names, exclude_none=True)
        if self.top_k == -1:
            chosen["top_k"] = 0
        if self.repeat_last_n is not None:
            chosen["penalty_window"] = (1 << 30) - 1 if self.repeat_last_n == -1 else self.repeat_last_n
        return chosen | {"seed": None if self.seed is None else self.seed & ((1 << 64) - 1)}


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: `json` (any object), a `schema`, a `regex` or a `grammar`; `field` names its source."""

    kind: str
    value: Any
    field: str


Regex = Annotated[str, Field(max_length=1 << 16)]
Grammar = Annotated[str, Field(max_length=1 << 18)]
Choices = Annotated[list[str], Field(min_length=1, max_length=1 << 12)]


def one_of(choices: list[str]) -> str:
    """Return a grammar that accepts exactly these texts."""
    return f"start: {' | '.join(map(literal, choices))}\n"


def _schema(value: dict[str, Any] | str, field: str) -> dict[str, Any]:
    """A schema that may be given as JSON text."""
    try:
        schema = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise ApiError(400, f"{field}: a JSON schema is an object", "invalid_value", field)
    return schema


class JsonSchema(Body):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    name: str | None = None
    description: str | None = None
    definition: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """OpenAI's response_format, and its common extensions: `schema` beside the type, a regex, or a grammar."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    type: Literal["text", "json_object", "json_schema", "regex", "grammar"]
    json_schema: JsonSchema | None = None
    definition: dict[str, Any] | None = Field(None, alias="schema")
    regex: Regex | None = None
    grammar: Grammar | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        wanted = self.type in ("json_schema", "regex", "grammar") and getattr(self, self.type) is None
        if wanted and not (self.type == "json_schema" and self.definition is not None):
            raise ValueError(f"response_format {self.type} needs the field {self.type}")
        return self

    def forms(self) -> Iterator[Form]:
        schema = self.definition if self.json_schema is None else self.json_schema.definition
        if self.type in ("regex", "grammar"):
            yield Form(self.type, getattr(self, self.type), "response_format")
        elif self.type != "text":
            yield Form("json" if schema is None else "schema", schema, "response_format")


class StructuredOutputs(Body):
    """vLLM's structured_outputs: a form that the answer must have."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    definition: dict[str, Any] | str | None = Field(None, alias="json")
    regex: Regex | None = None
    choice: Choices | None = None
    grammar: Grammar | None = None
    json_object: bool | None = None

    def forms(self) -> Iterator[Form]:
        at = "structured_outputs"
        if self.definition is not None:
            yield Form("schema", _schema(self.definition, f"{at}.json"), f"{at}.json")
        for kind in ("regex", "grammar"):
            if (value := getattr(self, kind)) is not None:
                yield Form(kind, value, f"{at}.{kind}")
        if self.choice is not None:
            yield Form("grammar", one_of(self.choice), f"{at}.choice")
        if self.json_object:
            yield Form("json", None, f"{at}.json_object")


def _bias(value: float) -> float:
    if not value >= -100 and value != _BANNED:
        raise ValueError("from -100 to 100, or false")
    return value


def _as_biases(value: Any) -> Any:
    """OpenAI's object of biases, from it or from llama.cpp's list of pairs; false bans a token."""
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        value = {str(key): bias for key, bias in value}
    if isinstance(value, Mapping):
        return {key: _BANNED if bias is False else bias for key, bias in value.items()}
    return value


Bias = Annotated[float, Field(le=100), AfterValidator(_bias)]
_Token = Annotated[str, Field(max_length=MAX_BIAS_LETTERS)]
Biases = Annotated[dict[_Token, Bias], Field(max_length=MAX_BIASES)]


class SamplingBody(SamplingOptions):
    logit_bias: Annotated[Biases | None, BeforeValidator(_as_biases)] = Field(
        None, description="What is added to logits, by token id or by a text whose tokens are meant; false bans them."
    )
    ignore_eos: bool = False
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Limit = Field(None, validation_alias=AliasChoices("max_tokens", "n_predict"))
    user: str | None = None
    timings_per_token: bool = Field(False, description="Tell the times so far in each chunk of a stream.")
    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = Field(None, description="The answer must be JSON that follows it.")
    regex: Regex | None = Field(None, description="The answer must match it.")
    grammar: Grammar | None = Field(None, description="The answer must follow it: llguidance's Lark, or GBNF.")
    guided_json: dict[str, Any] | str | None = None
    guided_regex: Regex | None = None
    guided_choice: Choices | None = None
    guided_grammar: Grammar | None = None
    structured_outputs: StructuredOutputs | None = None

    def form(self) -> Form | None:
        """Return the form the answer must have. Raises ApiError if the request asks for several."""
        found = list(self._forms())
        if len(found) > 1:
            names = " and ".join(form.field for form in found)
            raise ApiError(400, f"an answer can have one form: give one of {names}", "invalid_value", found[1].field)
        return found[0] if found else None

    def _forms(self) -> Iterator[Form]:
        if self.response_format is not None:
            yield from self.response_format.forms()
        if self.json_schema is not None:
            yield Form("schema", self.json_schema, "json_schema")
        for kind in ("regex", "grammar"):
            for name in (kind, f"guided_{kind}"):
                if (value := getattr(self, name)) is not None:
                    yield Form(kind, value, name)
        if self.guided_json is not None:
            yield Form("schema", _schema(self.guided_json, "guided_json"), "guided_json")
        if self.guided_choice is not None:
            yield Form("grammar", one_of(self.guided_choice), "guided_choice")
        if self.structured_outputs is not None:
            yield from self.structured_outputs.forms()

    def stops(self) -> list[str]:
        return self.stop or []

    def bias(self, tokenizer: Tokenizer) -> dict[int, float]:
        """Return what is added to the logits, by token id. Takes time: do not call it in the event loop.

        Raises ApiError for an id outside the vocabulary.
        """
        biases: dict[int, float] = {}
        for key, value in (self.logit_bias or {}).items():
            ids = [int(key)] if key.isascii() and key.isdigit() and len(key) < 10 else tokenizer.encode(key)
            if wrong := next((id for id in ids if id >= tokenizer.vocab_size), None):
                said = f"logit_bias: token {wrong} is not in the vocabulary of {tokenizer.vocab_size}"
                raise ApiError(400, said, "invalid_value", "logit_bias")
            biases |= dict.fromkeys(ids, value)
        return biases


class StreamOptions(Body):
    include_usage: bool = False


class ContentPart(Body):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    name: str
    # JSON text, or what other servers' clients kept of it.
    arguments: str | dict[str, Any] = "{}"


class ToolCall(Body):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = Field(
        None,
        validation_alias=AliasChoices("reasoning_content", "reasoning"),
        description="What this earlier answer thought.",
    )
    refusal: str | None = None
    prefix: bool = Field(False, description="Of the last message, an answer's: the answer goes on from it.")


class Function(Body):
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: NamedFunction


class ChatBody(SamplingBody):
    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Limit = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    return_progress: bool = Field(False, description="Tell how far the prompt is read, in chunks of the stream.")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None,
        description="How much to think before the answer; models that know no levels think, or with `none` do not.",
    )
    think: bool | None = Field(
        None,
        validation_alias=AliasChoices("think", "enable_thinking"),
        description="Whether to think before the answer, where the model leaves the choice.",
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables of the chat template; they win over `think` and `reasoning_effort`."
    )
    documents: list[dict[str, Any]] | None = Field(None, description="For templates that have a place for them.")
    add_generation_prompt: bool = True
    continue_final_message: bool = Field(False, description="The answer goes on from the last message, an answer's.")

    @field_validator("chat_template_kwargs")
    @classmethod
    def _other_variables(cls, variables: dict[str, Any] | None) -> dict[str, Any] | None:
        """The conversation and its tools have fields of their own."""
        if taken := sorted({"messages", "tools"} & set(variables or {})):
            raise ValueError(f"{' and '.join(taken)} cannot be given here; they are fields of the request")
        return variables


class CompletionBody(SamplingBody):
    model: str | None = None
    prompt: Prompts
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[Annotated[int, Field(ge=0, le=20)] | None, _as_number] = None
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingBody(Body):
    model: str | None = None
    input: Any = Field(description="A text, token ids, both in a list, {prompt_string}, {content}, or a list of such.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class NativeBody(SamplingBody):
    """A request to llama.cpp's /completion. Without n_predict, an answer may fill the context."""

    model: str | None = None
    prompt: Any
    stream: bool = False
    n_probs: Annotated[int, Field(ge=0, le=100)] = 0
    post_sampling_probs: bool = Field(False, description="n_probs: probabilities that tokens are drawn with.")
    return_tokens: bool = False
    response_fields: list[str] | None = Field(None, description="Of the answer, these fields only; a/b is b of a.")
    n_indent: int = Field(0, ge=0, le=200, description="A line that begins with fewer spaces ends the answer.")
    t_max_predict_ms: int = Field(0, description="The answer ends after so long, once a line of it is whole.")


class ExtraFile(Body):
    filename: str
    text: str


class InfillBody(NativeBody):
    """A request to llama.cpp's /infill: the answer stands between `input_prefix` plus `prompt` and `input_suffix`."""

    prompt: str = ""
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[ExtraFile] = Field(default_factory=list)
    # 0: the prompt is read, and stays in the cache for the next request.
    max_tokens: Annotated[Annotated[int, Field(ge=0, lt=1 << 31)] | None, _unless(-1)] = Field(
        None, validation_alias=AliasChoices("max_tokens", "n_predict")
    )
    samplers: list[str] | None = Field(None, description="No effect: temperature, top_k, top_p and min_p are used.")


class RankedText(Body):
    """A document as Jina's clients may send it."""

    text: str


_MAX_DOCUMENTS = 10_000
_Many = Annotated[list[T], Field(min_length=1, max_length=_MAX_DOCUMENTS)]


class RerankBody(Body):
    """Jina's, Cohere's and TEI's; the last has `texts` and gets TEI's answer."""

    model: str | None = None
    query: str
    documents: _Many[str | RankedText] | None = None
    texts: _Many[str] | None = None
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="So many of the best; all where it is absent.")
    return_documents: bool = False
    return_text: bool = False
    raw_scores: bool = Field(False, description="Logarithms of the odds instead of scores from 0 to 1.")
    truncate: bool = Field(False, description="Leave out the end of a document that does not fit the context.")
    truncation_direction: Literal["Right", "right"] = "Right"
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    instruction: str | None = Field(None, description="What the query is for, instead of a search in the web.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("give documents, or texts")
        return self

    def given(self) -> list[str]:
        """The texts to rank."""
        return [one if isinstance(one, str) else one.text for one in self.documents or self.texts or ()]


class TokenizeBody(Body):
    # No more: it is for looking at texts, and a megabyte takes a second.
    content: Annotated[str, Field(max_length=1 << 18, description="The text.")]
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = Field(False, description="Say each token's text beside its id, or its bytes where it has none.")


class DetokenizeBody(Body):
    tokens: TokenIds
