"""Random blocks of a format, with 16-bit fields that are sensible numbers."""

import numpy as np

from seventy.formats import Format


def factors(format: Format) -> tuple[int, ...]:
    """Offsets of the 16-bit fields that are half-precision factors; the others are bits."""
    return format.halves[:1] if format.name == "IQ4_XS" else format.halves


def random_blocks(format: Format, n: int, seed: int = 0) -> np.ndarray:
    """[n, nbytes] u8; the first blocks have the largest and smallest bytes everywhere."""
    rng = np.random.default_rng(seed)
    if format.name in ("F32", "F16", "BF16"):
        values = rng.standard_normal((n, format.block)).astype(np.float32)
        if format.name == "F32":
            return values.view(np.uint8)
        if format.name == "F16":
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (n, format.nbytes), dtype=np.uint8)
    blocks[: n // 8] = 255
    blocks[n // 8 : n // 4] = 0
    for offset in factors(format):
        blocks[:, offset : offset + 2] = rng.uniform(-1, 1, (n, 1)).astype(np.float16).view(np.uint8)
    return blocks
