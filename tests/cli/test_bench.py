"""`seventy bench` from end to end."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench import card as cards
from seventy.bench.card import Card
from seventy.bench.engine import Seventy
from seventy.cli.bench import _notes, _title
from seventy.cli.bench import bench as command
from seventy.measure import profile as machine_profile
from seventy.measure.profile import Profile
from tests.support.families import qwen35

QUICK = ("--prefill", "32", "--users", "2", "--decode-at", "0", "--tokens", "4", "--repeats", "2")
Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of its own: the tests' limits are not this machine's."""
    return tmp_path_factory.mktemp("cache")


def bench(cache: Path, *arguments: str | Path) -> Result:
    command = [sys.executable, "-m", "seventy", "bench", *map(str, arguments)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_all_at_once(cache: Path, tiny: Path, llama_bench: Path, tmp_path: Path) -> None:
    files = ("--plot", tmp_path / "roof.svg", "--report", tmp_path / "card.json")
    done = bench(cache, tiny, *QUICK, "--against", llama_bench, "--watts", "50", "--tariff", "0.6", *files)
    assert done.returncode == 0, done.stderr
    for text in ("loaded in", "prefill 32", "2 users", "decode at 0", "GB/s", "GOPS", "llama.cpp", "J/token"):
        assert text in done.stdout
    assert "seventy measure" in done.stderr
    card = cards.read(tmp_path / "card.json")
    assert len(card.results) == 3 and card.peer
    assert (tmp_path / "roof.svg").read_text().startswith("<svg")
    # Nothing of who ran it where.
    assert "tiny.gguf" not in card.text() and os.uname().nodename not in card.text()


def test_what_a_models_own_block_gains(cache: Path, tmp_path: Path) -> None:
    path = qwen35.write(tmp_path / "block.gguf", layers=2, interval=2, nextn=1)
    done = bench(cache, path, *QUICK[:-1], "1", "--draft", "mtp")
    assert done.returncode == 0, done.stderr
    kinds = re.findall(r"^drafts, (.+): [\d.]+ tok/s, [\d.]+ without, [\d.]+ times;", done.stdout, re.MULTILINE)
    assert len(kinds) == 3 and re.search(r"^a pass of MTP: [\d.]+ ms$", done.stdout, re.MULTILINE)


def test_json_is_the_card(cache: Path, tiny: Path, tmp_path: Path) -> None:
    done = bench(cache, tiny, *QUICK, "--json")
    (tmp_path / "card.json").write_text(done.stdout)
    assert cards.read(tmp_path / "card.json").repeats == 2


def test_a_limit_that_memory_beats_is_no_limit(
    tiny: Path, tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_profile, "path", lambda: tmp_path / "machine.json")
    # Models of the tests' size are read from the caches.
    monkeypatch.setattr("seventy.cli.bench.WHOLE_PROBE_CACHES", 0)
    monkeypatch.setattr(Seventy, "_limit_gbs", lambda self, rows: 1.5 * profile.read_bandwidth_gbs)
    profile.save()
    # The second time it is known.
    for said in (True, False):
        command(str(tiny), prefill=[32], users=[2], decode_at=[0], tokens=4, repeats=2)
        assert ("not 10000.0 as measured before" in capsys.readouterr().err) == said
    kept = machine_profile.load()
    assert kept and kept.read_bandwidth_gbs == 1.5e4


def test_a_peer_for_other_instructions_is_named(card: Card) -> None:
    assert card.peer
    for isa, differs in ("avx512vnni", False), ("avx512vnni-256", False), ("avx2", True):
        told = replace(card, isa=isa, peer=replace(card.peer, isa="avx512vnni"))
        assert any("not the same instructions" in note for note in _notes(told)) == differs
        assert "against llama.cpp (8cf427ff, built for avx512vnni)" in _title(told, "x")
    assert not any("instructions" in note for note in _notes(card)) and "built for" not in _title(card, "x")


def test_tune_says_what_it_found_and_remembers_it(cache: Path, tiny: Path) -> None:
    done = bench(cache, tiny, *QUICK, "--tune")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "threads for prompts" in line]
    folder = cache / "seventy/tuning"
    if not said:
        # Where the tests do not have the machine to themselves.
        assert "other programs used" in done.stderr and not folder.exists()
        return
    assert len(said) == 1 == len(list(folder.iterdir()))
    again = bench(cache, tiny, *QUICK, "--verbose").stderr.splitlines()
    assert said[0] in again
    assert not any("threads for prompts" in line for line in bench(cache, tiny, *QUICK).stderr.splitlines())
    assert "the defaults" in bench(cache, tiny, *QUICK, "-v", "--isa", "generic").stderr


def test_synthetic(cache: Path) -> None:
    done = bench(cache, "--synthetic", "smollm2-135m", "--quant", "q4_0", "--layers", "3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "3 of 30 layers" in done.stdout and "extrapolated" in done.stdout
    assert "3 are made, and the rest is extrapolated" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("TINY", "--plot", "roof.jpg"), "neither .svg nor .png"),
        (("TINY", "--layers", "3"), "is for --synthetic"),
        (("TINY", "--quant", "Q8_0"), "is for --synthetic"),
        (("TINY", "--synthetic", "smollm2-135m"), "--synthetic smollm2-135m takes no file"),
        (("TINY", "--tune", "--threads", "1"), "--tune chooses the threads, and --threads 1 says them"),
        (("--synthetic", "smollm2-135m", "--against", "llama.cpp"), "needs a file"),
        (("--synthetic", "smollm2-135m", "--layers", "31"), "has 30 layers"),
        (("--synthetic", "smollm2-135m", "--quant", "Q9"), "are not known"),
        (("TINY", "--prefill", "4096"), "needs a context of 4096"),
        (("TINY", "--against", "/no/such"), "is no program"),
    ],
)
def test_one_sentence(cache: Path, tiny: Path, arguments: tuple[str, ...], why: str) -> None:
    done = bench(cache, *(str(tiny) if argument == "TINY" else argument for argument in arguments))
    assert done.returncode == 1
    assert why in done.stderr and "Traceback" not in done.stderr


def test_shapes_as_a_file_give_rows_for_the_docs(cache: Path, tmp_path: Path) -> None:
    scripts, path = Path(__file__).parents[2] / "benchmarks", tmp_path / "shapes.gguf"
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    write = [sys.executable, scripts / "write_shapes.py", "smollm2-135m", "Q4_0", "2", path]
    subprocess.run(write, check=True, timeout=120)
    show = [sys.executable, scripts / "performance.py", path, *QUICK]
    done = subprocess.run(show, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"`seventy bench {path} --prefill 32" in done.stdout
    assert "| prefill 32 |" in done.stdout and "Q4_0" in done.stdout
