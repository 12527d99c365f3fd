import ctypes

import numpy as np
import pytest

from seventy.formats import PANEL, Format, formats
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from tests.support.call import library
from tests.support.data import random_blocks


@pytest.mark.parametrize("format", formats().values(), ids=lambda f: f.name)
@pytest.mark.parametrize("rows", [1, 15, 16])
def test_pack_equals_its_twin(format: Format, rows: int, isa: Isa) -> None:
    source = random_blocks(format, rows * 5).reshape(rows, -1)
    want = format.pack(source)
    got = np.full_like(want, 0xAA)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p)(
        library(isa).address(Kernel("seventy.kernels.pack:build", (format.name,)))
    )
    function(source.ctypes.data, source.shape[1], rows, 5, got.ctypes.data)
    assert len(want) == -(-rows // PANEL)
    assert np.array_equal(got, want)
