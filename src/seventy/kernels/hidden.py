"""What a model made of each token, kept for its block of multi-token prediction, and the rows that this block reads.

What is kept are f16, [PAGE, columns] in each page, by the position of the token.
"""

from seventy.jit.build import Module, Value
from seventy.jit.simd import float_to_halves, halves_to_float
from seventy.jit.types import f32, i32, i64, pointer, u16
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import inverse_rms
from seventy.kernels.pages import PAGE

_PLACES = ("rows", "positions", "segments", "tables", "table_stride", "cache", "columns", "epsilon")
KEEP_ARGUMENTS = (*_PLACES, "input", "stride", "norm", "row_map")
JOIN_ARGUMENTS = (*_PLACES, "embedding", "embedding_stride", "embedding_norm", "norm", "output", "output_stride")
_LANES = 16


def build_keep(module: Module, normalised: bool) -> None:
    """Keep input[row], or with `normalised` input[row] / rms(input[row]) * norm, at the row's position.

    Of row row_map[row] where a map is given.
    """
    k = Kernel(module, KEEP_ARGUMENTS)
    f, columns = k.f, k("columns")
    with k.claim(k.count("rows")) as item:
        row = f.variable(i64, item)
        with f.when(k("row_map") > 0):
            row.set(f.load(i32, k("row_map", pointer), item * 4).to(i64))
        source = k("input", pointer) + row.get() * k("stride")
        inverse = inverse_rms(k, source, columns).splat(_LANES) if normalised else None
        target = _place(k, row.get(), f.load(i32, k("positions", pointer), row.get() * 4).to(i64))
        with f.loop(f.constant(i64, 0), columns, _LANES) as i:
            kept = f.load(f32 * _LANES, source, i * 4)
            if inverse:
                kept = kept * inverse * f.load(f32 * _LANES, k("norm", pointer), i * 4)
            f.store(float_to_halves(kept), target, i * 2)


def build_join(module: Module, normalised: bool) -> None:
    """Build the kernel that computes output[row] = embedding[row] and, behind it, what was kept at the position before
    the row's.

    That is zero for the first position. With `normalised`, both go through an RMSNorm. `columns`, a multiple of 16, are
    those of either half.
    """
    k = Kernel(module, JOIN_ARGUMENTS)
    f, columns = k.f, k("columns")

    def copy(source: Value, norm: str, target: Value) -> None:
        inverse = inverse_rms(k, source, columns).splat(_LANES) if normalised else None
        with f.loop(f.constant(i64, 0), columns, _LANES) as i:
            row = f.load(f32 * _LANES, source, i * 4)
            if inverse:
                row = row * inverse * f.load(f32 * _LANES, k(norm, pointer), i * 4)
            f.store(row, target, i * 4)

    with k.claim(k.count("rows")) as row:
        first = k("output", pointer) + row * k("output_stride")
        second = first + columns * 4
        copy(k("embedding", pointer) + row * k("embedding_stride"), "embedding_norm", first)
        before = f.load(i32, k("positions", pointer), row * 4).to(i64) - 1
        with f.when(before < 0), f.loop(f.constant(i64, 0), columns, _LANES) as i:
            f.store(f.constant(f32, 0).splat(_LANES), second, i * 4)
        with f.when(before >= 0):
            kept = _place(k, row, before)
            with f.loop(f.constant(i64, 0), columns, _LANES) as i:
                f.store(halves_to_float(f.load(u16 * _LANES, kept, i * 2)), second, i * 4)
            if normalised:
                copy(second, "norm", second)


def _place(k: Kernel, row: Value, position: Value) -> Value:
    """Return where a position of the row's text is kept."""
    f = k.f
    segment = f.load(i32, k("segments", pointer), row * 4).to(i64)
    table = k("tables", pointer) + segment * k("table_stride")
    page = f.load(i32, table, position // PAGE * 4).to(i64)
    return k("cache", pointer) + (page * PAGE + position % PAGE) * (k("columns") * 2)
