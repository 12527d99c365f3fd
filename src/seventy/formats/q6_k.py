"""Q6_K: 256 weights as 16 blocks of 16, w = d * scale * (q - 32); scale a signed byte, q of 6 bits.

Block (210 bytes): 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 scales, d f16. In each half of 128
weights, weight 32 j + i has its nibble in byte 32 (j % 2) + i (low for j < 2) and its bit pair j in byte i.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import ScaledSums, Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, u8, u16, u32


def _order() -> tuple[int, ...]:
    """Fields in the order `multiply` reads them: the scales, then for each 16 of 128 weights what its weights need."""
    scales = range(192, 208, 4)
    rest = (
        place
        for n in range(2)
        for part in range(2)
        for g in range(4)
        for place in (64 * n + 16 * part + 4 * g, 64 * n + 32 + 16 * part + 4 * g, 128 + 32 * n + 16 * part + 4 * g)
    )
    return (*scales, *rest)


_WORDS = _order()
# Words for 64 weights: four groups of two words of nibbles and one of bit pairs.
_PER_PART = 12


def _weights(tile: Tile, words: int, pair: int, half: int) -> Value:
    """Weights of 32 (pair + 2 half) on, from a group of three words."""
    nibbles = tile.word(words + pair, first=half == 0).view(u32 * tile.lanes)
    bits = tile.word(words + 2, first=pair == half == 0).view(u32 * tile.lanes)
    # Bit pair 0 goes from bits 0-1 of its byte to 4-5, pair 3 from 6-7.
    shift = 2 * (pair + 2 * half) - 4
    moved = bits >> shift if shift > 0 else bits << -shift if shift else bits
    return ((nibbles >> 4 if half else nibbles) & 0x0F0F0F0F) | (moved & 0x30303030)


def multiply(tile: Tile) -> None:
    # Starting at -32 times its inputs, a sum of 16 products is within 16 bits: it is that of q - 32.
    sums = ScaledSums(tile, limit=4, signed=True)
    scales = [tile.word(i) for i in range(4)]
    for n in range(2):
        for part in range(2):
            for pair in range(2):
                for half in range(2):
                    tile.f.keep_order()
                    words = 4 + _PER_PART * (2 * n + part)
                    weights = [partial(_weights, tile, words + 3 * g, pair, half) for g in range(4)]
                    block = 8 * n + 2 * (pair + 2 * half) + part
                    start = [tile.input(3, block, t) for t in range(tile.tokens)]
                    sums.add(weights, 4 * block, scales[block // 4], block % 4, start)
    d = tile.half(0)
    for t, total in enumerate(sums.floats()):
        tile.totals[t].set(fma(total * d, tile.input(1, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block, 208))
    for n in range(2):
        for j in range(4):
            for part in range(2):
                low = f.load(u8 * 16, block, 64 * n + 32 * (j % 2) + 16 * part)
                high = f.load(u8 * 16, block, 128 + 32 * n + 16 * part)
                nibble = low & 15 if j < 2 else low >> 4
                q = (nibble | (((high >> (2 * j)) & 3) << 4)).view(i8 * 16) - 32
                scale = d * f.load(i8, block, 192 + 8 * n + 2 * j + part).to(f32)
                f.store(q.to(f32) * scale.splat(16), out, 4 * (128 * n + 32 * j + 16 * part))


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 208:210].copy().view(np.float16).astype(np.float32)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    low = blocks[:, :128].reshape(-1, 2, 1, 2, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    q = (nibbles | (high & 3) << 4).astype(np.float32) - 32
    return (q.reshape(-1, 16, 16) * (d * scales)[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q6_K",
    type_id=14,
    block=256,
    nbytes=210,
    halves=(208,),
    words=_WORDS,
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
