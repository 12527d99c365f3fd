"""Other engines on the same model, each in a process of its own that sleeps while we are timed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from seventy.errors import SeventyError

_WORKER = Path(__file__).with_name("_llama_cpp_worker.py")


class LlamaCpp:
    """llama.cpp through the llama-cpp-python of a Python (this one by default), as its users have it built."""

    name = "llama.cpp"

    def __init__(self, path: Path, threads: int, context: int, python: str = sys.executable) -> None:
        command = [python, str(_WORKER)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        answer = self._ask({"path": str(path), "threads": threads, "context": context})
        self.name = f"llama.cpp (llama-cpp-python {answer['version']})"

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
            raise SeventyError(
                f"llama.cpp did not answer ({last or 'no reason given'}); install it for this CPU with: "
                f"pip install llama-cpp-python, or name a Python that has it: --against /path/to/python"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SeventyError(answer["error"])
        return answer

    def _time(self, what: str, tokens: int, depth: int = 0) -> float:
        return float(self._ask({"what": what, "tokens": tokens, "depth": depth})["seconds"])

    def prefill(self, tokens: int) -> float:
        return self._time("prefill", tokens)

    def decode(self, tokens: int, depth: int) -> float:
        return self._time("decode", tokens, depth)

    def batch(self, rows: int) -> float:
        return self._time("prefill", rows)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
