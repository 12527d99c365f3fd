"""GGUF files, read with distrust: a model as metadata and the places of its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
Every count is checked against the size of the file before it is believed, arrays stay undecoded until they are
asked for, and a file that is not what it says is one SeventyError. Nothing is memory mapped: a file that shrinks
while it is read is an error too, not a crash. It does not know what the metadata or the tensors mean.
"""

import os
import re
import stat
import struct
import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from seventy.engine.ggml_types import GGML_TYPES, REMOVED_GGML_TYPES
from seventy.errors import SeventyError

# Far above any model there is (a 262k vocabulary takes 15 MB of header, the most tensors of any model are about
# 50 000), low enough that a hostile header costs neither minutes nor gigabytes.
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_STRINGS = 1 << 22
MAX_SHARDS = 4096
MAX_DIMENSIONS = 4

_FIRST_READ_BYTES = 1 << 20
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_SCALARS = {
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
_SHARD_NAME = re.compile(r"^(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)
_AGAIN = "download it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor's bytes are; `shape` is numpy's order (rows first), `type` a key of GGML_TYPES."""

    name: str
    shape: tuple[int, ...]
    type: int
    file: int
    offset: int
    nbytes: int


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
        (length,) = _U64.unpack_from(self._buffer, start - 8)
        return str(self._buffer[start : start + length], "utf-8", "replace")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<{self._count} x GGUF type {self.type}>"

    @property
    def is_strings(self) -> bool:
        return self._offsets is not None

    def strings(self) -> list[str]:
        """All strings; bytes that are not UTF-8 become U+FFFD. TypeError when they are numbers."""
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
        """All numbers, as a read-only view. TypeError when they are strings."""
        if self._offsets is not None:
            raise TypeError("an array of strings holds no numbers")
        dtype = np.dtype(_SCALARS[self.type].format).newbyteorder("<")
        return np.frombuffer(self._buffer, dtype, self._count, self._start)


class GGUF:
    """A model file, or all files of a split model (`-00001-of-0000N`, any of which may be named) as one.

    `metadata` is the first file's, with arrays as GGUFArray; `tensors` is those of all files, by name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.paths: list[Path] = []
        self.metadata: Mapping[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._files: list[int] = []
        self._sizes: list[int] = []
        self._seek_lock = threading.Lock()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def pread(self, info: TensorInfo, start: int, nbytes: int, out: np.ndarray | None = None) -> np.ndarray:
        """`nbytes` bytes of a tensor from its byte `start` on, into `out` (uint8, contiguous) when given.

        Safe from several threads at once. SeventyError when the file is shorter than it was.
        """
        assert 0 <= start <= start + nbytes <= info.nbytes, f"{info.name}: {start}+{nbytes}"
        if out is None:
            out = np.empty(nbytes, np.uint8)
        assert out.dtype == np.uint8 and out.flags.c_contiguous and out.size == nbytes, f"{out.dtype} {out.shape}"
        view, position, path = out.reshape(-1).data, info.offset + start, self.paths[info.file]
        while view:
            try:
                got = self._read_into(self._files[info.file], view, position)
            except OSError as error:
                raise SeventyError(f"cannot read {path}: {error.strerror}; check the disk it is on") from error
            if got == 0:
                raise SeventyError(f"{path} became shorter while it was read (ends at byte {position}); {_AGAIN}")
            view, position = view[got:], position + got
        return out

    def read(self, info: TensorInfo) -> np.ndarray:
        """A tensor's bytes as uint8."""
        return self.pread(info, 0, info.nbytes)

    def fileno(self, info: TensorInfo) -> int:
        return self._files[info.file]

    def _read_into(self, file: int, view: memoryview, position: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(file, [view], position)
        with self._seek_lock:
            os.lseek(file, position, os.SEEK_SET)
            data = os.read(file, min(len(view), 1 << 24))
        view[: len(data)] = data
        return len(data)

    def _open(self) -> None:
        paths = [self.path]
        name = _SHARD_NAME.match(self.path.name)
        metadata, tensors = self._open_file(self.path)
        count = _split_count(self.path, metadata)
        if count > 1:
            if name is None or int(name["count"]) != count:
                raise SeventyError(
                    f"{self.path} is one of {count} files of a split model but is not named like one: "
                    f"name them NAME-00001-of-{count:05}.gguf and so on"
                )
            paths = [
                self.path.with_name(f"{name['prefix']}-{number:05}-of-{count:05}.gguf")
                for number in range(1, count + 1)
            ]
            missing = [path.name for path in paths if not path.exists()]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise SeventyError(
                    f"{self.path} is one of {count} files and {missing[0]}{more} is missing: "
                    f"download all {count} into {self.path.parent}"
                )
            self.close()
            self._sizes.clear()
            metadata, tensors = self._open_file(paths[0])
        self.paths, self.metadata = paths, metadata
        self._add(tensors)
        for path in paths[1:]:
            shard, tensors = self._open_file(path)
            if _split_count(path, shard) != count or shard.get("split.no") != len(self._files) - 1:
                raise SeventyError(
                    f"{path} says it is file {shard.get('split.no')} of {shard.get('split.count')} (counted from 0), "
                    f"not {len(self._files) - 1} of {count}: it belongs to another model; {_AGAIN}"
                )
            self._add(tensors)
        total = metadata.get("split.tensors.count")
        if count > 1 and total is not None and total != len(self.tensors):
            raise SeventyError(
                f"{paths[0]} says {total} tensors in {count} files, there are {len(self.tensors)}; download them again"
            )

    def _open_file(self, path: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
        try:
            # Looked at before it is opened: opening a pipe or a device could wait for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                kind = "a folder" if path.is_dir() else "not a regular file"
                raise SeventyError(f"{path} is {kind}; give a .gguf file")
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise SeventyError(f"{path} does not exist; check the path, or see: seventy models") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SeventyError(f"cannot open {path}: {reason}; check the path and its permissions") from None
        self._files.append(file)
        self._sizes.append(os.fstat(file).st_size)
        header = _Header(path, file, self._sizes[-1])
        return header.read(len(self._files) - 1)

    def _add(self, tensors: list[TensorInfo]) -> None:
        for info in tensors:
            if info.name in self.tensors:
                raise SeventyError(
                    f"{self.paths[info.file]} has a tensor {_shown(info.name)} for the second time; {_AGAIN}"
                )
            self.tensors[info.name] = info


class _Header:
    """Reads a file from its start; `_at` is the next byte, `_buffer` what was read so far."""

    def __init__(self, path: Path, file: int, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._buffer = b""
        self._at = 0

    def read(self, number: int) -> tuple[dict[str, Any], list[TensorInfo]]:
        n_tensors, n_keys = self._counts()
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self._string("a metadata key")
            if key in metadata:
                raise self._broken(f"has the metadata key {_shown(key)} twice")
            metadata[key] = self._value(key, self._number(_U32))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 30 or alignment & (alignment - 1):
            raise self._broken(f"has general.alignment {_shown(alignment)}, which is not a power of two")
        entries = [self._tensor() for _ in range(n_tensors)]
        data = -(-self._at // alignment) * alignment
        tensors = []
        for name, shape, type, offset, nbytes in entries:
            if offset % alignment:
                raise self._broken(f"has {_shown(name)} at offset {offset}, not a multiple of {alignment}")
            if data + offset + nbytes > self._size:
                raise self._broken(
                    f"is cut short: {_shown(name)} ends at byte {data + offset + nbytes} and the file at {self._size}"
                )
            tensors.append(TensorInfo(name, shape, type, number, data + offset, nbytes))
        by_offset = sorted(tensors, key=lambda info: info.offset)
        for before, after in pairwise(by_offset):
            if before.offset + before.nbytes > after.offset:
                raise self._broken(f"has {_shown(before.name)} and {_shown(after.name)} in the same bytes")
        return metadata, tensors

    def _counts(self) -> tuple[int, int]:
        start = self._peek(512)
        if start[:4] != b"GGUF":
            raise SeventyError(f"{self._path} is not a GGUF file: {_what_it_is(start)}")
        self._at = 4
        version = self._number(_U32)
        if version not in (2, 3):
            if version > 0xFFFF and version & 0xFFFF == 0:
                raise SeventyError(
                    f"{self._path} is big endian, for other machines; download the little-endian file of this model"
                )
            known = "an old GGUF version" if version < 2 else "a GGUF version of the future or broken"
            raise SeventyError(
                f"{self._path} is {known} ({version}); versions 2 and 3 work: get a newer file or seventy"
            )
        n_tensors, n_keys = self._number(_U64), self._number(_U64)
        # A tensor takes at least 24 bytes of header, a key 13.
        room = min(self._size, MAX_HEADER_BYTES)
        if n_tensors > min(MAX_TENSORS, room // 24):
            raise self._broken(f"says {n_tensors} tensors in {self._size} bytes")
        if n_keys > min(MAX_KEYS, room // 13):
            raise self._broken(f"says {n_keys} metadata keys in {self._size} bytes")
        return n_tensors, n_keys

    def _value(self, key: str, type: int) -> Any:
        if type == _STRING:
            return self._string(f"metadata {_shown(key)}", "replace")
        if type == _ARRAY:
            return self._array(key)
        if type not in _SCALARS:
            raise self._broken(f"has a value of unknown type {type} at {_shown(key)}")
        return self._number(_SCALARS[type])

    def _array(self, key: str) -> GGUFArray:
        type, count = self._number(_U32), self._number(_U64)
        start = self._at
        if type in _SCALARS:
            self._skip(count * _SCALARS[type].size, f"{count} numbers at {_shown(key)}")
            return GGUFArray(type, count, self._buffer, start, self._at, None)
        if type != _STRING:
            raise self._broken(f"has an array of unknown type {type} at {_shown(key)}")
        if count > MAX_STRINGS or count * 8 > self._size - start:
            raise self._broken(f"says {count} strings at {_shown(key)} in {self._size} bytes")
        offsets = self._walk_strings(key, count)
        return GGUFArray(type, count, self._buffer, start, self._at, offsets)

    def _walk_strings(self, key: str, count: int) -> array:
        """Steps over `count` strings; their offsets, each that of its 8 bytes of length."""
        offsets = array("I")
        at, unpack, append = self._at, _U64.unpack_from, offsets.append
        buffer, end = self._buffer, len(self._buffer)
        for _ in range(count):
            if at + 8 > end:
                self._need(at + 8, f"{count} strings at {_shown(key)}")
                buffer, end = self._buffer, len(self._buffer)
            append(at)
            at += 8 + unpack(buffer, at)[0]
        self._need(at, f"{count} strings at {_shown(key)}")
        self._at = at
        return offsets

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int, int]:
        name = self._string("a tensor name")
        n_dimensions = self._number(_U32)
        if n_dimensions > MAX_DIMENSIONS:
            raise self._broken(f"has {_shown(name)} with {n_dimensions} dimensions")
        shape = tuple(self._number(_U64) for _ in range(n_dimensions))[::-1]
        type, offset = self._number(_U32), self._number(_U64)
        if type in REMOVED_GGML_TYPES:
            raise SeventyError(
                f"{self._path} has {_shown(name)} in {REMOVED_GGML_TYPES[type]}, a type that was withdrawn; "
                f"get a file in another quantisation, Q4_K_M say"
            )
        if type not in GGML_TYPES:
            raise self._broken(f"has {_shown(name)} in the unknown type {type}")
        known = GGML_TYPES[type]
        elements = prod(shape)
        if not 0 < elements < 1 << 62:
            raise self._broken(f"has {_shown(name)} of impossible shape {list(shape)}")
        if (shape[-1] if shape else 1) % known.block:
            raise self._broken(f"has {_shown(name)} of shape {list(shape)} in {known.name}, blocks of {known.block}")
        return name, shape, type, offset, elements // known.block * known.nbytes

    def _string(self, what: str, errors: str = "strict") -> str:
        length = self._number(_U64)
        start = self._at
        self._skip(length, f"{length} bytes of {what}")
        try:
            return str(self._buffer[start : self._at], "utf-8", errors)
        except UnicodeDecodeError:
            raise self._broken(f"has {what} that is not text at byte {start}") from None

    def _number(self, layout: struct.Struct) -> Any:
        start = self._at
        self._skip(layout.size, "the next number")
        return layout.unpack_from(self._buffer, start)[0]

    def _skip(self, nbytes: int, what: str) -> None:
        self._need(self._at + nbytes, what)
        self._at += nbytes

    def _need(self, end: int, what: str) -> None:
        """Reads up to byte `end` at least; refuses when the file cannot hold it."""
        if end <= len(self._buffer):
            return
        if end > self._size:
            raise self._broken(f"is cut short or broken: {what} would end at byte {end} of {self._size}")
        if end > MAX_HEADER_BYTES:
            raise self._broken(f"has a header of more than {MAX_HEADER_BYTES >> 20} MB ({what})")
        self._buffer = self._peek(min(self._size, MAX_HEADER_BYTES, max(_FIRST_READ_BYTES, 2 * end)))
        if end > len(self._buffer):
            raise self._broken(f"became shorter while it was read (ends at byte {len(self._buffer)})")

    def _peek(self, nbytes: int) -> bytes:
        try:
            with open(self._file, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return file.read(nbytes) or b""
        except OSError as error:
            raise SeventyError(f"cannot read {self._path}: {error.strerror}; check the disk it is on") from None

    def _broken(self, what: str) -> SeventyError:
        return SeventyError(f"{self._path} {what}; {_AGAIN}")


def _split_count(path: Path, metadata: Mapping[str, Any]) -> int:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
        raise SeventyError(f"{path} says it is one of {_shown(count)} files; {_AGAIN}")
    return max(count, 1)


def _what_it_is(start: bytes) -> str:
    if not start:
        return f"it is empty; {_AGAIN}"
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer to one; fetch the file itself (git lfs pull)"
    if start.lstrip()[:1] == b"<":
        return "it is a web page; use the link of the file itself"
    if start[:4] in (b"lmgg", b"tjgg", b"algg", b"fmgg"):
        return "it is a ggml file from before August 2023; get the model as GGUF"
    if start[:2] == b"PK" or start[8:9] == b"{":
        return "it looks like a PyTorch or safetensors file; get the model as GGUF"
    return f"it starts with {start[:4]!r}; {_AGAIN}, or get the model as GGUF"


def _shown(value: object) -> str:
    """What a hostile file may put into our sentence: one line, not long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
