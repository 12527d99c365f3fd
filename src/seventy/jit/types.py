"""The types of the SIMD language: integers with a sign, floats, pointers, and vectors of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (`lanes` 0) or a vector; `kind` is i (signed), u (unsigned), f (float) or p (pointer)."""

    kind: str
    bits: int
    lanes: int = 0

    def __str__(self) -> str:
        """The type in LLVM's notation."""
        if self.kind == "p":
            element = "ptr"
        elif self.kind == "f":
            element = {16: "half", 32: "float", 64: "double"}[self.bits]
        else:
            element = f"i{self.bits}"
        return f"<{self.lanes} x {element}>" if self.lanes else element

    @property
    def element(self) -> "Type":
        return Type(self.kind, self.bits)

    @property
    def nbytes(self) -> int:
        return self.bits // 8 * max(1, self.lanes)

    def __mul__(self, lanes: int) -> "Type":
        """`f32 * 16` is a vector of 16 floats."""
        assert not self.lanes, f"{self} is a vector already"
        return Type(self.kind, self.bits, lanes)


i8, i16, i32, i64 = (Type("i", bits) for bits in (8, 16, 32, 64))
u8, u16, u32 = (Type("u", bits) for bits in (8, 16, 32))
f16, f32 = (Type("f", bits) for bits in (16, 32))
pointer = Type("p", 64)
