"""The header of a GGUF file, read with distrust: counts are checked against the file's size before they are believed.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import struct
from array import array
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from seventy.errors import SeventyError
from seventy.gguf.arrays import LENGTH, SCALARS, GGUFArray
from seventy.gguf.tensors import GGML_TYPES, IK_LLAMA_CPP_TYPES, REMOVED_GGML_TYPES, TensorInfo
from seventy.language import t

# Far above any model there is (a 262k vocabulary takes 15 MB of header, the most tensors of any model are about
# 50 000), low enough that a hostile header costs neither minutes nor gigabytes.
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_STRINGS = 1 << 22
MAX_DIMENSIONS = 4

AGAIN = t("download it again")
_FIRST_READ_BYTES = 1 << 20
_U32 = struct.Struct("<I")
_STRING, _ARRAY = 8, 9


class Header:
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
            key = self._string(t("a metadata key"))
            if key in metadata:
                raise self._broken(t("has the metadata key {key} twice", key=shown(key)))
            metadata[key] = self._value(key, self._number(_U32))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 30 or alignment & (alignment - 1):
            raise self._broken(t(
                "has general.alignment {alignment}, which is not a power of two",
                alignment=shown(alignment),
            ))
        entries = [self._tensor() for _ in range(n_tensors)]
        data = -(-self._at // alignment) * alignment
        tensors = []
        for name, shape, type, offset, nbytes in entries:
            if offset % alignment:
                raise self._broken(t(
                    "has {name} at offset {offset}, not a multiple of {alignment}",
                    name=shown(name), offset=offset, alignment=alignment,
                ))
            if data + offset + nbytes > self._size:
                raise self._broken(
                    t(
                        "is cut short: {name} ends at byte {data} and the file at {size}",
                        name=shown(name), data=data + offset + nbytes, size=self._size,
                    )
                )
            tensors.append(TensorInfo(name, shape, type, number, data + offset, nbytes))
        by_offset = sorted(tensors, key=lambda info: info.offset)
        for before, after in pairwise(by_offset):
            if before.offset + before.nbytes > after.offset:
                raise self._broken(t(
                    "has {name} and {name_2} in the same bytes",
                    name=shown(before.name), name_2=shown(after.name),
                ))
        return metadata, tensors

    def _counts(self) -> tuple[int, int]:
        start = self._peek(512)
        if start[:4] != b"GGUF":
            raise SeventyError("{path} is not a GGUF file: {start}", path=self._path, start=_what_it_is(start))
        self._at = 4
        version = self._number(_U32)
        if version not in (2, 3):
            if version > 0xFFFF and version & 0xFFFF == 0:
                raise SeventyError(
                    "{path} is big endian, for other machines; download the little-endian file of this model",
                    path=self._path,
                )
            known = t("an old GGUF version") if version < 2 else t("a GGUF version of the future or broken")
            raise SeventyError(
                "{path} is {known} ({version}); versions 2 and 3 work: get a newer file or seventy",
                path=self._path, known=known, version=version,
            )
        n_tensors, n_keys = self._number(LENGTH), self._number(LENGTH)
        # A tensor takes at least 24 bytes of header, a key 13.
        room = min(self._size, MAX_HEADER_BYTES)
        if n_tensors > min(MAX_TENSORS, room // 24):
            raise self._broken(t("says {n_tensors} tensors in {size} bytes", n_tensors=n_tensors, size=self._size))
        if n_keys > min(MAX_KEYS, room // 13):
            raise self._broken(t("says {n_keys} metadata keys in {size} bytes", n_keys=n_keys, size=self._size))
        return n_tensors, n_keys

    def _value(self, key: str, type: int) -> Any:
        if type == _STRING:
            return self._string(f"metadata {shown(key)}", "replace")
        if type == _ARRAY:
            return self._array(key)
        if type not in SCALARS:
            raise self._broken(t("has a value of unknown type {type} at {key}", type=type, key=shown(key)))
        return self._number(SCALARS[type])

    def _array(self, key: str) -> GGUFArray:
        type, count = self._number(_U32), self._number(LENGTH)
        start = self._at
        if type in SCALARS:
            self._skip(count * SCALARS[type].size, t("{count} numbers at {key}", count=count, key=shown(key)))
            return GGUFArray(type, count, self._buffer, start, self._at, None)
        if type != _STRING:
            raise self._broken(t("has an array of unknown type {type} at {key}", type=type, key=shown(key)))
        if count > MAX_STRINGS or count * 8 > self._size - start:
            raise self._broken(t(
                "says {count} strings at {key} in {size} bytes",
                count=count, key=shown(key), size=self._size,
            ))
        offsets = self._walk_strings(key, count)
        return GGUFArray(type, count, self._buffer, start, self._at, offsets)

    def _walk_strings(self, key: str, count: int) -> array:
        """Steps over `count` strings; their offsets, each that of its 8 bytes of length."""
        offsets = array("I")
        at, unpack, append = self._at, LENGTH.unpack_from, offsets.append
        buffer, end = self._buffer, len(self._buffer)
        for _ in range(count):
            if at + 8 > end:
                self._need(at + 8, t("{count} strings at {key}", count=count, key=shown(key)))
                buffer, end = self._buffer, len(self._buffer)
            append(at)
            at += 8 + unpack(buffer, at)[0]
        self._need(at, t("{count} strings at {key}", count=count, key=shown(key)))
        self._at = at
        return offsets

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int, int]:
        name = self._string(t("a tensor name"))
        n_dimensions = self._number(_U32)
        if n_dimensions > MAX_DIMENSIONS:
            raise self._broken(t(
                "has {name} with {n_dimensions} dimensions",
                name=shown(name), n_dimensions=n_dimensions,
            ))
        shape = tuple(self._number(LENGTH) for _ in range(n_dimensions))[::-1]
        type, offset = self._number(_U32), self._number(LENGTH)
        if type in REMOVED_GGML_TYPES:
            raise SeventyError(
                "{path} has {name} in {removed_ggml_types}, a type that was withdrawn; get a file in another "
                "quantisation, Q4_K_M say",
                path=self._path, name=shown(name), removed_ggml_types=REMOVED_GGML_TYPES[type],
            )
        if type in IK_LLAMA_CPP_TYPES:
            raise SeventyError(
                "{path} has {name} in {ik_llama_cpp_types}, which only ik_llama.cpp knows; get a file in a "
                "quantisation of llama.cpp's, IQ2_M or Q4_K_M say",
                path=self._path, name=shown(name), ik_llama_cpp_types=IK_LLAMA_CPP_TYPES[type],
            )
        if type not in GGML_TYPES:
            raise SeventyError(
                "{path} has {name} in the unknown type {type}: it is broken, or made by another program or a later "
                "one; get it again, or a file in a quantisation of llama.cpp's, Q4_K_M say",
                path=self._path, name=shown(name), type=type,
            )
        known = GGML_TYPES[type]
        elements = prod(shape)
        if not 0 < elements < 1 << 62:
            raise self._broken(t("has {name} of impossible shape {shape}", name=shown(name), shape=list(shape)))
        if (shape[-1] if shape else 1) % known.block:
            raise self._broken(t(
                "has {name} of shape {shape} in {name_2}, blocks of {block}",
                name=shown(name), shape=list(shape), name_2=known.name, block=known.block,
            ))
        return name, shape, type, offset, elements // known.block * known.nbytes

    def _string(self, what: str, errors: str = "strict") -> str:
        length = self._number(LENGTH)
        start = self._at
        self._skip(length, t("{length} bytes of {what}", length=length, what=what))
        try:
            return str(self._buffer[start : self._at], "utf-8", errors)
        except UnicodeDecodeError:
            raise self._broken(t("has {what} that is not text at byte {start}", what=what, start=start)) from None

    def _number(self, layout: struct.Struct) -> Any:
        start = self._at
        self._skip(layout.size, t("the next number"))
        return layout.unpack_from(self._buffer, start)[0]

    def _skip(self, nbytes: int, what: str) -> None:
        self._need(self._at + nbytes, what)
        self._at += nbytes

    def _need(self, end: int, what: str) -> None:
        """Reads up to byte `end` at least; refuses when the file cannot hold it."""
        if end <= len(self._buffer):
            return
        if end > self._size:
            raise self._broken(t(
                "is cut short or broken: {what} would end at byte {end} of {size}",
                what=what, end=end, size=self._size,
            ))
        if end > MAX_HEADER_BYTES:
            raise self._broken(t(
                "has a header of more than {max_header_bytes} MB ({what})",
                max_header_bytes=MAX_HEADER_BYTES >> 20, what=what,
            ))
        self._buffer = self._peek(min(self._size, MAX_HEADER_BYTES, max(_FIRST_READ_BYTES, 2 * end)))
        if end > len(self._buffer):
            raise self._broken(t(
                "became shorter while it was read (ends at byte {buffer_count})",
                buffer_count=len(self._buffer),
            ))

    def _peek(self, nbytes: int) -> bytes:
        try:
            with open(self._file, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return file.read(nbytes) or b""
        except OSError as error:
            raise SeventyError(
                "cannot read {path}: {reason}; check the disk it is on",
                path=self._path, reason=error.strerror,
            ) from None

    def _broken(self, what: str) -> SeventyError:
        return SeventyError("{path} {what}; {again}", path=self._path, what=what, again=AGAIN)


def _what_it_is(start: bytes) -> str:
    if not start:
        return t("it is empty; {again}", again=AGAIN)
    if start.startswith(b"version https://git-lfs"):
        return t("it is a git-lfs pointer to one; fetch the file itself (git lfs pull)")
    if start.lstrip()[:1] == b"<":
        return t("it is a web page; use the link of the file itself")
    if start[:4] in (b"lmgg", b"tjgg", b"algg", b"fmgg"):
        return t("it is a ggml file from before August 2023; get the model as GGUF")
    if start[:2] == b"PK" or start[8:9] == b"{":
        return t("it looks like a PyTorch or safetensors file; get the model as GGUF")
    return t("it starts with {start!r}; {again}, or get the model as GGUF", start=start[:4], again=AGAIN)


def shown(value: object) -> str:
    """Shorten a value from an untrusted file to one short line, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else t("{text}... ({text_count} characters)", text=text[:60], text_count=len(text))
