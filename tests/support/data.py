"""Random blocks of a format, with factors that are sensible numbers."""

import numpy as np

from seventy.formats import Format
from seventy.formats.description import Floats


def random_blocks(format: Format, n: int, seed: int = 0, size: float = 1.0) -> np.ndarray:
    """[n, nbytes] u8 with factors up to `size`; the first blocks have the largest and smallest bytes everywhere."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, format.nbytes), dtype=np.uint8)
    blocks[: n // 8] = 255
    blocks[n // 8 : n // 4] = 0
    values = rng.standard_normal(n) if isinstance(format.weights, Floats) else rng.uniform(-1, 1, n)
    format.set_factors(blocks, (size * values).astype(np.float32))
    return blocks
