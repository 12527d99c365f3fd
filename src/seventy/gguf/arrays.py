"""Arrays of a GGUF file's metadata, kept as bytes and decoded when they are asked for."""

import struct
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

LENGTH = struct.Struct("<Q")
SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}


class GGUFArray:
    """An array of the metadata, decoded anew at each access and never kept decoded."""

    __slots__ = ("_buffer", "_count", "_end", "_offsets", "_start", "type")

    def __init__(self, type: int, count: int, buffer: bytes, start: int, end: int, offsets: array | None) -> None:
        self.type = type
        self._count = count
        self._buffer = buffer
        self._start = start
        self._end = end
        self._offsets = offsets

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.strings() if self._offsets is not None else self.numpy().tolist())

    def __getitem__(self, index: int) -> Any:
        index = range(self._count)[index]
        if self._offsets is None:
            return self.numpy()[index].item()
        start = self._offsets[index] + 8
        (length,) = LENGTH.unpack_from(self._buffer, start - 8)
        return str(self._buffer[start : start + length], "utf-8", "replace")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<{self._count} x GGUF type {self.type}>"

    def strings(self) -> list[str]:
        """Return all strings; bytes that are not UTF-8 become U+FFFD. Raises TypeError if they are numbers."""
        if self._offsets is None:
            raise TypeError(f"an array of GGUF type {self.type} holds no strings")
        # All at once: lengths out, a byte no string has in their place, and split. String by string takes 4x as long.
        starts = np.frombuffer(self._offsets, np.uint32) - self._start
        data = np.frombuffer(self._buffer, np.uint8, self._end - self._start, self._start)
        is_text = np.ones(len(data), bool)
        for byte in range(8):
            is_text[starts + byte] = False
        used = np.bincount(data[is_text], minlength=128)
        separator = int(np.argmin(used[:128]))
        if used[separator] or not self._count:
            return [self[i] for i in range(self._count)]
        data = data.copy()
        data[starts] = separator
        is_text[starts] = True
        return data[is_text][1:].tobytes().decode("utf-8", "replace").split(chr(separator))

    def numpy(self) -> np.ndarray:
        """Return all numbers as a read-only view. Raises TypeError if they are strings."""
        if self._offsets is not None:
            raise TypeError("an array of strings holds no numbers")
        dtype = np.dtype(SCALARS[self.type].format).newbyteorder("<")
        return np.frombuffer(self._buffer, dtype, self._count, self._start)
