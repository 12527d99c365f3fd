from collections.abc import Iterator
from pathlib import Path

import pytest

from models.tiny import write_tiny
from seventy import LLM


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, threads=2, context=1024) as model:
        yield model
