"""Brings what people type into one writing, which plan/described.py reads: small letters, ASCII digits and units.

"双2680v4，一條64G" becomes "2 x 2680v4, 1 条64g". Nothing here knows a CPU or a platform by name.
"""

import re
import unicodedata

from seventy.plan.memory import MODULE_GB

# Sizes in GB that a number alone may mean.
SIZES = {float(gb) for sizes in MODULE_GB.values() for gb in sizes}
STICKS = r"(?:sticks?|modules?|dimms?|pieces?|条|根|片|张|块|个|枚)"

_TRADITIONAL = str.maketrans("條雙兩個塊張內顆處機憶體", "条双两个块张内颗处机忆体")
_DIGITS = {"一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10,
           "十二": 12, "十六": 16, "二十四": 24, "单": 1, "双": 2}  # fmt: skip
_NUMBERS = {"single": 1, "one": 1, "dual": 2, "two": 2, "pair of": 2, "three": 3, "quad": 4, "four": 4, "six": 6,
            "eight": 8, "twelve": 12, "sixteen": 16}  # fmt: skip
_WORDS = {"记忆体": "内存", "树莓派": "raspberry pi ", "香橙派": "orange pi ", "骁龙": "snapdragon "}
_CPU_BEGINS = r"(?:intel|amd|xeon|至强|epyc|霄龙|e[57]|gold|silver|platinum|金牌|银牌|铂金)?[\s-]*(?:e[57][\s-]?)?\d{4}"
_SUM = re.compile(r"(?<![\w.*@-])\d{1,3}(?:\s*\+\s*\d{1,3})+(?![\w.])")


def plain(text: str) -> str:
    """Return the text in lower case, with full-width signs and number words as ASCII, and units on all sizes."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_TRADITIONAL)
    for word, meant in _WORDS.items():
        text = text.replace(word, meant)
    # "双2680v4" and "2x2680v4" are two of them.
    text = re.sub(rf"(?:双|俩|两)(?=\s*{_CPU_BEGINS})", "2 x ", text)
    text = re.sub(rf"(?<![\w.])([1-8])x(?={_CPU_BEGINS}(?!\d))", r"\1 x ", text)
    text = re.sub(r"\b(ryzen|xeon|epyc|threadripper)(?=\d)", r"\1 ", text)
    # HP's servers: "DL380 G9", "DL380 Gen 9".
    text = re.sub(r"\b([dm]l\d{3}) ?g(?:en)? ?(\d{1,2})\b", r"\1 gen\2", text)
    for word in sorted(_DIGITS, key=len, reverse=True):
        text = re.sub(rf"{word}(?=\s*(?:条|根|片|张|块|个|枚|颗|路))", f" {_DIGITS[word]}", text)
    for word, number in _NUMBERS.items():
        text = re.sub(rf"(?<![\w-]){word}(?=[\s-](?!channel))[\s-]", f"{number} ", text)
    text = re.sub(r"\ba (?=\d+\s*g)", "1 ", text)
    text = re.sub(rf"({STICKS}(?:\s+of)?\s*)(\d{{1,3}})(?![\w.])", _with_unit, text)
    return _SUM.sub(_sum, text)


def _with_unit(match: re.Match[str]) -> str:
    """ "4 sticks of 16" in GB."""
    return match[0] + ("g" if float(match[2]) in SIZES else "")


def _sum(match: re.Match[str]) -> str:
    """ "32+32" as "32g+32g", where all are sizes of modules."""
    parts = [part.strip() for part in match[0].split("+")]
    return "+".join(f"{part}g" for part in parts) if all(float(part) in SIZES for part in parts) else match[0]
