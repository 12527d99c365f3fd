"""Every message of plan and predict that is asked for exists, and is used."""

import re
from pathlib import Path

import seventy.plan
from seventy.plan.words import MESSAGES, number


def test_every_message_asked_for_exists_and_is_used() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in Path(seventy.plan.__file__).parent.glob("*.py")
                   if path.name != "words.py")  # fmt: skip
    for key in re.findall(r'say\("(\w+)"', code):
        if not key.endswith("_"):
            assert key in MESSAGES, key
    for key in MESSAGES:
        assert re.search(f"[\"']{key}[\"']", code) or key.startswith(("bound_", "draft_", "noise_", "cond_", "x_")), key


def test_numbers_are_rounded_to_what_is_worth_reading() -> None:
    shown = [number(value) for value in (0.0, 0.5234, 4.314, 28.74, 154.2, 2052.0)]
    assert shown == ["0", "0.523", "4.31", "28.7", "154", "2052"]
