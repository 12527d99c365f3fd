import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.text import reasoning
from seventy.text.parts import Text, Thought
from seventy.text.reasoning import THINK, Reasoning, Tags
from tests.support import templates
from tests.support.answers import read

GEMMA4, MISTRAL = reasoning.tags(templates.GEMMA4), reasoning.tags(templates.MISTRAL)


@pytest.mark.parametrize(
    ("tags", "text", "inside", "thought", "said"),
    [
        (THINK, "<think>hm</think>\n\nyes", False, "hm", "yes"),
        (THINK, "\n<think>\n\nhm\n\nhm\n</think>yes </think>", False, "hm\n\nhm", "yes </think>"),
        (THINK, "yes <think>no</think>", False, "", "yes <think>no</think>"),
        (THINK, "hm</think>\nyes", True, "hm", "yes"),
        (THINK, "\nhm\n</think>\n\nyes\n", True, "hm", "yes\n"),
        (THINK, "never ends </thin", True, "never ends </thin", ""),
        (THINK, "never ends\n\n", True, "never ends\n\n", ""),
        (THINK, "</think>", True, "", ""),
        (THINK, "<think>\n\n</think>\n\nyes", False, "", "yes"),
        (THINK, "<think>hm</think>\n\n", False, "hm", ""),
        (THINK, "<thin", False, "", "<thin"),
        (THINK, " <thing>", False, "", " <thing>"),
        (THINK, "", False, "", ""),
        (GEMMA4, "<|channel>thought\nhm\n<channel|>yes", False, "hm", "yes"),
        (GEMMA4, "<|channel>thought\n<channel|>yes", False, "", "yes"),
        (GEMMA4, "<|channel>thought\na<channel|>b<|channel>thought\nc\n<channel|>d", False, "ac", "bd"),
        (GEMMA4, "no <|channel>though", False, "", "no <|channel>though"),
        (MISTRAL, "[THINK]hm[/THINK]yes", False, "hm", "yes"),
        (MISTRAL, "[THIS] is [THINK]hm[/THINK] it", False, "hm", "[THIS] is it"),
    ],
)
def test_thinking_is_told_apart(tags: Tags, text: str, inside: bool, thought: str, said: str) -> None:
    for sizes in (None, *map(random.Random, range(30))):
        assert read(Reasoning(tags, inside), text, sizes) == (thought, said, [])


def test_each_piece_is_shown_as_soon_as_it_can_be() -> None:
    reader = Reasoning()
    assert reader.push("<th") == reader.push("ink>") == reader.push("\n") == []
    assert reader.push("hm") == [Thought("hm")]
    assert reader.push("\n") == reader.push("</th") == []
    assert reader.push("is") == [Thought("\n</this")]
    assert reader.push("</think>\n") == []
    assert reader.push("\nyes\n") == [Text("yes\n")]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<|channel>thought", "<channel|>", "a", "\n", " ", "<", "|>"])))
def test_any_cut_gives_the_same_and_nothing_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces)
    for tags in (THINK, GEMMA4):
        for inside in (False, True):
            whole = read(Reasoning(tags, inside), text)
            for seed in range(5):
                assert read(Reasoning(tags, inside), text, random.Random(seed)) == whole
            kept = "".join(whole[:2]).replace(tags.open, "").replace(tags.close, "")
            for char in "a<":
                assert kept.count(char) == text.replace(tags.open, "").replace(tags.close, "").count(char)


@pytest.mark.parametrize(
    ("template", "open"),
    [
        ("", "<think>"),
        (templates.QWEN35, "<think>"),
        (templates.PLAIN, "<think>"),
        (templates.MISTRAL, "[THINK]"),
        (templates.GEMMA4, "<|channel>thought"),
        ("{{ '<seed:think>' }}", "<seed:think>"),
        ("{% set begin = '<mm:think>' %}", "<mm:think>"),
        ("<|START_THINKING|><|END_THINKING|>", "<|START_THINKING|>"),
    ],
)
def test_tags_are_those_of_the_template(template: str, open: str) -> None:
    tags = reasoning.tags(template)
    assert tags.open == open
    assert read(Reasoning(tags), f"{open}hm{tags.close}yes") == ("hm", "yes", [])


def test_templates_may_open_it() -> None:
    assert THINK.opened_by("<|assistant|><think>\n")
    assert not THINK.opened_by("<think>x</think><|assistant|>")
    assert THINK.closed("<|assistant|><think>\n") == "<|assistant|><think>\n\n</think>\n\n"
    assert GEMMA4.closed("<|turn>model\n<|channel>thought\n") == "<|turn>model\n<|channel>thought<channel|>"
