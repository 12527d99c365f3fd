import numpy as np
import pytest

from seventy.jit.build import Function, Value
from seventy.jit.isa import Isa
from seventy.jit.lookup import lookup_units
from seventy.jit.simd import pick_bits
from seventy.jit.types import u32
from tests.jit.test_build import run


# Grids of all sizes that formats have: eight numbers of 2 bits, four of 3; as wide as the CPU has it, and wider.
@pytest.mark.parametrize(("points", "size", "bits"), [(256, 8, 2), (2048, 8, 2), (256, 4, 3), (512, 4, 3)])
@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_units_are_the_points_numbers(points: int, size: int, bits: int, lanes: int, isa: Isa) -> None:
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 1 << bits, (points, size), dtype=np.uint8)
    indices = rng.integers(0, points, 4 * lanes)
    # Bits that no index has are no part of it.
    high = (indices >> 8 | rng.integers(0, 2, 4 * lanes) << 7).astype(np.uint8)
    source = np.concatenate([indices.astype(np.uint8), high])
    units = size

    def body(f: Function, source: Value, target: Value) -> None:
        low, upper = (f.load(u32 * lanes, source, 4 * lanes * i) for i in (0, 1))
        found = lookup_units(low, upper if points > 256 else None, grid.tolist(), bits)
        for unit in range(units):
            f.store(found[unit], target, 4 * lanes * unit)

    got = run(isa, body, source, np.zeros(4 * lanes * units, np.uint8)).reshape(units, lanes, 4)
    want = grid[indices].reshape(lanes, units, 4)
    assert np.array_equal(got, want.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("positions", "bits", "to"), [((0, 7, 14, 21), 7, 0), ((28, 28, 28, 28), 4, 1), ((3, 0, 9, 31), 1, 3)]
)
@pytest.mark.parametrize("lanes", [1, 16])
def test_picked_bits(positions: tuple[int, ...], bits: int, to: int, lanes: int, isa: Isa) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 32, lanes, dtype=np.uint32)

    def body(f: Function, source: Value, target: Value) -> None:
        f.store(pick_bits(f.load(u32 * lanes, source), positions, bits, to), target)

    got = run(isa, body, words, np.zeros(4 * lanes, np.uint8)).reshape(lanes, 4)
    assert np.array_equal(got, ((words[:, None] >> np.array(positions, np.uint32)) & ((1 << bits) - 1)) << to)
