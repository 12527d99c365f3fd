"""Nothing of a neighbour's request is dropped in silence: fields are honoured, refused by name, or without effect."""

from collections.abc import Callable
from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from seventy.server import ollama, schemas
from seventy.server.fields import REFUSED, WITHOUT_EFFECT
from tests.server.conftest import Running

# Ollama's api/types.go, version 0.12: ChatRequest, GenerateRequest, Options with Runner.
OLLAMA_CHAT = "model messages stream format keep_alive tools options think truncate shift logprobs top_logprobs"
OLLAMA_GENERATE = (
    "model prompt suffix system template context stream raw format keep_alive images options think truncate shift "
    "logprobs top_logprobs width height steps"
)
OLLAMA_OPTIONS = (
    "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty presence_penalty "
    "frequency_penalty stop num_ctx num_batch num_gpu main_gpu use_mmap num_thread "
    # Of earlier versions.
    "numa low_vram f16_kv vocab_only logits_all use_mlock penalize_newline tfs_z mirostat mirostat_tau mirostat_eta "
    "draft_num_predict"
)
# llama.cpp's tools/server/README.md: /completion, and what chats take of it.
LLAMA_CPP = (
    "temperature dynatemp_range dynatemp_exponent top_k top_p min_p n_predict n_indent n_keep n_cmpl n_discard stream "
    "stop typical_p repeat_penalty repeat_last_n presence_penalty frequency_penalty dry_multiplier dry_base "
    "dry_allowed_length dry_penalty_last_n dry_sequence_breakers xtc_probability xtc_threshold mirostat mirostat_tau "
    "mirostat_eta grammar json_schema seed ignore_eos logit_bias n_probs min_keep t_max_predict_ms id_slot "
    "cache_prompt return_tokens samplers timings_per_token return_progress post_sampling_probs response_fields "
    "lora top_n_sigma grammar_lazy grammar_triggers image_data adaptive_target adaptive_decay backend_sampling "
    "chat_template_kwargs reasoning_format thinking_forced_open parse_tool_calls parallel_tool_calls "
    "thinking_budget_tokens reasoning_budget speculative.n_max speculative.n_min speculative.p_min speculative.type"
)
# vLLM's protocol: what its chats and completions take beyond OpenAI's.
VLLM = (
    "use_beam_search top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output "
    "ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens prompt_logprobs "
    "allowed_token_ids bad_words echo add_generation_prompt continue_final_message add_special_tokens documents "
    "chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs structured_outputs guided_json "
    "guided_regex guided_choice guided_grammar structural_tag priority request_id logits_processors "
    "return_tokens_as_token_ids return_token_ids cache_salt kv_transfer_params vllm_xargs thinking_token_budget "
    "include_reasoning repetition_detection response_format reasoning_effort"
)


def names(body: type[schemas.Body]) -> set[str]:
    found = set(body.model_fields)
    for field in body.model_fields.values():
        choices = getattr(field.validation_alias, "choices", ())
        found |= {choice for choice in choices if isinstance(choice, str)}
    return found


def openai(module: Any, name: str) -> set[str]:
    return set(getattr(module, name).__annotations__) | {"stream"}


CHAT = openai(chat_create_params, "CompletionCreateParamsBase")
COMPLETION = openai(completion_create_params, "CompletionCreateParamsBase")


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        (schemas.ChatBody, CHAT),
        (schemas.ChatBody, set(LLAMA_CPP.split())),
        (schemas.ChatBody, set(VLLM.split())),
        (schemas.CompletionBody, COMPLETION),
        (schemas.CompletionBody, set(LLAMA_CPP.split())),
        (schemas.CompletionBody, set(VLLM.split())),
        (schemas.EmbeddingBody, openai(embedding_create_params, "EmbeddingCreateParams") - {"stream"}),
        (ollama.Chat, set(OLLAMA_CHAT.split())),
        (ollama.Generate, set(OLLAMA_GENERATE.split())),
        (ollama.Options, set(OLLAMA_OPTIONS.split())),
    ],
)  # fmt: skip
def test_every_field_of_the_neighbours_is_known(body: type[schemas.Body], theirs: set[str]) -> None:
    assert theirs - names(body) - set(REFUSED) - set(WITHOUT_EFFECT) == set()
    assert not set(REFUSED) & set(WITHOUT_EFFECT)
    assert all(WITHOUT_EFFECT.values()) and all(instead for _, instead in REFUSED.values())


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dropped_is_refused_by_name(name: str, random_model: Running) -> None:
    same, instead = REFUSED[name]
    hello = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    few = {"num_predict": 1}
    asked: list[tuple[str, type[schemas.Body], Callable[[Any], dict[str, Any]]]] = [
        ("/v1/chat/completions", schemas.ChatBody, lambda value: {**hello, name: value}),
        ("/v1/completions", schemas.CompletionBody, lambda value: {"prompt": "x", "max_tokens": 1, name: value}),
        ("/api/chat", ollama.Options, lambda value: {"messages": hello["messages"], "options": {**few, name: value}}),
        ("/api/generate", ollama.Generate, lambda value: {"prompt": "x", "options": few, name: value}),
    ]
    for path, known, body in asked:
        if name in known.model_fields:
            continue
        refused = random_model.client.post(path, json=body({"anything": "else"}))
        assert refused.status_code == 400 and f"{name} is not supported: {instead}" in refused.text, path
        for value in (None, *same):
            answer = random_model.client.post(path, json=body(value))
            assert answer.is_success, (path, value, answer.text)


def test_one_form_at_a_time(random_model: Running) -> None:
    def ask(**wish: Any) -> Any:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 30, "temperature": 0, **wish}
        return random_model.client.post("/v1/chat/completions", json=body)

    schema = {"type": "object", "properties": {"q": {"enum": [1]}}, "required": ["q"], "additionalProperties": False}
    for wish in (
        {"json_schema": schema},
        {"guided_json": schema},
        {"guided_json": '{"enum": [{"q": 1}]}'},
        {"structured_outputs": {"json": schema}},
        {"response_format": {"type": "json_object", "schema": schema}},
        {"response_format": {"type": "json_schema", "schema": schema}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
    ):
        said = ask(**wish).json()["choices"][0]["message"]["content"]
        assert "".join(said.split()) == '{"q":1}', wish
    for wish in (
        {"guided_choice": ["ab", "ac"]},
        {"structured_outputs": {"choice": ["ab", "ac"]}},
        {"guided_regex": "a(b|c)"},
        {"structured_outputs": {"regex": "a(b|c)"}},
        {"guided_grammar": 'root ::= "ab" | "ac"'},
        {"response_format": {"type": "regex", "regex": "a(b|c)"}},
    ):
        assert ask(**wish).json()["choices"][0]["message"]["content"] in ("ab", "ac"), wish
    for wish, said in (
        ({"regex": "a", "grammar": 'start: "a"'}, "give one of regex and grammar"),
        ({"guided_json": "no schema"}, "guided_json"),
        ({"structured_outputs": {"jsn": {}}}, "structured_outputs"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema: "),
    ):
        refused = ask(**wish)
        assert refused.status_code == 400 and said in refused.json()["error"]["message"], wish


def test_what_was_changed_stands_in_a_header(random_model: Running) -> None:
    hello = [{"role": "user", "content": "x"}]
    strange = {"type": "array", "items": {"enum": [1]}, "uniqueItems": True, "maxItems": 1}
    for stream in (False, True):
        body = {"messages": hello, "json_schema": strange, "max_tokens": 9, "stream": stream}
        answer = random_model.client.post("/v1/chat/completions", json=body)
        assert answer.is_success and answer.headers["X-Seventy-Changed"] == "uniqueItems was let go"
    plain = random_model.client.post("/v1/chat/completions", json={"messages": hello, "max_tokens": 1})
    assert "X-Seventy-Changed" not in plain.headers


def test_an_answer_goes_on_from_the_last_message(random_model: Running) -> None:
    asked: list[list[int]] = []
    llm, submit = random_model.backend.llm, random_model.backend.scheduler.submit
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yes, and"}]
    random_model.backend.scheduler.submit = lambda request: (asked.append(request.ids), submit(request))[1]  # type: ignore[method-assign,assignment]
    try:
        for wish in ({"continue_final_message": True}, {}):
            body = {"messages": messages, "max_tokens": 1, **wish}
            assert random_model.client.post("/v1/chat/completions", json=body).is_success
    finally:
        del random_model.backend.scheduler.submit
    begun = "<|start|>user: x<|end|><|start|>assistant: yes, and"
    assert asked == [llm.prompt_ids(text) for text in (begun, f"{begun}<|end|><|start|>assistant: ")]
    refused = random_model.client.post(
        "/v1/chat/completions", json={"messages": messages[:1], "continue_final_message": True}
    )
    assert refused.status_code == 400 and "the last message must be" in refused.text


def test_texts_that_can_never_fit_are_not_read(random_model: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a long text holds up every other answer."""
    client, long = random_model.client, "a" * 7_000_000
    monkeypatch.setattr(random_model.backend.llm.tokenizer, "encode", None)
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]}),
        ("/v1/completions", {"prompt": long}),
        ("/api/generate", {"prompt": long, "raw": True}),
    ):
        refused = client.post(path, json=body)
        assert refused.status_code == 400 and "has no room for an answer" in refused.text, path
    assert client.post("/tokenize", json={"content": long}).status_code == 400


def test_a_grammar_that_cannot_go_on_is_the_requests_fault(random_model: Running) -> None:
    body = {"prompt": "x", "grammar": 'start: start start | "a" | "b"', "max_tokens": 400, "logit_bias": {"257": -100}}
    answer = random_model.client.post("/v1/completions", json=body)
    assert answer.status_code == 400 and "grammar" in answer.json()["error"]["message"]
    random_model.idle()


def test_values_that_mean_no_limit_or_nothing(random_model: Running) -> None:
    """What clients in typed languages send for fields that were not set, and -1 for no limit."""
    hello = [{"role": "user", "content": "x"}]
    call = {"id": "a", "type": None, "function": {"name": "f", "arguments": {"x": 1}}}
    answered = {"role": "assistant", "content": None, "tool_calls": [call]}
    history = [*hello, answered, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    nulls = dict.fromkeys(("stream", "ignore_eos", "stream_options", "tools", "n", "stop", "return_progress", "think"))
    few = {"num_predict": 1}
    for path, body in (
        ("/v1/chat/completions", {"messages": hello, "max_tokens": 1, **nulls}),
        ("/v1/chat/completions", {"messages": history, "max_tokens": 1, "top_k": -1}),
        ("/v1/chat/completions", {"messages": hello, "max_tokens": -1}),
        ("/v1/chat/completions", {"messages": hello, "max_completion_tokens": -1}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 1, "echo": None, "logprobs": False}),
        ("/api/chat", {"messages": hello, "stream": None, "options": {**few, "top_k": -1, "repeat_last_n": -1}}),
        ("/api/chat", {"messages": history, "options": few}),
        ("/api/generate", {"prompt": "x", "raw": None, "options": few, "think": None, "images": None}),
    ):
        answer = random_model.client.post(path, json=body)
        assert answer.is_success, (path, body, answer.text)
        if "logprobs" in body:
            assert answer.json()["choices"][0]["logprobs"] is None
    assert schemas.Tool.model_validate({"function": {"name": "f"}}).type == "function"
    stops = random_model.client.post("/v1/chat/completions", json={"messages": hello, "stop": ["a"] * 17})
    assert stops.status_code == 400 and "17 texts are too many; give 16 at most" in stops.text
    wide = random_model.client.post("/api/chat", json={"messages": hello, "options": {"num_ctx": 100_000}})
    assert wide.status_code == 400 and "options.num_ctx 100000" in wide.text
