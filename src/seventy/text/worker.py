"""A script in a process of its own, for what strangers send: it may be ended, and holds up nobody's interpreter."""

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from seventy.errors import SeventyError


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
            raise SeventyError(f"cannot start {sys.executable} to {what}: {error.strerror}") from None
        assert process.stdin is not None and process.stdout is not None
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout
        # Whether it was ended because it took too long.
        self.late = False
        self.end = weakref.finalize(owner, _end, process)

    def ask(self, request: bytes, seconds: float) -> Any | None:
        """Return its answer; None where it ended, or was ended because none came in time."""
        timer = threading.Timer(seconds, self._stop)
        timer.start()
        try:
            self._stdin.write(request)
            self._stdin.flush()
            answer = self._stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            timer.cancel()
        return json.loads(answer) if answer else None

    def _stop(self) -> None:
        self.late = True
        self.process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(BrokenPipeError):
        process.communicate()
