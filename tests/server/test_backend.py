import asyncio

import pytest

from seventy.jit import isa
from seventy.server.errors import ApiError
from tests.server.conftest import Running


def test_an_answer_says_what_wrote_it(random_model: Running) -> None:
    chat = random_model.chat(max_tokens=2)
    text = random_model.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2}).json()
    assert chat["system_fingerprint"] == text["system_fingerprint"] == random_model.backend.fingerprint
    assert any(chat["system_fingerprint"].endswith(f"-{level}") for level in isa.LEVELS)


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("can't start new thread"), "threads"), (MemoryError(), "memory"), (OSError(24, "full"), "full")],
)
def test_what_the_system_cannot_do_is_a_sentence(random_model: Running, error: Exception, said: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ApiError, match=said) as found:
        asyncio.run(random_model.backend.run_in_thread(fail))
    assert found.value.status == 503

    def mistaken() -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        asyncio.run(random_model.backend.run_in_thread(mistaken))
