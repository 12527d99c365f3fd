"""Reads answers that come in pieces of any size, for tests of what tells their parts apart."""

import random
from collections.abc import Iterable
from typing import Protocol

from seventy.text.parts import CallArguments, CallStart, Part, Text, Thought


class Reader(Protocol):
    def push(self, piece: str) -> list[Part]: ...

    def flush(self) -> list[Part]: ...


def pieces(text: str, sizes: random.Random | None) -> Iterable[str]:
    """The whole text, or pieces of one to five characters."""
    at = 0
    while at < len(text):
        n = sizes.randint(1, 5) if sizes else len(text)
        yield text[at : at + n]
        at += n


def read(reader: Reader, text: str, sizes: random.Random | None = None) -> tuple[str, str, list[tuple[str, str]]]:
    """What was thought, what was said, and the calls: names and arguments as they were written."""
    parts = [part for piece in pieces(text, sizes) for part in reader.push(piece)] + reader.flush()
    thought, said, calls = "", "", list[tuple[str, str]]()
    for part in parts:
        match part:
            case Thought(new):
                thought += new
            case Text(new):
                said += new
            case CallStart(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case CallArguments(index, new):
                assert index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + new)
    return thought, said, calls
