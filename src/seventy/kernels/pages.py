"""How keys and values lie in the pages of the KV cache.

A page holds PAGE positions of one KV head of one layer: keys as [key_dim, PAGE], so that a vector is as many
positions and a score needs no sum across lanes; then values as [PAGE, value_dim]. As f16, or as q8_0: int8 with one
f16 factor for 32 elements of a position; a page's factors [dim / 32, PAGE] follow its keys, and its values.

Where values are the first elements of the keys (latent attention) a page has the keys alone, as [PAGE, dim], and
their factors as [PAGE, dim / 32]: all heads share them, so that a kernel unpacks them once for many.
"""

from dataclasses import dataclass

from seventy.jit.build import Function, Value
from seventy.jit.simd import float_to_halves, halves_to_float, max_lanes, round_to_int
from seventy.jit.types import f32, i8, i32, u16

PAGE = 32
BLOCK = 32
KINDS = ("f16", "q8_0")


@dataclass(frozen=True, slots=True)
class Layout:
    """The byte offsets of the parts of a page; `kind` is one of KINDS."""

    kind: str
    key_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        whole = self.key_dim % BLOCK == 0 and self.value_dim % BLOCK == 0
        assert self.kind == "f16" or whole, f"heads of {self.key_dim} and {self.value_dim} in blocks of {BLOCK}"

    @property
    def element(self) -> int:
        return 1 if self.kind == "q8_0" else 2

    @property
    def spread(self) -> int:
        """Over how many elements of queries and keys kernels/rope.py spreads large ones; 0 for none."""
        return self.key_dim & -self.key_dim if self.kind == "q8_0" else 0

    def _factor_bytes(self, dim: int) -> int:
        return 2 * PAGE * (dim // BLOCK) if self.kind == "q8_0" else 0

    @property
    def key_factors(self) -> int:
        return self.element * PAGE * self.key_dim

    @property
    def values(self) -> int:
        return self.key_factors + self._factor_bytes(self.key_dim)

    @property
    def value_factors(self) -> int:
        return self.values + self.element * PAGE * self.value_dim

    @property
    def nbytes(self) -> int:
        return self.value_factors + self._factor_bytes(self.value_dim)

    def page(self, cache: Value, n_pages: Value, head: Value, page: Value) -> Value:
        """Return the address of a page; a layer's cache holds its KV heads one after the other, each with all its
        pages.
        """
        return cache + (head * n_pages + page) * self.nbytes

    def store(self, f: Function, page: Value, slot: Value, key: Value, value: Value) -> None:
        """Write the floats at `key` and `value` to position `slot` of the page."""
        if self.kind == "f16":
            with f.loop(self.key_dim) as i:
                half = float_to_halves(f.load(f32, key, i * 4))
                f.store(half, page, (i * PAGE + slot) * 2)
            with f.loop(0, self.value_dim, 16) as i:
                half = float_to_halves(f.load(f32 * 16, value, i * 4))
                f.store(half, page + self.values, (slot * self.value_dim + i) * 2)
            return
        for source, dim, factors in (
            (key, self.key_dim, self.key_factors),
            (value, self.value_dim, self.value_factors),
        ):
            with f.loop(dim // BLOCK) as block:
                numbers, factor = _quantized(f, source + block * (4 * BLOCK))
                f.store(float_to_halves(factor), page + factors, (block * PAGE + slot) * 2)
                for part, q in enumerate(numbers):
                    first = block * BLOCK + 16 * part
                    if source is value:
                        f.store(q, page + self.values, slot * self.value_dim + first)
                        continue
                    for lane in range(16):
                        f.store(q.lane(lane), page, (first + lane) * PAGE + slot)


@dataclass(frozen=True, slots=True)
class LatentLayout:
    """A page of keys whose first elements are the values, too; `kind` is one of KINDS."""

    kind: str
    dim: int

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert self.dim % self.block == 0, f"latent keys of {self.dim} in blocks of {self.block}"

    @property
    def block(self) -> int:
        """Elements that are stored together."""
        return BLOCK if self.kind == "q8_0" else 16

    @property
    def element(self) -> int:
        return 1 if self.kind == "q8_0" else 2

    @property
    def factors(self) -> int:
        """The byte offset of the factors."""
        return self.element * PAGE * self.dim

    @property
    def nbytes(self) -> int:
        return self.factors + (2 * PAGE * (self.dim // BLOCK) if self.kind == "q8_0" else 0)

    def page(self, cache: Value, page: Value) -> Value:
        """Return the address of a page."""
        return cache + page * self.nbytes

    def store(self, f: Function, page: Value, slot: Value, key: Value) -> None:
        """Write the floats at `key` to position `slot` of the page."""
        with f.loop(self.dim // self.block) as i:
            block, source = slot * (self.dim // self.block) + i, key + i * (4 * self.block)
            if self.kind == "q8_0":
                vectors, factor = _quantized(f, source)
                f.store(float_to_halves(factor), page + self.factors, block * 2)
            else:
                vectors = [float_to_halves(f.load(f32 * 16, source))]
            for part, vector in enumerate(vectors):
                f.store(vector, page, block * (self.block * self.element) + part * vector.type.nbytes)

    def unpack(self, f: Function, page: Value, keys: Value) -> None:
        """Convert a page to floats, [PAGE, dim]."""
        lanes = f.isa.lanes
        with f.loop(PAGE * self.dim // self.block) as block:
            if self.kind == "q8_0":
                factor = halves_to_float(f.load(u16, page + self.factors, block * 2)).splat(lanes)
            for i in range(0, self.block, lanes):
                at = block * self.block + i
                if self.kind == "q8_0":
                    number = f.load(i8 * lanes, page, at).to(f32) * factor
                else:
                    number = halves_to_float(f.load(u16 * lanes, page, at * 2))
                f.store(number, keys, at * 4)


def _quantized(f: Function, source: Value) -> tuple[list[Value], Value]:
    """32 floats as two vectors of 16 i8 and their factor, as Q8_0 rounds them."""
    vectors = [f.load(f32 * 16, source, 64 * part) for part in range(2)]
    # As bits: there NaN is above all numbers, so that it becomes the factor and is not lost.
    sizes = [v.view(i32 * 16) & 0x7FFFFFFF for v in vectors]
    largest = max_lanes(sizes[0].maximum(sizes[1])).view(f32)
    inverse = (largest > 0).select(127.0 / largest, 0.0).splat(16)
    return [round_to_int(v * inverse).to(i8) for v in vectors], largest * (1 / 127)
