"""Q3_K: 256 weights as 16 blocks of 16, w = d * (scale - 32) * (q - 4); scale of 6 bits, q of 3.

Block (110 bytes): 32 bytes of upper bits, 64 bytes of lower bit pairs, 12 bytes of scales, d f16. In the n-th half of
128 weights, weight 32 j + i has its bit pair j in byte 32 n + i and its upper bit 4 n + j in byte i. The low nibble
of scale k is that of byte k (k < 8) or the high one of byte k - 8; its upper bit pair k // 4 is in byte 8 + k % 4.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import ScaledSums, Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, i16, i32, u8, u16, u32


def unpack_scales(tile: Tile) -> list[Value]:
    """Four words of four signed bytes: the scales less 32, in order."""
    low, middle, pairs = (tile.word(i).view(u32 * tile.lanes) for i in range(3))
    words = [
        (low & 0x0F0F0F0F) | ((pairs << 4) & 0x30303030),
        (middle & 0x0F0F0F0F) | ((pairs << 2) & 0x30303030),
        ((low >> 4) & 0x0F0F0F0F) | (pairs & 0x30303030),
        ((middle >> 4) & 0x0F0F0F0F) | ((pairs >> 2) & 0x30303030),
    ]
    return [(word.view(i8 * (4 * tile.lanes)) - 32).view(i32 * tile.lanes) for word in words]


def _weights(tile: Tile, n: int, j: int, part: int, g: int, shift: int) -> Value:
    """Four weights of 3 bits, shifted left by `shift` within their bytes."""
    upper = tile.word(3 + 4 * part + g, first=n == j == 0).view(u32 * tile.lanes)
    pairs = tile.word(11 + 8 * n + 4 * part + g, first=j == 0).view(u32 * tile.lanes)
    low = _shifted(pairs, shift - 2 * j) & (0x03030303 << shift)
    return low | (_shifted(upper, 2 + shift - (4 * n + j)) & (0x04040404 << shift))


def _shifted(word: Value, left: int) -> Value:
    return word << left if left > 0 else word >> -left if left else word


def multiply(tile: Tile) -> None:
    sums = ScaledSums(tile, limit=4, signed=True)
    scales = unpack_scales(tile)
    # The input section has -32 times its sum, and the offset is 4: eight times the product. One row of inputs is
    # easier to shift than its weights.
    shift = 0 if sums.integer and tile.tokens == 1 else 3
    for n in range(2):
        for part in range(2):
            for j in range(4):
                tile.f.keep_order()
                weights = [partial(_weights, tile, n, j, part, g, shift) for g in range(4)]
                block = 8 * n + 2 * j + part
                start = [tile.input(3, block, t) for t in range(tile.tokens)]
                if shift == 0:
                    start = [pair.view(i16 * (2 * tile.lanes)) >> 3 for pair in start]
                sums.add(weights, 4 * block, scales[block // 4], block % 4, start)
    d = tile.half(0) * 2.0**-shift
    for t, total in enumerate(sums.floats()):
        tile.totals[t].set(fma(total * d, tile.input(1, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block, 108))
    for n in range(2):
        for j in range(4):
            for part in range(2):
                k = 8 * n + 2 * j + part
                nibble = f.load(u8, block, 96 + k % 8)
                nibble = nibble & 15 if k < 8 else nibble >> 4
                scale = nibble | (((f.load(u8, block, 104 + k % 4) >> (2 * (k // 4))) & 3) << 4)
                factor = d * (scale.view(i8) - 32).to(f32)
                low = (f.load(u8 * 16, block, 32 + 32 * n + 16 * part) >> (2 * j)) & 3
                high = ((f.load(u8 * 16, block, 16 * part) >> (4 * n + j)) & 1) << 2
                q = (low | high).view(i8 * 16) - 4
                f.store(q.to(f32) * factor.splat(16), out, 4 * (128 * n + 32 * j + 16 * part))


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 108:110].copy().view(np.float16).astype(np.float32)
    packed = blocks[:, 96:108]
    nibbles = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    pairs = (packed[:, None, 8:] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    scales = (nibbles | pairs.reshape(-1, 16) << 4).astype(np.float32) - 32
    low = (blocks[:, 32:96].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    high = (blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    q = (low.reshape(-1, 8, 32) | high << 2).astype(np.float32) - 4
    return (q.reshape(-1, 16, 16) * (d * scales)[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q3_K",
    type_id=11,
    block=256,
    nbytes=110,
    halves=(108,),
    # The scales first, as `multiply` reads them.
    words=(*range(96, 108, 4), *range(0, 96, 4)),
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
