"""A script in a process of its own, for what strangers send: it may be ended, and holds up nobody's interpreter."""

import contextlib
import json
import math
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import psutil

from seventy.errors import SeventyError, trouble


class Worker:
    """Answers each request (bytes that the script knows the end of) by a line of JSON; ends with its `owner`.

    SeventyError where the process cannot be started, `what` being what it is for.
    """

    def __init__(self, owner: object, script: Path, what: str) -> None:
        # -P: the folder of the script, with its own names for modules, stays out of the import path.
        command = [sys.executable, "-P", str(script)]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise SeventyError(
                "cannot start {executable} to {what}: {reason}",
                executable=sys.executable, what=what, reason=error.strerror,
            ) from None
        assert process.stdin is not None and process.stdout is not None
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout
        # Whether it was ended because it took too long, and what else the system could not do.
        self.late, self.trouble = False, ""
        self.end = weakref.finalize(owner, _end, process)

    def ask(self, request: bytes, seconds: float) -> Any | None:
        """Return its answer; None where it ended, or was ended because none came in time.

        A process that had no CPU, on a machine that is busy or was stopped, gets ten times as long.
        """
        answered, answer = threading.Event(), b""
        watch = threading.Thread(target=self._watch, args=(answered, seconds, self._cpu_seconds()), daemon=True)
        try:
            watch.start()
            self._stdin.write(request)
            self._stdin.flush()
            answer = self._stdout.readline()
        except BrokenPipeError:
            pass
        except (OSError, RuntimeError) as error:
            self.trouble = trouble(error) or repr(error)
        finally:
            answered.set()
        return json.loads(answer) if answer else None

    def _watch(self, answered: threading.Event, seconds: float, before: float) -> None:
        for _ in range(10):
            if answered.wait(seconds):
                return
            if not self._cpu_seconds() - before < seconds / 2:
                break
        self.late = True
        self.process.kill()

    def _cpu_seconds(self) -> float:
        try:
            used = psutil.Process(self.process.pid).cpu_times()
        except (psutil.Error, OSError):
            return math.inf
        return used.user + used.system


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(BrokenPipeError):
        process.communicate()
