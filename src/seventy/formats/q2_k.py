"""Q2_K: 256 weights as 16 blocks of 16, w = d * scale * q - dmin * min; scale and min of 4 bits, q of 2.

Block (84 bytes): 16 bytes of scales (low nibble) and mins (high), 64 bytes of bit pairs, d f16, dmin f16. In the n-th
half of 128 weights, weight 32 j + i has its bit pair j in byte 32 n + i.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import ScaledSums, Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import add_pairs, fma, halves_to_float
from seventy.jit.types import f32, i32, u8, u16, u32


def _mins(tile: Tile, packed: list[Value]) -> list[Value]:
    """For each token the sum over the 16 blocks of min times the sum of its inputs, as floats."""
    # (m0, m2) and (m1, m3) of each word as 16-bit pairs; the activation's pairs lie in this order.
    pairs = [pair for word in packed for pair in ((word >> 4) & 0x000F000F, (word >> 12) & 0x000F000F)]
    sums = []
    for t in range(tile.tokens):
        total = tile.zero()
        for unit, pair in enumerate(pairs):
            total = add_pairs(total, pair.view(i32 * tile.lanes), tile.input(4, unit, t))
        sums.append(total.to(f32))
    return sums


def _weights(tile: Tile, n: int, j: int, part: int, g: int) -> Value:
    word = tile.word(4 + 8 * n + 4 * part + g, first=j == 0).view(u32 * tile.lanes)
    return (word >> (2 * j) if j else word) & 0x03030303


def multiply(tile: Tile) -> None:
    packed = [tile.word(i).view(u32 * tile.lanes) for i in range(4)]
    scales = [(word & 0x0F0F0F0F).view(i32 * tile.lanes) for word in packed]
    sums = ScaledSums(tile, limit=4, signed=False)
    for n in range(2):
        for part in range(2):
            for j in range(4):
                tile.f.keep_order()
                block = 8 * n + 2 * j + part
                weights = [partial(_weights, tile, n, j, part, g) for g in range(4)]
                sums.add(weights, 4 * block, scales[block // 4], block % 4)
    d, dmin = tile.half(0), tile.half(1)
    for t, (total, minimum) in enumerate(zip(sums.floats(), _mins(tile, packed), strict=True)):
        block_sum = total * d - minimum * dmin
        tile.totals[t].set(fma(block_sum, tile.input(1, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d, dmin = (halves_to_float(f.load(u16, block, offset)) for offset in (80, 82))
    for n in range(2):
        for j in range(4):
            for part in range(2):
                packed = f.load(u8, block, 8 * n + 2 * j + part)
                factor, offset = (d * (packed & 15).to(f32)).splat(16), (dmin * (packed >> 4).to(f32)).splat(16)
                q = (f.load(u8 * 16, block, 16 + 32 * n + 16 * part) >> (2 * j)) & 3
                f.store(q.to(f32) * factor - offset, out, 4 * (128 * n + 32 * j + 16 * part))


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (80, 82))
    factors, offsets = d * (blocks[:, :16] & 15).astype(np.float32), dmin * (blocks[:, :16] >> 4).astype(np.float32)
    q = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    return (factors[..., None] * q.reshape(-1, 16, 16).astype(np.float32) - offsets[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q2_K",
    type_id=10,
    block=256,
    nbytes=84,
    halves=(80, 82),
    words=tuple(range(0, 80, 4)),
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
