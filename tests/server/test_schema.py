"""schemathesis against the OpenAPI document: whatever is sent, no answer is a 500."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from tests.server.conftest import Running, serving

schemathesis = pytest.importorskip("schemathesis", reason="the clients extra (schemathesis) is not installed")
GenerationMode = schemathesis.GenerationMode
not_a_server_error = pytest.importorskip("schemathesis.checks").not_a_server_error
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def fuzzed(tiny: Path) -> Iterator[Running]:
    with serving(tiny, context=256, max_seconds=0.2) as running:
        running.wait()
        yield running


def test_nothing_is_a_500(fuzzed: Running) -> None:
    document = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    tried: dict[str, int] = {}

    def check(case: Any) -> None:
        response = case.call(timeout=60)
        # 503 is for a model that loads, and none does.
        case.validate_response(response, checks=[not_a_server_error])
        place = f"{case.method} {case.path}"
        tried[place] = tried.get(place, 0) + 1
        if response.status_code >= 400:
            error = response.json()["error"]
            if case.path.startswith("/api/"):
                assert isinstance(error, str), response.text
            else:
                assert set(error) == {"message", "type", "param", "code"}, response.text

    for result in document.get_all_operations():
        limits = settings(
            max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                limits(given(case=result.ok().as_strategy(generation_mode=mode))(check))()
            except Unsatisfiable:
                # An address that takes nothing cannot be sent anything wrong.
                continue
    assert len(tried) >= 15
    print(sum(tried.values()), "requests at", len(tried), "addresses")


def test_afterwards_it_is_well(fuzzed: Running) -> None:
    fuzzed.idle()
    assert fuzzed.chat("Hello", max_tokens=3)["usage"]["completion_tokens"] >= 1
