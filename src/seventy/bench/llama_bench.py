"""llama.cpp through its own `llama-bench`, one process a measurement.

Its JSON is that of `-o json` in tools/llama-bench/README.md of ggml-org/llama.cpp. It reads several rows at once of one
sequence only, so it is not asked for batches of users.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from seventy.bench.engine import PeerLost, Threads, Timing, death
from seventy.errors import SeventyError
from seventy.language import t


class LlamaBench:
    """A `llama-bench` program."""

    name = "llama.cpp"
    does = frozenset({"prefill", "decode"})
    # It does not say what it was built for.
    isa = None

    def __init__(self, path: Path, threads: Threads, command: str) -> None:
        self._command = [command, "-m", str(path), "-r", "1", "-o", "json"]
        self._threads = threads
        self.version = ""
        # The commit is in every answer only: one token tells it, and whether the program works at all.
        self.prefill(1)

    def _time(self, prompt: int, answer: int, depth: int) -> Timing:
        threads = self._threads.prefill if prompt else self._threads.decode
        wanted = {"n_prompt": prompt, "n_gen": answer, "n_depth": depth, "n_threads": threads}
        command = [*self._command, "-t", str(threads), "-p", str(prompt), "-n", str(answer)]
        # An old llama-bench knows no -d.
        done = subprocess.run([*command, "-d", str(depth)] if depth else command, capture_output=True, text=True)
        if done.returncode < 0:
            raise PeerLost("{command} died: {returncode}", command=command[0], returncode=death(done.returncode))
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise SeventyError(
                "{command} failed ({last}); run it by itself to see",
                command=command[0], last=last or t("exit code {code}", code=done.returncode),
            )
        commit, seconds = parse(done.stdout, wanted)
        self.version = commit
        return Timing(seconds)

    def prefill(self, tokens: int) -> Timing:
        return self._time(tokens, 0, 0)

    def decode(self, tokens: int, depth: int) -> Timing:
        return self._time(0, tokens, depth)

    def batch(self, rows: int, depth: int, passes: int) -> Timing:
        raise AssertionError("llama-bench has no batches of users")

    def close(self) -> None:
        pass


def parse(text: str, wanted: dict[str, int]) -> tuple[str, float]:
    """Read the commit and the seconds of the single test in `-o json`, and check that it is the `wanted` one."""
    try:
        tests: list[dict[str, Any]] = json.loads(text)
        (test,) = tests
        found = {key: int(test.get(key, 0)) for key in wanted}
        seconds = float(test["samples_ns"][0]) / 1e9
        commit = str(test["build_commit"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise SeventyError(
            "llama-bench printed no result that is understood ({error}); get a newer one",
            error=repr(error),
        ) from None
    if found != wanted or seconds <= 0:
        raise SeventyError(
            "llama-bench measured {found} in {seconds:g} s when asked for {wanted}; get a newer one",
            found=found, seconds=seconds, wanted=wanted,
        )
    return commit, seconds
