import ctypes

import numpy as np
import pytest

from seventy.formats import PANEL, Format, by_name, formats
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import pack
from tests.support.call import call, count, library
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


@pytest.mark.parametrize("rows", [1, 16, 35])
def test_a_steps_rows_become_panels(rows: int, isa: Isa) -> None:
    for format in (by_name("Q6_K"), by_name("F16")):
        source = random_blocks(format, rows * 5).reshape(rows, -1)
        want = format.pack(source)
        got = np.full_like(want, 0xAA)
        call(
            isa, Kernel("seventy.kernels.pack:build_of_rows", (format.name,)), pack.ARGUMENTS, threads=2,
            rows=count(rows), input=source, row_bytes=source.shape[1], blocks=5, output=got,
        )  # fmt: skip
        assert np.array_equal(got, want)
