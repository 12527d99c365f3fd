"""Answers as JSON, written piece by piece: however large one is, nobody else's answer waits for it.

json.dumps of two million numbers holds Python's lock for 2 s. Here a piece has a few hundred values; a large answer is
written by a thread of low priority, which lets go of the lock after each piece, and sent as it is written.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
from fastapi.responses import Response

from seventy.server.backend import PREPARING
from seventy.server.streams import Client, EventStream, named_event

# A piece has at most twice as many values; so many letters of a text count as one.
VALUES, _LETTERS = 256, 64
# Answers of fewer pieces are written at once: a vector of 4000 numbers, in some milliseconds.
LARGE_PIECES = 16
# What is sent at once.
_BYTES = 1 << 16
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def json_answer(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with the JSON of a value, see `json_pieces`: a small one whole, a large one as it is written."""
    pieces = json_pieces(value)
    begun = list(islice(pieces, LARGE_PIECES))
    if len(begun) < LARGE_PIECES:
        return Response(b"".join(begun), headers=headers, media_type="application/json")
    client = Client()
    return EventStream(_written(client, chain(begun, pieces)), [client], "application/json", headers)


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value in pieces of about VALUES values.

    Beside what json.dumps takes, a value may hold arrays of numpy, and iterators that stand for lists: what they yield
    is made when it is written. Keys are texts.
    """
    texts, size = list[str](), 0
    for text, more in _texts(value):
        texts.append(text)
        size += more
        if size >= VALUES:
            yield "".join(texts).encode("utf-8", "replace")
            texts, size = [], 0
    if texts:
        yield "".join(texts).encode("utf-8", "replace")


def _texts(value: Any) -> Iterator[tuple[str, int]]:
    """Yield the JSON of a value in texts, with the number of values that each has: VALUES at most."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        between = ""
        yield "[", 0
        for at in range(0, len(value), VALUES):
            some = value[at : at + VALUES].tolist()
            yield between + _encode(some)[1:-1], len(some)
            between = ","
        yield "]", 0
    elif (size := _size(value)) <= VALUES:
        yield _encode(value), size
    elif isinstance(value, str):
        yield '"', 0
        for at in range(0, len(value), VALUES * _LETTERS):
            yield _encode(value[at : at + VALUES * _LETTERS])[1:-1], VALUES
        yield '"', 0
    elif isinstance(value, dict):
        before = "{"
        for key, one in value.items():
            yield f"{before}{_encode(key)}:", 1
            yield from _texts(one)
            before = ","
        yield "}", 0
    else:
        before = "["
        for one in value:
            yield before, 0
            yield from _texts(one)
            before = ","
        yield "[]" if before == "[" else "]", 0


def _size(value: Any) -> int:
    """How many values there are in one, counted up to a few more than VALUES; an iterator has too many."""
    if value is None or isinstance(value, int | float):
        return 1
    if isinstance(value, str):
        return 1 + len(value) // _LETTERS
    if not isinstance(value, list | tuple | dict):
        return VALUES + 1
    size = 1 + len(value)
    for one in value.values() if isinstance(value, dict) else value:
        if size > VALUES:
            break
        size += _size(one)
    return size


async def json_bytes(value: Any) -> bytes:
    """Return the JSON of a value, see `json_pieces`."""
    return b"".join([data async for data in _written(Client(), json_pieces(value))])


async def json_event(value: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Yield a server-sent event named after its `type`: a small one whole, a large one as it is written."""
    if _size(value) <= VALUES:
        yield named_event(value)
        return
    head = f"event: {value['type']}\ndata: ".encode()
    async for data in _written(Client(), json_pieces(value)):
        yield head + data
        head = b""
    yield b"\n\n"


async def _written(client: Client, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while not client.gone and (data := await loop.run_in_executor(PREPARING, _some, pieces)):
        yield data


def _some(pieces: Iterable[bytes]) -> bytes:
    """Return the next pieces, about as many bytes as are sent at once."""
    some, size = list[bytes](), 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= _BYTES:
            break
        # Lets go of Python's lock.
        time.sleep(0)
    return b"".join(some)
