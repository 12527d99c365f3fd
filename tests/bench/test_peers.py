"""Who runs beside us, and what is said when he does not."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from seventy.bench import peers
from seventy.bench.engine import PeerLost, Threads
from seventy.bench.llama_bench import LlamaBench, parse
from seventy.errors import SeventyError
from seventy.jit.isa import LEVELS

WANTED = {"n_prompt": 0, "n_gen": 32, "n_depth": 1024, "n_threads": 2}
TEST = {**WANTED, "build_commit": "8cf427ff", "samples_ns": [1067431600], "samples_ts": [29.978]}


def script(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_parse() -> None:
    assert parse(json.dumps([TEST]), WANTED) == ("8cf427ff", 1.0674316)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", json.dumps([TEST, TEST]), '[{"build_commit": "x"}]'])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(SeventyError, match="understood"):
        parse(text, WANTED)


@pytest.mark.parametrize("other", [{"n_threads": 4}, {"n_depth": 0}, {"samples_ns": [0]}])
def test_parse_refuses_another_test(other: dict[str, object]) -> None:
    with pytest.raises(SeventyError, match="when asked for"):
        parse(json.dumps([TEST | other]), WANTED)


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | REPACK = 1 | ", "avx2"),
        ("CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VBMI = 1 | AVX512_VNNI = 1 | REPACK = 1 | ", "avx512vnni"),
        ("AVX = 1 | AVX_VNNI = 0 | AVX2 = 1 | AVX512 = 0 | AVX512_VNNI = 0 | FMA = 1 | NEON = 0 | SSE3 = 1", "avx2"),
        ("CPU : SSE3 = 1 | SSSE3 = 1 | ", "generic"),
        ("CPU : LLAMAFILE = 1 | OPENMP = 1 | ", "generic"),
        ("", None),
    ],
)
def test_what_a_llama_cpp_was_built_for(said: str, level: str | None) -> None:
    assert peers.built_for(said) == level


def test_llama_bench(llama_bench: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = tmp_path / "llama-bench"
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {llama_bench} "$@"\n')
    path.chmod(0o755)
    peer = peers.find(str(path), Path("model.gguf"), Threads(3, 2), 512, 8)
    assert isinstance(peer, LlamaBench) and peer.version == "8cf427ff"
    assert peer.prefill(128).seconds == peer.decode(8, 64).seconds == 0.07213564
    assert "batch" not in peer.does
    prompt, answer = log.read_text().splitlines()[-2:]
    assert "-t 3" in prompt and "-p 128" in prompt
    assert "-t 2" in answer and "-n 8" in answer


def test_a_llama_bench_that_fails(tmp_path: Path) -> None:
    path = script(tmp_path, f"#!{sys.executable}\nimport sys\nsys.exit('error: failed to load model')\n")
    with pytest.raises(SeventyError, match="failed to load model"):
        peers.find(str(path), Path("model.gguf"), Threads(3, 2), 512, 8)


@pytest.mark.parametrize(("name", "said"), [("ILL", "SIGILL: an instruction"), ("KILL", "SIGKILL: somebody ended it")])
def test_a_peer_that_dies_says_of_what(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / "llama-bench"
    path.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    path.chmod(0o755)
    with pytest.raises(PeerLost, match=f"llama-bench died: {said}"):
        peers.find(str(path), Path("model.gguf"), Threads(3, 2), 512, 8)
    python = script(tmp_path, f"#!/bin/sh\nkill -{name} $$\n")
    with pytest.raises(PeerLost, match=f"llama.cpp died: {said}"):
        peers.find(str(python), Path("model.gguf"), Threads(3, 2), 512, 8)
    answer = '{"version": "1", "system": ""}'
    python.write_text(f"#!/bin/sh\nread line\necho '{answer}'\nread line\nkill -{name} $$\n")
    peer = peers.find(str(python), Path("model.gguf"), Threads(3, 2), 512, 8)
    with pytest.raises(PeerLost, match=said):
        peer.prefill(8)
    peer.close()


def test_no_such_program() -> None:
    with pytest.raises(SeventyError, match="is no program"):
        peers.program("/no/such/python")


def test_programs(llama_bench: Path) -> None:
    assert peers.program("llama.cpp") == sys.executable
    assert peers.program(str(llama_bench)) == str(llama_bench)


def test_a_python_without_it(tmp_path: Path) -> None:
    python = script(tmp_path, f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    with pytest.raises(SeventyError, match="pip install llama-cpp-python"):
        peers.find(str(python), Path("model.gguf"), Threads(3, 2), 512, 8)


def test_llama_cpp_python(tiny: Path) -> None:
    """With SEVENTY_TEST_LLAMA_CPP, a Python that has llama-cpp-python."""
    python = os.environ.get("SEVENTY_TEST_LLAMA_CPP")
    if not python:
        pytest.skip("SEVENTY_TEST_LLAMA_CPP names no Python that has llama-cpp-python")
    peer = peers.find(python, tiny, Threads(3, 2), 600, 8)
    try:
        start = time.perf_counter()
        times = [peer.prefill(520), peer.decode(8, 530), peer.batch(8, 16, 3), peer.batch(1, 0, 1)]
        around = time.perf_counter() - start
        # As long as half a million tokens a second would take, and no longer than it was.
        assert times[0].seconds > 520 / 5e5 and sum(timing.seconds for timing in times) < around
        assert peer.isa in LEVELS
    finally:
        peer.close()
