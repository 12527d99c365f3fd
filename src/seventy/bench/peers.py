"""Other engines on the same model, each in a process of its own that sleeps while we are timed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from seventy.bench.engine import PeerLost, Threads, Timing, death
from seventy.bench.llama_bench import LlamaBench
from seventy.errors import SeventyError
from seventy.language import t

_WORKER = Path(__file__).with_name("_llama_cpp_worker.py")
# What llama.cpp calls the instructions a level of ours is named after, the highest first.
_BUILDS = {
    "AVX512_VNNI": "avx512vnni",
    "AVX512": "avx512",
    "AVX_VNNI": "avxvnni",
    "AVX2": "avx2",
    "AVX": "avx",
}


class LlamaCpp:
    """llama.cpp through the llama-cpp-python of a Python, as its users have it built."""

    name = "llama.cpp"
    does = frozenset({"prefill", "decode", "batch"})

    def __init__(self, path: Path, threads: Threads, context: int, sequences: int, python: str) -> None:
        command = [python, str(_WORKER)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.version = ""
        settings: dict[str, Any] = {"path": str(path), "context": context, "sequences": sequences}
        settings |= {"prefill_threads": threads.prefill, "decode_threads": threads.decode}
        try:
            said = self._ask(settings)
            self.version = str(said["version"])
            self.isa = built_for(said["system"])
        except BaseException:
            self.close()
            raise

    def _ask(self, task: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self._process.stderr.read().strip().rpartition("\n")[2]
            code = self._process.wait()
            if self.version or code < 0:
                raise PeerLost("llama.cpp died: {code}", code=death(code))
            raise SeventyError(
                "llama.cpp did not answer ({last}); install it for this CPU with: pip install llama-cpp-python, or "
                "name a Python that has it: --against /path/to/python",
                last=last or t("no reason given"),
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SeventyError(answer["error"])
        return answer

    def _time(self, what: str, **task: float) -> Timing:
        return Timing(float(self._ask({"what": what, **task})["seconds"]))

    def prefill(self, tokens: int) -> Timing:
        return self._time("prefill", tokens=tokens)

    def decode(self, tokens: int, depth: int) -> Timing:
        return self._time("decode", tokens=tokens, depth=depth)

    def batch(self, rows: int, depth: int, passes: int) -> Timing:
        return self._time("batch", rows=rows, depth=depth, passes=passes)

    def speculate(self, tokens: int, depth: int, guesses: int, right: float) -> Timing:
        """Time about `tokens` tokens, written by passes with so many guesses, each right with that probability."""
        return self._time("speculate", tokens=tokens, depth=depth, guesses=guesses, right=right)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def built_for(system: str) -> str | None:
    """Return the ISA level (jit/isa.py) that a llama.cpp build reports: "CPU : SSE3 = 1 | AVX2 = 1 | ...", or None."""
    has = set(re.findall(r"(\w+) = 1\b", system))
    return next((level for name, level in _BUILDS.items() if name in has), "generic" if has else None)


def program(against: str) -> str:
    """Return the program of a peer; for `llama.cpp`, this Python. Raises SeventyError if there is none."""
    command = sys.executable if against == "llama.cpp" else shutil.which(str(Path(against).expanduser()))
    if command is None:
        raise SeventyError(
            "{against} is no program; --against takes llama.cpp, a Python that has it, or a llama-bench",
            against=against,
        )
    return command


def find(command: str, path: Path, threads: Threads, context: int, sequences: int) -> LlamaCpp | LlamaBench:
    """Return the peer behind a program: a llama-bench by its name, or a Python that has llama-cpp-python.

    It runs with our numbers of threads for prompts and for decoding; for several users it takes those for prompts.
    """
    if "llama-bench" in Path(command).name:
        return LlamaBench(path, threads, command)
    return LlamaCpp(path, threads, context, sequences, command)
