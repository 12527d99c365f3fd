"""Says how much there is in a JSON body, in a process of its own; see large.py.

Run as a script, so that nothing of seventy is loaded: a line with the body's length and the body on stdin, a line of
JSON on stdout.
"""

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

MAX_MEMORY_BYTES = 1 << 30
# What of a request becomes its prompt.
_PROMPTS = ("messages", "prompt", "input", "content", "system", "instructions", "suffix", "input_suffix")
# What a value costs beside its text.
_VALUE = 8
_END_OF_WORD = re.compile(rb"[^ ] ")


class Size:
    """The size of a text: its bytes, its word ends, and the number of token ids given beside it."""

    def __init__(self) -> None:
        self.bytes = self.words = self.ids = 0

    def add(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.bytes += len(data)
        self.words += len(_END_OF_WORD.findall(data))


def weight(value: Any) -> int:
    """Estimate a value's bytes as JSON."""
    total, left = 0, [value]
    while left:
        one = left.pop()
        total += _VALUE
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            total += sum(map(len, one))
            left += one.values()
        elif isinstance(one, list):
            left += one
    return total


def prompts(value: Any) -> Iterator[tuple[Size, int]]:
    """Yield the prompts of a request field as their size and the count of values that are not prompts.

    A list of messages is one prompt, a list of texts is several.
    """
    size = Size()
    # Of a million ids, fast.
    types = set(map(type, value)) if isinstance(value, list) else set()
    if int in types:
        size.ids = len(value)
        for part in value if str in types else ():
            if isinstance(part, str):
                size.add(part)
        yield size, sum(weight(part) for part in value if isinstance(part, list | dict)) if types - {int, str} else 0
    elif types and types <= {str, list}:
        for part in value:
            yield from prompts(part)
    elif isinstance(value, list):
        yield size, sum(_message(part, size) for part in value)
    elif isinstance(value, dict):
        yield size, _message(value, size)
    elif isinstance(value, str):
        size.add(value)
        yield size, _VALUE


def _message(message: Any, size: Size) -> int:
    """Add the text of a message, which is sure to be in the prompt; return what else it holds."""
    if not isinstance(message, dict):
        return weight(message)
    content = message.get("content", message.get("prompt_string"))
    rest = weight({key: value for key, value in message.items() if value is not content})
    if isinstance(content, str):
        # Templates take off what stands around it.
        size.add(content.strip())
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                size.add(part["text"].strip())
            # Pictures and their like are refused by their own name.
            rest += _VALUE * (1 + len(part)) if isinstance(part, dict) else weight(part)
    return rest


def _texts(documents: Any) -> Any:
    """Documents of a reranking: those that are objects with a text and nothing else as that text."""
    if not isinstance(documents, list):
        return documents
    return [one["text"] if isinstance(one, dict) and one.keys() == {"text"} else one for one in documents]


def weigh(body: bytes) -> dict[str, Any]:
    """Return the error of a body; or its model, the largest prompt by each measure, and its largest other field."""
    try:
        data = json.loads(body)
    except MemoryError:
        return {"wrong": "it has too many values"}
    except RecursionError:
        return {"wrong": "it is nested too deeply"}
    except ValueError as error:
        return {"wrong": str(error)[:200]}
    if not isinstance(data, dict):
        return {"wrong": "it is no object"}
    most, heaviest = Size(), ("", 0)
    # Of a reranking each document is a prompt; of a chat they may be anything.
    names = (*_PROMPTS, "query", "documents", "texts") if isinstance(data.get("query"), str) else _PROMPTS
    for name, value in data.items():
        if name in names:
            rest = 0
            for size, other in prompts(_texts(value) if name == "documents" else value):
                most.bytes, most.words = max(most.bytes, size.bytes), max(most.words, size.words)
                most.ids, rest = max(most.ids, size.ids), rest + other
        else:
            rest = len(name) + weight(value)
        heaviest = max(heaviest, (name[:64], rest), key=lambda pair: pair[1])
    model = data.get("model")
    about = {"model": model if isinstance(model, str) else None, "field": heaviest[0], "weight": heaviest[1]}
    # OpenAI's word for a conversation whose oldest turns may be left out, and those for documents that may be cut.
    about["shortened"] = data.get("truncation") == "auto" or (
        names != _PROMPTS and bool(data.get("truncate") or data.get("max_tokens_per_doc"))
    )
    return about | {"bytes": most.bytes, "words": most.words, "ids": most.ids}


def main() -> None:
    # Ctrl-C is for the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    for line in sys.stdin.buffer:
        try:
            result = weigh(sys.stdin.buffer.read(int(line)))
        except MemoryError:
            result = {"wrong": "it has too many values"}
        sys.stdout.buffer.write(json.dumps(result).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
