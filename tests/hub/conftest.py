from pathlib import Path

import pytest

from seventy.hub import download, transfer
from tests.support.hub import hub

__all__ = ["folder", "hub"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for models, a home without other programs' models, and no pauses between tries."""
    monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME",
                 "XDG_DATA_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(transfer, "PAUSES_SECONDS", (0.0, 0.0))
    return tmp_path / "models"
