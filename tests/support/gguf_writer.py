"""Writes GGUF files for tests, well-formed or, where a test says so, not."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_LAYOUTS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class Typed:
    """A metadata value in a type other than the one Python's would get."""

    def __init__(self, type: int, value: Any, element: int = U32) -> None:
        self.type, self.value, self.element = type, value, element


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """Type and value, as behind a key."""
    match item:
        case Typed():
            return struct.pack("<I", item.type) + bare(item.type, item.value, item.element)
        case bool():
            return value(Typed(BOOL, item))
        case int():
            return value(Typed(U32, item))
        case float():
            return value(Typed(F32, item))
        case str() | bytes():
            return value(Typed(STRING, item))
        case list():
            first = item[0] if item else 0
            element = STRING if isinstance(first, (str, bytes)) else F32 if isinstance(first, float) else I32
            return value(Typed(ARRAY, item, element))
    raise TypeError(item)


def bare(type: int, item: Any, element: int) -> bytes:
    if type == STRING:
        return string(item)
    if type == ARRAY:
        return struct.pack("<IQ", element, len(item)) + b"".join(bare(element, one, U32) for one in item)
    return struct.pack(_LAYOUTS[type], item)


def tensor_entry(name: str | bytes, dimensions: Sequence[int], type: int, offset: int) -> bytes:
    """`dimensions` in the file's order: the row length first."""
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return string(name) + sizes + struct.pack("<IQ", type, offset)


def header(n_tensors: int, n_keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def build(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Sequence[int], int, bytes]] | None = None, version: int = 3
) -> bytes:
    """A file's bytes; `tensors` is name -> (dimensions, ggml type, data)."""
    tensors = tensors or {}
    parts = [header(len(tensors), len(metadata), version)]
    parts += [string(key) + value(item) for key, item in metadata.items()]
    offset, data = 0, b""
    for name, (dimensions, type, content) in tensors.items():
        parts.append(tensor_entry(name, dimensions, type, offset))
        data += content + bytes(-len(content) % ALIGNMENT)
        offset = len(data)
    head = b"".join(parts)
    return head + bytes(-len(head) % ALIGNMENT) + data


def write(path: Path, *args: Any, **kwargs: Any) -> Path:
    path.write_bytes(build(*args, **kwargs))
    return path
