from seventy.jit import isa
from tests.server.conftest import Running


def test_an_answer_says_what_wrote_it(random_model: Running) -> None:
    chat = random_model.chat(max_tokens=2)
    text = random_model.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2}).json()
    assert chat["system_fingerprint"] == text["system_fingerprint"] == random_model.backend.fingerprint
    assert any(chat["system_fingerprint"].endswith(f"-{level}") for level in isa.LEVELS)
