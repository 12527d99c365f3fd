import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.text.calls.harmony import Harmony
from seventy.text.parts import CallArguments, CallStart, Text, Thought
from tests.support.answers import read

NAMES: dict[str, dict[str, object]] = {"weather": {}, "get.time": {}}
ANALYSIS = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
ARGUMENTS = '{"city": "Köln <b>", "days": [1, 2]}'


@pytest.mark.parametrize(
    ("text", "thought", "said", "calls"),
    [
        ("<|channel|>final<|message|>Hello", "", "Hello", []),
        (f"{ANALYSIS}<|channel|>final<|message|>Hello\n", "Let me see.", "Hello\n", []),
        (f"{ANALYSIS}<|channel|>final <|constrain|>json<|message|>{{}}<|return|>", "Let me see.", "{}", []),
        # The recipient after the channel, before it, and in the channel analysis.
        (
            f"{ANALYSIS}<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
            "Let me see.",
            "",
            [("weather", ARGUMENTS)],
        ),
        (f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}", "", "", [("weather", ARGUMENTS)]),
        (f"<|channel|>analysis to=functions.get.time code<|message|>{ARGUMENTS}", "", "", [("get.time", ARGUMENTS)]),
        ("<|channel|>commentary to=weather<|message|>", "", "", [("weather", "{}")]),
        # Two of a kind, and what the user is told before a call.
        (
            "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>analysis<|message|>Two.<|end|>"
            "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
            f"<|start|>assistant<|channel|>commentary to=functions.weather json<|message|>{ARGUMENTS}<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Done.",
            "One.\n\nTwo.",
            "I look.\n\nDone.",
            [("weather", ARGUMENTS)],
        ),
        (
            "<|channel|>commentary to=functions.weather<|message|>{}<|call|>"
            "<|start|>assistant to=functions.weather<|channel|>commentary<|message|>{}<|call|>",
            "",
            "",
            [("weather", "{}"), ("weather", "{}")],
        ),
        # A tool nobody offered.
        ('<|channel|>commentary to=python code<|message|>print("a")', "", 'to=python print("a")', []),
        ("<|channel|>analysis to=browser.search<|message|>x", "to=browser.search x", "", []),
        # What gpt-oss gets wrong now and then.
        (
            "<|channel|>commentary to=assistant<|channel|>analysis<|message|>Hm<|end|>"
            "<|start|>assistant<|channel|>commentary<|channel|>final<|message|>Hello",
            "Hm",
            "Hello",
            [],
        ),
        ("<|channel|>analysis<|message|>Hm<|channel|>final<|message|>Hello", "Hm", "Hello", []),
        ("<|channel|>analysis<|message|>Hm<|start|>assistant<|channel|>final<|message|>Hello", "Hm", "Hello", []),
        ("<|message|>Hello", "", "Hello", []),
        # No header at all, or one that never ends.
        ("Hello", "", "Hello", []),
        (" to you all, and more", "", " to you all, and more", []),
        ("<|channel|>final Here it is, without the mark.", "", "final Here it is, without the mark.", []),
        ("<|channel|>analysis<|end|><|start|>assistant<|channel|>final<|message|>Hello", "", "Hello", []),
        ("<|channel|>analysis\nHm\n", "", "analysis\nHm\n", []),
        ("to be", "", "to be", []),
        ("<b> or <|b|>", "", "<b> or <|b|>", []),
        ("\n\nHello <|message|>you", "", "\n\nHello you", []),
        # Cut anywhere: tags do not show, and no text is lost.
        ("<|channel|>analysis<|message|>Hm <|en", "Hm <|en", "", []),
        (f"{ANALYSIS}<|channel|>fin", "Let me see.", "", []),
        (f"{ANALYSIS}", "Let me see.", "", []),
        (" to=functions.wea", "", "", []),
        ("<|channel|>commentary to=functions.weather json<|message|>{", "", "", [("weather", "{")]),
        ("", "", "", []),
    ],
)
def test_messages_are_told_apart(text: str, thought: str, said: str, calls: list[tuple[str, str]]) -> None:
    for sizes in (None, *map(random.Random, range(30))):
        reader = Harmony(NAMES)
        assert read(reader, text, sizes) == (thought, said, calls)
        assert reader.calls == len(calls)


def test_each_piece_is_shown_as_soon_as_it_can_be() -> None:
    reader = Harmony(NAMES)
    tokens = ["<|channel|>", "analysis", "<|message|>", "Let", " me", "<|end|>", "<|start|>", "assistant"]
    tokens += ["<|channel|>", "comment", "ary", " to", "=functions", ".weather", " ", "<|constrain|>", "json"]
    tokens += ["<|message|>", '{"a', '":1}']
    shown = [part for token in tokens for part in reader.push(token)]
    weather = [CallStart(0, "weather"), CallArguments(0, '{"a'), CallArguments(0, '":1}')]
    assert shown == [Thought("Let"), Thought(" me"), *weather]
    assert reader.calls == 0 and reader.flush() == [] and reader.calls == 1


def test_prompts_that_have_begun_a_message() -> None:
    prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    assert Harmony.channel(prompt) is None and Harmony.channel("") is None
    opened = Harmony.opened(prompt)
    assert Harmony.channel(opened) == Harmony.channel(opened + "Hel") == "final"
    assert Harmony.channel(opened + "Hello<|end|>") is None
    assert Harmony.channel(f"{prompt}<|channel|>analysis<|message|>") == "analysis"
    assert Harmony(NAMES, "final").push("Hello") == [Text("Hello")]
    assert Harmony(NAMES, "analysis").push("Hm") == [Thought("Hm")]


MARKS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>"]
WORDS = ["assistant", "analysis", "final", "commentary", " to=functions.weather", "json", " ", "\n", "x", "<|", "{}"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MARKS + WORDS)))
def test_any_cut_gives_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    whole = read(Harmony(NAMES), text)
    for seed in range(5):
        thought, said, calls = read(Harmony(NAMES), text, random.Random(seed))
        assert (thought, said, calls) == whole
        assert not any(mark in thought + said + json.dumps(calls) for mark in MARKS)
