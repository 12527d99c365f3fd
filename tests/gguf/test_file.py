import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf import GGUFReader, GGUFWriter
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.gguf.tensors import GGML_TYPES
from tests.support import gguf_writer as writer
from tests.support.gguf_writer import Typed

METADATA = {
    "general.architecture": "llama",
    "a.u8": Typed(0, 255),
    "a.i8": Typed(1, -128),
    "a.u16": Typed(2, 65535),
    "a.i16": Typed(3, -5),
    "a.u32": 7,
    "a.i32": Typed(5, -7),
    "a.f32": 0.5,
    "a.yes": True,
    "a.u64": Typed(10, 1 << 60),
    "a.i64": Typed(11, -(1 << 60)),
    "a.f64": Typed(12, 0.1),
    "a.text": "70B 模型 🙂",
    "a.strings": ["", "a", "é", "日本"],
    "a.floats": [0.5, -1.0],
    "a.ints": [3, -1, 2],
    "a.none": Typed(writer.ARRAY, [], writer.STRING),
}
TENSORS = {
    "one": ((4, 2), 0, bytes(range(32))),
    "two": ((32, 3), 8, bytes(range(102))),
    "scalar": ((), 0, b"abcd"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return writer.write(tmp_path / "model.gguf", METADATA, TENSORS)


def refuse(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(SeventyError) as error:
        GGUF(path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors(tmp_path: Path, version: int) -> None:
    path = writer.write(tmp_path / "model.gguf", METADATA, TENSORS, version=version)
    with GGUF(path) as model:
        meta = model.metadata
        assert [meta[f"a.{key}"] for key in ("u8", "i8", "u16", "i16", "u32", "i32")] == [255, -128, 65535, -5, 7, -7]
        assert (meta["a.u64"], meta["a.i64"], meta["a.f64"]) == (1 << 60, -(1 << 60), 0.1)
        assert (meta["a.f32"], meta["a.yes"], meta["a.text"]) == (0.5, True, "70B 模型 🙂")
        strings = meta["a.strings"]
        assert strings.strings() == list(strings) == ["", "a", "é", "日本"]
        assert (strings[3], strings[-2], len(strings)) == ("日本", "é", 4)
        assert list(meta["a.ints"]) == [3, -1, 2] and meta["a.ints"][1] == -1
        assert np.asarray(meta["a.floats"]).tolist() == [0.5, -1.0]
        assert len(meta["a.none"]) == 0 and list(meta["a.none"]) == []
        assert {name: info.shape for name, info in model.tensors.items()} == {
            "one": (2, 4),
            "two": (3, 32),
            "scalar": (),
        }
        for name, (_, type, content) in TENSORS.items():
            info = model.tensors[name]
            assert (info.type, info.nbytes, info.file) == (type, len(content), 0)
            assert model.read(info).tobytes() == content
        out = np.zeros(10, np.uint8)
        assert model.pread(model.tensors["two"], 30, 10, out) is out
        assert out.tobytes() == TENSORS["two"][2][30:40]


def test_equals_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    theirs = GGUFWriter(path, "llama")
    theirs.add_token_list(["a", "b", "日本"])
    theirs.add_token_scores([0.0, -1.5, 2.0])
    theirs.add_custom_alignment(64)
    weights = np.arange(24, dtype=np.float32).reshape(4, 6)
    theirs.add_tensor("w", weights)
    theirs.add_tensor("x", weights.astype(np.float16))
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    with GGUF(path) as model:
        assert model.metadata["tokenizer.ggml.tokens"].strings() == ["a", "b", "日本"]
        assert model.tensors["w"].shape == (4, 6)
        for tensor in GGUFReader(path).tensors:
            info = model.tensors[tensor.name]
            assert (info.offset, info.nbytes, info.type) == (tensor.data_offset, tensor.n_bytes, tensor.tensor_type)
            assert model.read(info).tobytes() == tensor.data.tobytes()


def test_type_table_equals_the_gguf_package() -> None:
    assert {int(type): size for type, size in GGML_QUANT_SIZES.items()}.items() <= {
        type: (known.block, known.nbytes) for type, known in GGML_TYPES.items()
    }.items()


def test_truncated_at_every_byte(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    with GGUF(path) as model:
        # The padding behind the last tensor may be missing: nothing is read there.
        end = max(info.offset + info.nbytes for info in model.tensors.values())
    for length in range(end):
        refuse(tmp_path / "cut.gguf", data[:length])


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs"),
        (b"<!DOCTYPE html>", "web page"),
        (b"tjgg\1\0\0\0", "ggml file from before"),
        (b"PK\3\4", "safetensors"),
        (b'\x10\0\0\0\0\0\0\0{"a"', "safetensors"),
        (b"GGML rubbish", "starts with b'GGML'"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big endian"),
        (writer.header(0, 0, 1), "old GGUF version"),
        (writer.header(0, 0, 9), "future"),
        (writer.header(1 << 63, 0), "tensors in"),
        (writer.header(0, 1 << 63), "metadata keys in"),
    ],
)
def test_not_a_model(tmp_path: Path, start: bytes, expected: str) -> None:
    assert expected in refuse(tmp_path / "x.gguf", start)


def one_key(item: bytes) -> bytes:
    return writer.header(0, 1) + writer.string("key") + item + bytes(64)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (one_key(struct.pack("<IQ", writer.STRING, 1 << 62)), "cut short"),
        (one_key(struct.pack("<IIQ", writer.ARRAY, writer.STRING, 1 << 62)), "strings at 'key'"),
        (one_key(struct.pack("<IIQQ", writer.ARRAY, writer.STRING, 2, 1 << 63)), "cut short"),
        (one_key(struct.pack("<IIQ", writer.ARRAY, writer.F32, 1 << 62)), "numbers at 'key'"),
        (one_key(struct.pack("<IIQ", writer.ARRAY, writer.ARRAY, 1)), "unknown type 9"),
        (one_key(struct.pack("<I", 13)), "unknown type 13"),
        (writer.header(0, 1) + writer.string(b"\xff") + writer.value(1), "not text"),
        (writer.header(0, 2) + 2 * (writer.string("k") + writer.value(1)), "twice"),
        (writer.build({"general.alignment": 24}), "general.alignment"),
        (writer.build({"general.alignment": 0}), "general.alignment"),
        (writer.build({"general.alignment": "32"}), "general.alignment"),
        (writer.build({"general.alignment": [32]}), "general.alignment"),
    ],
)  # fmt: skip
def test_hostile_metadata(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refuse(tmp_path / "x.gguf", data)


def entries(*entries: bytes, nbytes: int = 256) -> bytes:
    head = writer.header(len(entries), 0) + b"".join(entries)
    return head + bytes(-len(head) % 32) + bytes(nbytes)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (entries(writer.tensor_entry("t", (8,), 0, 256)), "cut short"),
        (entries(writer.tensor_entry("t", (8,), 0, 1 << 63)), "cut short"),
        (entries(writer.tensor_entry("t", (8,), 0, 8)), "not a multiple of 32"),
        (entries(writer.tensor_entry("t", (1 << 40, 1 << 40), 0, 0)), "impossible shape"),
        (entries(writer.tensor_entry("t", (1 << 32, 1 << 32), 0, 0)), "impossible shape"),
        (entries(writer.tensor_entry("t", (0,), 0, 0)), "impossible shape"),
        (entries(writer.tensor_entry("t", (1,) * 5, 0, 0)), "5 dimensions"),
        (entries(writer.tensor_entry("t", (33,), 8, 0)), "blocks of 32"),
        (entries(writer.tensor_entry("t", (8,), 999, 0)), "unknown type 999"),
        (entries(writer.tensor_entry("t", (32,), 4, 0)), "withdrawn"),
        (entries(writer.tensor_entry("t", (256,), 137, 0)), "in IQ2_K, which only ik_llama.cpp knows"),
        (entries(writer.tensor_entry("t", (256,), 212, 0)), "in Q4_K_R4, which only ik_llama.cpp knows"),
        (entries(writer.tensor_entry("t", (256,), 134, 0)), "in IQ1_BN, which only ik_llama.cpp knows"),
        (entries(writer.tensor_entry("t", (256,), 203, 0)), "_R8), which only ik_llama.cpp knows"),
        (entries(writer.tensor_entry("t", (256,), 36, 0)), "I2_S), a type that was withdrawn"),
        (entries(writer.tensor_entry("t", (256,), 43, 0)), "unknown type 43: it is broken, or made by another"),
        (entries(writer.tensor_entry("t", (8,), 0, 0), writer.tensor_entry("t", (8,), 0, 32)), "second time"),
        (entries(writer.tensor_entry("t", (9,), 0, 0), writer.tensor_entry("u", (8,), 0, 32)), "in the same bytes"),
        (entries(writer.tensor_entry("t", (8,), 0, 0), writer.tensor_entry("u", (8,), 0, 0)), "in the same bytes"),
    ],
)
def test_hostile_tensors(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refuse(tmp_path / "x.gguf", data)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, expected in [
        (tmp_path, "is a folder"),
        (tmp_path / "none.gguf", "does not exist"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "a\0b", "cannot open"),
    ]:
        with pytest.raises(SeventyError, match=expected):
            GGUF(path)


def test_without_preadv(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv")
    with GGUF(path) as model:
        assert model.read(model.tensors["two"]).tobytes() == TENSORS["two"][2]


def test_counts_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tracemalloc.start()
    for count in (1 << 20, 1 << 32, (1 << 64) - 1):
        refuse(path, writer.header(count, 0) + bytes(4096))
        refuse(path, writer.header(0, count) + bytes(4096))
        for element in (0, 8, 12):
            refuse(path, one_key(struct.pack("<IIQ", writer.ARRAY, element, count) + bytes(4096)))
        refuse(path, entries(writer.tensor_entry("t", (count, 8), 0, 0)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_file_that_shrinks(path: Path) -> None:
    with GGUF(path) as model:
        os.truncate(path, model.tensors["two"].offset + 10)
        with pytest.raises(SeventyError, match="became shorter"):
            model.read(model.tensors["two"])


def split(folder: Path, count: int = 3) -> list[Path]:
    paths = []
    for number in range(count):
        metadata = {
            "split.no": Typed(2, number),
            "split.count": Typed(2, count),
            "split.tensors.count": Typed(5, count),
        }
        if number == 0:
            metadata["general.architecture"] = "llama"
        tensors = {f"t{number}": ((8,), 0, bytes([number]) * 32)}
        paths.append(writer.write(folder / f"m-{number + 1:05}-of-{count:05}.gguf", metadata, tensors))
    return paths


def test_split_model_from_any_file(tmp_path: Path) -> None:
    paths = split(tmp_path)
    for path in paths:
        with GGUF(path) as model:
            assert model.paths == paths
            assert model.metadata["general.architecture"] == "llama"
            assert [model.read(model.tensors[f"t{i}"])[0] for i in range(3)] == [0, 1, 2]
            assert [model.tensors[f"t{i}"].file for i in range(3)] == [0, 1, 2]


def test_split_model_with_faults(tmp_path: Path) -> None:
    paths = split(tmp_path)
    first, second = paths[0].read_bytes(), paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(SeventyError, match=r"m-00002-of-00003.gguf is missing"):
        GGUF(paths[2])
    paths[1].write_bytes(first)
    with pytest.raises(SeventyError, match="belongs to another model"):
        GGUF(paths[0])
    paths[1].write_bytes(second.replace(b"t1", b"t0"))
    with pytest.raises(SeventyError, match="second time"):
        GGUF(paths[0])
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(first)
    with pytest.raises(SeventyError, match="not named like one"):
        GGUF(alone)


def read_all(path: Path) -> None:
    """Everything a model's reader does; a SeventyError is an answer."""
    try:
        with GGUF(path) as model:
            for item in model.metadata.values():
                if hasattr(item, "__len__"):
                    assert len(list(item)) == len(item)
            for info in model.tensors.values():
                assert model.read(info).nbytes == info.nbytes
    except SeventyError as error:
        assert "\n" not in str(error)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    cut=st.integers(0, 63),
)
def test_damaged_files_never_crash(tmp_path: Path, edits: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(writer.build(METADATA, TENSORS))
    for at, patch in edits:
        data[at : at + len(patch)] = patch
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data[: len(data) - cut])
    read_all(path)


COUNTS = st.sampled_from([0, 1, 2, 3, 7, 32, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1])
KEYS = st.sampled_from(["general.alignment", "split.count", "split.no", "split.tensors.count", "a", "b"])
NAMES = st.sampled_from([b"a", b"b", b"", b"\xff", b"c" * 70])
SCALAR = st.tuples(st.sampled_from([0, 2, 4, 7, 10, 13]), COUNTS).map(lambda t: struct.pack("<IQ", *t))
ARRAYS = st.tuples(st.sampled_from([0, 4, 8, 9, 12, 99]), COUNTS, st.binary(max_size=40)).map(
    lambda t: struct.pack("<IIQ", writer.ARRAY, t[0], t[1]) + t[2]
)
STRINGS = st.binary(max_size=20).map(writer.value)
ENTRIES = st.builds(writer.tensor_entry, NAMES, st.lists(COUNTS, max_size=5), st.integers(0, 43), COUNTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(
        st.tuples(KEYS, SCALAR | ARRAYS | STRINGS | COUNTS.map(lambda n: writer.value(n % 1000))), max_size=4
    ),
    tensors=st.lists(ENTRIES, max_size=4),
    more=st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
    end=st.binary(max_size=300),
)
def test_hostile_headers_never_crash(
    tmp_path: Path, keys: list[tuple[str, bytes]], tensors: list[bytes], more: tuple[int, int], end: bytes
) -> None:
    counts = [max(0, len(tensors) + more[0]), max(0, len(keys) + more[1])]
    parts = [writer.header(*counts), *(writer.string(key) + item for key, item in keys), *tensors, end]
    path = tmp_path / "hostile-00001-of-00002.gguf"
    path.write_bytes(b"".join(parts))
    read_all(path)
