"""Every message exists in both languages with the same places to fill in."""

import re
from pathlib import Path

import seventy.plan
from seventy.plan.words import MESSAGES, language, number


def test_both_languages_fill_in_the_same_values() -> None:
    for key, (english, chinese) in MESSAGES.items():
        places = [sorted(set(re.findall(r"\{(\w+)", text))) for text in (english, chinese)]
        assert places[0] == places[1], key


def test_every_message_asked_for_exists_and_is_used() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in Path(seventy.plan.__file__).parent.glob("*.py")
                   if path.name != "words.py")  # fmt: skip
    for key in re.findall(r'say\("(\w+)"', code):
        if not key.endswith("_"):
            assert key in MESSAGES, key
    for key in MESSAGES:
        assert re.search(f"[\"']{key}[\"']", code) or key.startswith(("bound_", "draft_", "noise_", "cond_", "x_")), key


def test_language_follows_what_is_asked_for() -> None:
    assert language("zh-CN") == "zh" and language("en") == "en" and language("fr") == "en"


def test_numbers_are_rounded_to_what_is_worth_reading() -> None:
    shown = [number(value) for value in (0.0, 0.5234, 4.314, 28.74, 154.2, 2052.0)]
    assert shown == ["0", "0.523", "4.31", "28.7", "154", "2052"]
