import threading
import time
from collections.abc import Callable

import pytest

from seventy import LLM
from seventy.jit import isa
from seventy.server.backend import Backend
from tests.server.conftest import Running


def test_closing_stops_a_model_that_loads() -> None:
    entered = threading.Event()

    def load(progress: Callable[[str, int, int], None]) -> LLM:
        # A file that is never read to its end.
        while True:
            progress("loading weights", 1, 1000)
            entered.set()
            time.sleep(0.001)

    backend = Backend("large", load)
    backend.start()
    assert entered.wait(60)
    backend.close()
    assert backend.loading.state == "failed" and "stopped" in backend.loading.error


def test_a_bug_while_loading_leaves_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def load(progress: Callable[[str, int, int], None]) -> LLM:
        raise ZeroDivisionError("of all things")

    backend = Backend("broken", load)
    backend.start()
    backend.wait()
    assert "of all things" in backend.loading.error
    assert "Traceback" in caplog.text and "ZeroDivisionError" in caplog.text


def test_an_answer_says_what_wrote_it(random_model: Running) -> None:
    chat = random_model.chat(max_tokens=2)
    text = random_model.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2}).json()
    assert chat["system_fingerprint"] == text["system_fingerprint"] == random_model.backend.fingerprint
    assert any(chat["system_fingerprint"].endswith(f"-{level}") for level in isa.LEVELS)
