"""Every format against the gguf package: dequantised, expanded by its kernel, packed."""

import numpy as np
import pytest

import gguf
from seventy.formats import Format, formats
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import embedding
from tests.support.call import call, count
from tests.support.data import random_blocks

ALL = pytest.mark.parametrize("format", formats().values(), ids=lambda f: f.name)


@ALL
def test_sizes_are_those_of_the_file_format(format: Format) -> None:
    kind = gguf.GGMLQuantizationType(format.type_id)
    assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (format.name, (format.block, format.nbytes))


@ALL
def test_dequantize_equals_the_gguf_package(format: Format) -> None:
    blocks = random_blocks(format, 300)
    want = gguf.dequantize(blocks, gguf.GGMLQuantizationType(format.type_id)).reshape(300, format.block)
    assert np.array_equal(format.dequantize(blocks), want)


@ALL
def test_dequantize_of_any_bytes_equals_the_gguf_package(format: Format) -> None:
    blocks = np.random.default_rng(3).integers(0, 256, (2000, format.nbytes), dtype=np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        want = gguf.dequantize(blocks, gguf.GGMLQuantizationType(format.type_id)).reshape(2000, format.block)
        assert np.array_equal(format.dequantize(blocks), want, equal_nan=True)


@ALL
def test_packing_keeps_every_byte(format: Format) -> None:
    rows = random_blocks(format, 40 * 6).reshape(40, -1)
    panels = format.pack(rows)
    assert panels.shape == (3, 6, format.panel_block)
    whole = np.append(rows.reshape(-1), np.zeros(8 * rows.shape[1], np.uint8))
    assert np.array_equal(np.sort(panels.reshape(-1)), np.sort(whole))


@ALL
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_expand_of_packed_rows_equals_dequantize(format: Format, rows: int, isa: Isa) -> None:
    blocks = random_blocks(format, rows * 3)
    want = format.dequantize(blocks).reshape(rows, -1)
    tokens = np.random.default_rng(0).permutation(rows).astype(np.int32)
    got = np.full((rows, want.shape[1]), np.nan, np.float32)
    call(
        isa, Kernel("seventy.kernels.embedding:build", (format.name,)), embedding.ARGUMENTS,
        rows=count(rows), panels=format.pack(blocks.reshape(rows, -1)), blocks=3, tokens=tokens,
        output=got, output_stride=got.strides[0],
    )  # fmt: skip
    # Where there is no FMA both round the same way; where there is, LLVM does not fuse on its own either.
    assert np.array_equal(got, want[tokens])
