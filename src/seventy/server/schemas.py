"""The bodies of requests, as OpenAI's API has them; what is not known is ignored, as its clients expect."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_CHOICES = 16
TokenIds = list[Annotated[int, Field(ge=0, lt=1 << 31)]]


class Body(BaseModel):
    """Any body of a request: unknown fields are ignored.

    JSON can spell half of a UTF-16 pair, as programs do that cut texts anywhere. UTF-8 cannot, nor can an answer that
    repeats it: it is read as U+FFFD.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, data: Any) -> Any:
        return whole_characters(data)


def whole_characters(data: Any) -> Any:
    """JSON data with U+FFFD for each half of a UTF-16 pair; what holds none is returned as it is."""
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError:
            return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return data
    if isinstance(data, Mapping):
        return {whole_characters(key): whole_characters(value) for key, value in data.items()}
    if isinstance(data, list) and any(isinstance(each, str | Mapping | list) for each in data):
        return [whole_characters(each) for each in data]
    return data


class SamplingOptions(Body):
    """How tokens are chosen, in words both APIs share; what is not given is as in `seventy run`."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 30)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 64)] = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None


class SamplingBody(SamplingOptions):
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    ignore_eos: bool = False
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    user: str | None = None
    regex: Annotated[str, Field(max_length=1 << 16)] | None = Field(None, description="The answer must match it.")
    grammar: Annotated[str, Field(max_length=1 << 18)] | None = Field(
        None, description="The answer must follow it: llguidance's Lark, or GBNF."
    )

    @field_validator("logit_bias")
    @classmethod
    def _ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for key in bias or ():
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise ValueError(f"{key[:40]!r} is no token id")
        return bias

    def sampling(self) -> dict[str, Any]:
        """The fields of engine.sampler.Sampling."""
        given = self.model_dump(include=SamplingOptions.model_fields.keys() - {"seed", "stop"}, exclude_none=True)
        chosen = {"temperature": 0.7} | given
        return chosen | {"seed": None if self.seed is None else self.seed & ((1 << 64) - 1)}

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def bias(self) -> dict[int, float]:
        return {int(key): value for key, value in (self.logit_bias or {}).items()}


class StreamOptions(Body):
    include_usage: bool = False


class ContentPart(Body):
    type: str
    text: str | None = None


class FunctionCall(Body):
    name: str
    arguments: str = "{}"


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


class Function(Body):
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    name: str | None = None
    definition: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema", "regex", "grammar"]
    json_schema: JsonSchema | None = None
    regex: str | None = None
    grammar: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if self.type in ("json_schema", "regex", "grammar") and getattr(self, self.type) is None:
            raise ValueError(f"response_format {self.type} needs the field {self.type}")
        return self


class ChatBody(SamplingBody):
    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
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

    @field_validator("chat_template_kwargs")
    @classmethod
    def _other_variables(cls, variables: dict[str, Any] | None) -> dict[str, Any] | None:
        """The conversation and its tools have fields of their own."""
        if taken := sorted({"messages", "tools"} & set(variables or {})):
            raise ValueError(f"{' and '.join(taken)} cannot be given here; they are fields of the request")
        return variables


class CompletionBody(SamplingBody):
    model: str | None = None
    prompt: str | TokenIds | list[str] | list[TokenIds]
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingBody(Body):
    model: str | None = None
    input: str | TokenIds | list[str] | list[TokenIds]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class TokenizeBody(Body):
    content: Annotated[str, Field(description="The text.")]
    add_special: bool = False
    parse_special: bool = True


class DetokenizeBody(Body):
    tokens: TokenIds
