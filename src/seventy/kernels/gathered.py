"""Rows that lie apart times panels: gathered as tiles, some at a time, and multiplied as kernels/matmul.py does it.

So the sum of a row is the same as there, whatever its company.
"""

from seventy.formats import Format
from seventy.jit.build import Function, Module, Value
from seventy.jit.types import i32, i64, pointer
from seventy.kernels.abi import tile_widths
from seventy.kernels.activations import KINDS, Kind, section_bases
from seventy.kernels.matmul import panels_function

# What a thread gathers at a time: with the weights of a claim it should lie in an L2.
_GATHERED_BYTES = 1 << 18
_LANES = 16


def gathered_function(module: Module, format: Format) -> Function:
    """Write the function `gathered`: the product of consecutive panels with rows picked by number.

    Its arguments: the first panel, the number of panels, blocks per panel, the number of rows, the list of row numbers
    (i32), the address of the first panel's output columns and the bytes between output rows, whether there is a bias
    and its address, the columns per prompt tile, and the address of each section of the activations.
    """
    kind = KINDS[format.activation]
    panels, gather = panels_function(module, format, padded=True), _gather(module, kind)
    parameters = [pointer, i64, i64, i64, pointer, pointer, i64, i64, pointer, i64, *(pointer for _ in kind.sections)]
    f = module.function("gathered", parameters, internal=True)
    first, n_panels, blocks, rows, numbers, output, stride, biased, bias, prompt_columns, *bases = f.arguments
    columns = blocks * format.block
    tiles = f.memory(_GATHERED_BYTES)
    row_bytes = sum((columns // covered * 4 for covered in kind.sections), f.constant(i64, 0))
    widest = tile_widths(module.isa.lanes)[0]
    at_once = (f.constant(i64, _GATHERED_BYTES) // row_bytes // widest * widest).maximum(1)
    tile_bases = section_bases(f, kind, tiles, at_once, columns)
    with f.loop(0, rows, at_once) as row:
        some, row_list = (rows - row).minimum(at_once), numbers + row * 4
        places = [f.variable(pointer, base) for base in tile_bases]
        with f.when(some.eq(1)):
            # A tile of one row needs no gathering.
            for place, base, covered in zip(places, bases, kind.sections, strict=True):
                place.set(base + f.load(i32, row_list).to(i64) * (columns // covered * 4))
        with f.when(some > 1):
            f.call(gather.name, None, some, row_list, columns, *bases, *tile_bases)
        f.call(
            panels.name, None, first, n_panels, blocks, some, output + row * stride, stride, biased, bias,
            f.constant(i64, 0), prompt_columns, *(place.get() for place in places),
        )  # fmt: skip
    return f


def _gather(module: Module, kind: Kind) -> Function:
    """Writes `gather`: rows that lie one after the other, by their numbers, as tiles that lie one after the other.

    The last tile may have fewer rows than it has room for; copies of the last row then fill it.
    """
    n, sections = len(kind.sections), kind.sections
    f = module.function("gather", [i64, pointer, i64, *[pointer] * (2 * n)], internal=True)
    rows, row_list, columns, *bases = f.arguments
    widest, *narrower = tile_widths(module.isa.lanes)

    def make_tile(row: Value, width: int) -> None:
        """Gathers the rows from `row` on."""
        places = [(row + t).minimum(rows - 1) for t in range(width)]
        numbers = [f.load(i32, row_list, place * 4).to(i64) for place in places]
        for source, target, covered in zip(bases[:n], bases[n:], sections, strict=True):
            units = columns // covered
            lines, tile = [source + number * (units * 4) for number in numbers], target + row * (units * 4)
            whole = units // _LANES * _LANES
            with f.loop(0, whole, _LANES) as unit:
                words = _interleaved([[f.load(i32 * _LANES, line, unit * 4)] for line in lines])
                for i, vector in enumerate(words):
                    f.store(vector, tile, unit * (4 * width) + i * (4 * _LANES))
            with f.loop(whole, units) as unit:
                for t, line in enumerate(lines):
                    f.store(f.load(i32, line, unit * 4), tile, (unit * width + t) * 4)

    whole_tiles = rows // widest * widest
    with f.loop(0, whole_tiles, widest) as row:
        make_tile(row, widest)
    left = rows - whole_tiles
    with f.when(left > narrower[0]):
        make_tile(whole_tiles, widest)
    for width in narrower:
        with f.when((left <= width) & (left > width // 2)):
            make_tile(whole_tiles, width)
    return f


def _interleaved(rows: list[list[Value]]) -> list[Value]:
    """The first word of each row, then the second of each; there are 1, 2, 4 or 8 rows."""
    if len(rows) == 1:
        return rows[0]
    pairs = zip(_interleaved(rows[::2]), _interleaved(rows[1::2]), strict=True)
    half = _LANES // 2
    orders = [[i // 2 + i % 2 * _LANES + start for i in range(_LANES)] for start in (0, half)]
    return [even.shuffle(order, odd) for even, odd in pairs for order in orders]
