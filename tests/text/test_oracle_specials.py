"""Which tokens end an answer, and which are shown in one, by family: beside llama.cpp on vocabularies made for it."""

from pathlib import Path

import pytest

from seventy.text.tokenizer import Tokenizer
from tests.support import vocabularies
from tests.support.tiny import byte_tokens
from tests.support.vocabularies import CONTROL, NORMAL, USER_DEFINED, LlamaCpp

# Special tokens of files as their converters write them; by name, the ids the metadata gives a meaning; the ends.
FAMILIES = {
    "gpt-oss": (
        "gpt-4o",
        {
            "<|startoftext|>": CONTROL, "<|endoftext|>": CONTROL, "<|return|>": CONTROL, "<|constrain|>": CONTROL,
            "<|channel|>": CONTROL, "<|start|>": CONTROL, "<|end|>": CONTROL, "<|message|>": CONTROL,
            "<|call|>": CONTROL,
        },
        {"bos": "<|startoftext|>", "eos": "<|return|>"},
        {"<|return|>", "<|call|>", "<|endoftext|>"},
    ),
    "qwen35": (
        "qwen35",
        {
            "<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL, "<tool_call>": USER_DEFINED,
            "</tool_call>": USER_DEFINED, "<think>": USER_DEFINED, "</think>": USER_DEFINED, "<|fim_pad|>": CONTROL,
            "<|repo_name|>": CONTROL, "<|file_sep|>": CONTROL, "<|fim_prefix|>": USER_DEFINED,
        },
        {"eos": "<|im_end|>", "padding": "<|endoftext|>"},
        {"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"},
    ),
    "deepseek": (
        "deepseek-v3",
        {
            "<｜begin▁of▁sentence｜>": CONTROL, "<｜end▁of▁sentence｜>": CONTROL, "<｜User｜>": USER_DEFINED,
            "<｜Assistant｜>": USER_DEFINED, "<think>": USER_DEFINED, "</think>": USER_DEFINED,
            "<｜tool▁calls▁begin｜>": USER_DEFINED, "<｜fim▁begin｜>": NORMAL,
        },
        {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>"},
        {"<｜end▁of▁sentence｜>"},
    ),
    "glm": (
        "glm4",
        {
            "<|endoftext|>": CONTROL, "[gMASK]": CONTROL, "<sop>": CONTROL, "<|system|>": CONTROL, "<|user|>": CONTROL,
            "<|assistant|>": CONTROL, "<|observation|>": CONTROL, "<think>": USER_DEFINED, "</think>": USER_DEFINED,
            "<tool_call>": USER_DEFINED, "/nothink": USER_DEFINED, "<|code_prefix|>": CONTROL,
        },
        {"eos": "<|endoftext|>", "eot": "<|user|>", "eom": "<|observation|>", "bos": "[gMASK]"},
        {"<|endoftext|>", "<|user|>", "<|observation|>"},
    ),
    "kimi": (
        "kimi-k2",
        {
            "[BOS]": CONTROL, "[EOS]": CONTROL, "<|im_end|>": CONTROL, "<|im_user|>": CONTROL, "[EOT]": CONTROL,
            "<|im_middle|>": CONTROL, "<|tool_calls_section_begin|>": CONTROL, "<think>": CONTROL, "[PAD]": CONTROL,
        },
        {"bos": "[BOS]", "eos": "[EOS]"},
        {"[EOS]", "<|im_end|>", "[EOT]", "[PAD]"},
    ),
    "minimax": (
        "minimax-m2",
        {
            "]!p~[": CONTROL, "]~b]": CONTROL, "[e~[": CONTROL, "<think>": USER_DEFINED,
            "<minimax:tool_call>": USER_DEFINED,
        },
        {"bos": "]!p~[", "eos": "[e~["},
        {"[e~["},
    ),
    "lfm2": (
        "lfm2",
        {
            "<|pad|>": CONTROL, "<|startoftext|>": CONTROL, "<|endoftext|>": CONTROL, "<|im_start|>": CONTROL,
            "<|im_end|>": CONTROL, "<|tool_call_start|>": CONTROL, "<|tool_call_end|>": CONTROL,
        },
        {"bos": "<|startoftext|>", "eos": "<|im_end|>"},
        {"<|im_end|>", "<|endoftext|>"},
    ),
    "mistral": (
        "tekken",
        {
            "<unk>": CONTROL, "<s>": CONTROL, "</s>": CONTROL, "[INST]": CONTROL, "[/INST]": CONTROL,
            "[TOOL_CALLS]": CONTROL, "[ARGS]": CONTROL, "[THINK]": CONTROL, "[/THINK]": CONTROL,
        },
        {"bos": "<s>", "eos": "</s>"},
        {"</s>"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_those_of_llama_cpp(family: str, tmp_path: Path) -> None:
    pre, special, meanings, ends = FAMILIES[family]
    tokens = [*byte_tokens(), "ab"]
    ids = {f"{name}_token_id": len(tokens) + list(special).index(text) for name, text in meanings.items()}
    metadata = vocabularies.metadata(tokens, special, pre=pre, merges=["a b"], **ids)
    theirs = LlamaCpp(vocabularies.write(tmp_path / "vocabulary.gguf", metadata))
    ours = Tokenizer.from_metadata(metadata)
    assert {ours.token_text(token) for token in ours.end_ids} == ends
    assert theirs.ends(range(ours.vocab_size)) == ours.end_ids
    assert theirs.add_bos == ours.add_bos
    for text, token in zip(special, range(len(tokens), ours.vocab_size), strict=True):
        around = f"ab {text}\n{text}ab"
        assert token in ours.encode(around, special=True)
        for parsed in (False, True):
            assert ours.encode(around, parsed) == theirs.encode(around, parsed)
        assert ours.decode([token]) == theirs.text(token)
