"""Fields of OpenAI's, Anthropic's, Ollama's, llama.cpp's and vLLM's requests that this server does not know.

Nothing is dropped in silence: a field is honoured (it stands in schemas.py or ollama.py), or it has no effect on an
answer here, for the reason below, or it is refused by name unless it says what is done anyway.
"""

from collections.abc import Mapping
from typing import Any

from seventy.server.errors import ApiError

_DRAFTS = "how many tokens are drafted is measured, and only makes answers faster"
# Fields that change no answer, and why.
WITHOUT_EFFECT: Mapping[str, str] = {
    # OpenAI
    "access_programs": "there are none",
    "annotations": "texts that were said have none here",
    "background_options": "of no use without background, which is refused",
    "client_metadata": "there is no reporting",
    "max_tool_calls": "no tools run here",
    "stream_options": "a stream's last event tells its usage",
    "metadata": "nothing is stored that it could be kept with",
    "prediction": "it only makes answers faster",
    "prompt_cache_key": "every prompt is looked for in the cache",
    "prompt_cache_options": "the cache keeps what it has room for",
    "prompt_cache_retention": "the cache keeps what it has room for",
    "safety_identifier": "there is no reporting of users",
    "service_tier": "there is one",
    "store": "nothing is stored",
    "summary": "thoughts are told as they are",
    "user": "who asks is known by the key",
    # Anthropic
    "cache_control": "every prompt is looked for in the cache",
    "context_management": "a conversation is read as it is sent, and refused by name where it is too long",
    "diagnostics": "there is no reporting",
    "inference_geo": "this machine answers",
    "speed": "there is one",
    "user_profile_id": "who asks is known by the key",
    "workspace_id": "who asks is known by the key",
    # Ollama
    "keep_alive": "the model stays loaded",
    "truncate": "a prompt that does not fit is refused, never cut",
    "shift": "an answer ends where the context is full",
    "num_keep": "nothing of a prompt is ever dropped",
    "num_batch": "chosen by measured speed",
    "num_gpu": "there is none",
    "main_gpu": "there is none",
    "num_thread": "set at the server's start",
    "numa": "found by the server",
    "low_vram": "there is no video memory",
    "f16_kv": "set at the server's start (--kv)",
    "use_mmap": "weights are packed into memory",
    "use_mlock": "weights are packed into memory",
    "vocab_only": "the model is loaded",
    "logits_all": "logits are computed where they are wanted",
    "penalize_newline": "gone from Ollama itself",
    "draft_num_predict": _DRAFTS,
    # llama.cpp
    "cache_prompt": "what was read stays while there is room, and never changes an answer",
    "id_slot": "there are no slots",
    "slot_id": "there are no slots",
    "n_keep": "nothing of a prompt is ever dropped",
    "n_discard": "nothing of a prompt is ever dropped",
    "t_max_prompt_ms": "a prompt is read to its end",
    "min_keep": "at least one token is always kept",
    "dynatemp_exponent": "of no use without dynatemp_range, which is refused",
    "dry_base": "of no use without dry_multiplier, which is refused",
    "dry_allowed_length": "of no use without dry_multiplier, which is refused",
    "dry_penalty_last_n": "of no use without dry_multiplier, which is refused",
    "dry_sequence_breakers": "of no use without dry_multiplier, which is refused",
    "xtc_threshold": "of no use without xtc_probability, which is refused",
    "mirostat_tau": "of no use without mirostat, which is refused",
    "mirostat_eta": "of no use without mirostat, which is refused",
    "adaptive_decay": "of no use without adaptive_target, which is refused",
    "backend_sampling": "where tokens are chosen changes no answer",
    "speculative": _DRAFTS,
    "speculative.n_max": _DRAFTS,
    "speculative.n_min": _DRAFTS,
    "speculative.p_min": _DRAFTS,
    "speculative.p_split": _DRAFTS,
    "speculative.type": _DRAFTS,
    "speculative.types": _DRAFTS,
    "speculative.ngram_size_n": _DRAFTS,
    "speculative.ngram_size_m": _DRAFTS,
    "speculative.ngram_min_hits": _DRAFTS,
    "parse_tool_calls": "calls of offered tools are always read",
    "verbose": "the server's log is the server's",
    # vLLM
    "priority": "requests are taken in turn by user",
    "request_id": "answers have ids of their own",
    "spaces_between_special_tokens": "special tokens are not shown",
    "media_io_kwargs": "there are no media",
    "mm_processor_kwargs": "there are no media",
    "length_penalty": "of no use without beam search, which is refused",
}

_NONE, _CHATS = "leave it out", "use /v1/chat/completions"
# Fields that would change answers: what they may say because it is so anyway, and what to do instead.
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    # OpenAI
    "audio": ((), "answers are text"),
    "modalities": ((["text"],), "answers are text"),
    "functions": (([],), "give tools instead"),
    "function_call": (("auto", "none"), "give tool_choice instead"),
    "verbosity": (("medium",), "ask for it in the prompt"),
    "background": ((False,), "read the stream"),
    "conversation": ((), "give previous_response_id"),
    "prompt": ((), "send the text itself"),
    "image": ((), "the model reads text only"),
    "web_search_options": ((), "offer a tool that searches"),
    "moderation": ((), _NONE),
    # Anthropic
    "container": ((), "offer tools"),
    "mcp_servers": (([],), "offer tools"),
    # Of chats, where something else is asked
    "chat_template_kwargs": (({},), _CHATS),
    "documents": (([],), _CHATS),
    "reasoning_effort": (("none",), _CHATS),
    "add_generation_prompt": ((False, True), _CHATS),
    "continue_final_message": ((True, False), _CHATS),
    "parallel_tool_calls": ((True, False), _CHATS),
    "return_progress": ((False,), _CHATS),
    "logprobs": ((False,), _CHATS),
    "top_logprobs": ((0,), _CHATS),
    "echo": ((False,), "/v1/completions has it"),
    # Ollama
    "template": (("",), "the template is set at the server's start (--chat-template); raw takes the prompt as it is"),
    "context": (([],), "send the conversation to /api/chat"),
    "width": ((0,), "answers are text"),
    "height": ((0,), "answers are text"),
    "steps": ((0,), "answers are text"),
    "typical_p": ((1, 0), "use top_p or min_p"),
    "tfs_z": ((1,), "use top_p or min_p"),
    "mirostat": ((0,), "use temperature, top_p or min_p"),
    # llama.cpp
    "dynatemp_range": ((0,), "use temperature"),
    "dry_multiplier": ((0,), "use repeat_penalty, presence_penalty or frequency_penalty"),
    "xtc_probability": ((0,), "use min_p or temperature"),
    "top_n_sigma": ((-1, 0), "use min_p"),
    "adaptive_target": ((-1,), "use temperature"),
    "samplers": ((), "temperature, top_k, top_p and min_p are used in this order of their own"),
    "n_probs": ((0,), "use logprobs and top_logprobs at /v1/chat/completions, logprobs at /v1/completions"),
    "post_sampling_probs": ((False,), "/completion has it"),
    "return_tokens": ((False,), "use logprobs"),
    "response_fields": (([],), _NONE),
    "n_cmpl": ((1,), "use n"),
    "n_indent": ((0,), _NONE),
    "t_max_predict_ms": ((0, -1), "use max_tokens"),
    "lora": (([],), "serve the model that you want"),
    "grammar_lazy": ((False,), "offer tools"),
    "grammar_triggers": (([],), "offer tools"),
    "image_data": (([],), "the model reads text only"),
    "multimodal_data": (([],), "the model reads text only"),
    "reasoning_format": (("auto", "deepseek"), "thinking comes as reasoning_content"),
    "thinking_forced_open": ((False,), "use think"),
    "reasoning_budget": ((-1,), "use think or reasoning_effort"),
    "thinking_budget_tokens": ((-1,), "use think or reasoning_effort"),
    # vLLM
    "use_beam_search": ((False,), "use n"),
    "stop_token_ids": (([],), "use stop"),
    "include_stop_str_in_output": ((False,), _NONE),
    "min_tokens": ((0,), "use ignore_eos with max_tokens"),
    "skip_special_tokens": ((True,), _NONE),
    "truncate_prompt_tokens": ((), "send a shorter prompt"),
    "prompt_logprobs": ((0, False), _NONE),
    "allowed_token_ids": ((), "use grammar or logit_bias"),
    "bad_words": (([],), "use logit_bias"),
    "logits_processors": (([],), _NONE),
    "chat_template": ((), "the template is set at the server's start (--chat-template)"),
    "structural_tag": ((), "use response_format, regex or grammar"),
    "return_tokens_as_token_ids": ((False,), "use logprobs"),
    "return_token_ids": ((False,), "use logprobs"),
    "cache_salt": ((), "users share one cache"),
    "kv_transfer_params": ((), "there is one server"),
    "vllm_xargs": (({},), _NONE),
    "thinking_token_budget": ((), "use think or reasoning_effort"),
    "include_reasoning": ((True,), "use think"),
    "add_special_tokens": ((False, True), _NONE),
    "repetition_detection": ((), "use repeat_penalty"),
    "logprob_token_ids": (([],), "use top_logprobs"),
}


def check(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise ApiError 400 for the first field that would be dropped though it is to change the answer."""
    for name, value in given.items():
        if name in known or name not in REFUSED or value is None:
            continue
        same, instead = REFUSED[name]
        if not any((type(value) is type(one) and value == one) or _number(value) == _number(one) for one in same):
            raise ApiError(400, f"{name} is not supported: {instead}", "unsupported_field", name)


def _number(value: Any) -> float | object:
    """What numbers are compared by; nothing else equals it."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else object()
