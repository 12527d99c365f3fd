"""Files that are split, damaged, too large or not what they say."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.formats import by_name, formats
from seventy.gguf.file import GGUF
from seventy.gguf.tensors import TensorInfo
from seventy.graph import weights
from seventy.jit.isa import Isa
from tests.support.tiny import write_tiny

IDS = list(b"The first lines of a file.")


def test_split_model_is_the_whole_model(tmp_path: Path, tiny: Path) -> None:
    write_tiny(tmp_path / "split.gguf", split=7)
    paths = sorted(tmp_path.glob("*.gguf"))
    assert len(paths) > 2 and paths[0].name == f"split-00001-of-{len(paths):05}.gguf"
    with LLM(tiny, threads=1, context=64) as llm:
        whole = llm.logits(IDS)
    # Any of its files may be named.
    for path in (paths[0], paths[-1]):
        with LLM(path, threads=2, context=64) as llm:
            assert np.array_equal(llm.logits(IDS), whole)
    paths[1].unlink()
    with pytest.raises(SeventyError, match=rf"{paths[1].name} is missing"):
        LLM(paths[0])


def poison(path: Path, tensor: str, place: int, number: float) -> None:
    """Writes a number into the first 16-bit field of a tensor's block, or over a float."""
    with GGUF(path) as gguf:
        info = gguf.tensors[tensor]
    format = formats()[info.type]
    value = np.float32(number) if format.name == "F32" else np.float16(number)
    with path.open("r+b") as file:
        file.seek(info.offset + place * format.nbytes + (format.halves or (0,))[0])
        file.write(value.tobytes())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "tensor",
    [
        "blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.0.attn_v.weight",
        "blk.1.attn_output.weight", "blk.0.ffn_gate.weight", "blk.1.ffn_up.weight", "blk.1.ffn_down.weight",
        "output_norm.weight", "output.weight",
    ],
)  # fmt: skip
def test_weights_that_are_no_numbers_are_said_to_be_so(tensor: str, number: float, tmp_path: Path, isa: Isa) -> None:
    path = write_tiny(tmp_path / "model.gguf", format_name="Q4_K", tied=False)
    poison(path, tensor, 3, number)
    for kv in ("f16", "q8_0"):
        with LLM(path, threads=2, context=64, isa=isa.name, kv=kv) as llm:
            with pytest.raises(SeventyError, match=r"not a number \(NaN or infinity\): its weights are damaged"):
                llm.generate(IDS, 5)
            with pytest.raises(SeventyError, match="not a number"):
                llm.logits(IDS)


def test_a_damaged_row_of_the_embedding_harms_those_who_ask_for_it(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", format_name="Q8_0", tied=False)
    row = 256 // 32
    poison(path, "token_embd.weight", 200 * row, np.nan)
    with LLM(path, threads=2, context=64) as llm:
        before = llm.generate(IDS, 5, ignore_eos=True).token_ids
        with pytest.raises(SeventyError, match="not a number"):
            llm.generate([200, *IDS], 5)
        assert llm.generate(IDS, 5, ignore_eos=True).token_ids == before


def test_file_that_shrinks_while_it_is_loaded(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(tiny, path)
    read, threads = GGUF.pread, threading.active_count()

    def shrink(self: GGUF, info: TensorInfo, *arguments: object) -> np.ndarray:
        if "ffn" in info.name and path.stat().st_size > 100_000:
            os.truncate(path, 100_000)
        return read(self, info, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(GGUF, "pread", shrink)
    with pytest.raises(SeventyError, match="became shorter while it was read"):
        LLM(path, threads=2)
    assert threading.active_count() == threads


def test_an_error_ends_the_reading_of_what_is_left(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fail(self: GGUF, info: TensorInfo, *arguments: object) -> np.ndarray:
        seen.append(info.name)
        raise SeventyError("cannot read it: Input/output error; check the disk it is on")

    monkeypatch.setattr(weights, "_READ_BYTES", 1 << 12)
    monkeypatch.setattr(GGUF, "pread", fail)
    monkeypatch.setattr(weights.Weights, "vector", lambda self, name, length: np.zeros(1024, np.float32))
    monkeypatch.setattr(weights.Weights, "refuse_unused", lambda self: None)
    with pytest.raises(SeventyError, match="Input/output error"):
        LLM(tiny, threads=2)
    # Two threads, what was under way: not all the 500 pieces.
    assert len(seen) <= 2


def test_missing_tensor(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", without=("blk.1.ffn_up.weight",))
    with pytest.raises(SeventyError, match=r"has no tensor blk\.1\.ffn_up\.weight, which its architecture needs"):
        LLM(path)


def test_embedding_and_vocabulary_that_disagree(tmp_path: Path) -> None:
    embedding = {"token_embd.weight": np.zeros((200, 256), np.float32)}
    path = write_tiny(tmp_path / "model.gguf", vectors=embedding, without=("token_embd.weight",))
    with pytest.raises(SeventyError, match=r"shape \[200, 256\], its metadata says \[259, 256\]"):
        LLM(path)


def test_tensor_type_that_is_not_supported(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {id: entry for id, entry in formats().items() if entry is not by_name("Q4_K")}
    monkeypatch.setattr(weights, "formats", lambda: known)
    with pytest.raises(SeventyError, match=r"type Q4_K, which this engine cannot multiply; .*: BF16, F16, F32, IQ1_M"):
        LLM(tiny)


def test_a_container_with_less_memory_than_the_machine_counts(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seventy.machine.memory.memory_free", lambda: 3_000_000)
    with pytest.raises(SeventyError, match=r"needs \d+\.\d MB of memory and 0\.0 MB of .* are free"):
        LLM(tiny)


def test_context_that_does_not_fit_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny(tmp_path / "model.gguf", context_length=1 << 20)
    monkeypatch.setattr("seventy.machine.memory.total_bytes", lambda: 1 << 30)
    monkeypatch.setattr("seventy.machine.memory.available_bytes", lambda: 1 << 29)
    # What other models have promised does not count here.
    monkeypatch.setattr("seventy.runtime.reservations.folders", lambda: [tmp_path / "promises"])
    said = r"with a context of 1048576 \(1\.1 GB\) needs 1\.3 GB of memory and 469\.8 MB of 1\.1 GB are free"
    with pytest.raises(SeventyError, match=said):
        LLM(path, context=1 << 20)
    with LLM(path, context=4096) as llm:
        assert llm.context == 4096
