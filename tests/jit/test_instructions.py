"""What each ISA level's machine code consists of, also of levels this CPU cannot run."""

import re

import pytest

from seventy.jit.compiler import Kernel, compile_assembly
from seventy.jit.isa import LEVELS

# Instructions on 256-bit integers came with AVX2; AVX knows loads, stores, logic and shuffles of floats there.
_INTEGERS_256 = r"^\s+vp(?!ermilp|erm2f128|test)\w+\s.*ymm|^\s+v(inserti128|extracti128|pbroadcast\w+|broadcasti128)\s"
_FMA, _F16C, _VNNI = r"^\s+vfn?m(add|sub)\w+\s", r"^\s+vcvt(ph2ps|ps2ph)\s", r"^\s+(\{vex\}\s+)?vpdp\w+\s"
_ZMM, _MASKS = r"%zmm|\bzmm", r"%k[0-7]\b|\bk[1-7]\}"
EXPECTED = {
    "generic": {"pmaddwd": r"^\s+pmaddwd\s.*xmm"},
    "avx": {"vpmaddubsw": r"^\s+vpmaddubsw\s.*xmm"},
    "avx2": {"vpmaddubsw": r"^\s+vpmaddubsw\s.*ymm", "fma": _FMA, "f16c": _F16C},
    "avxvnni": {"vpdpbusd": r"^\s+\{vex\}\s+vpdpbusd\s.*ymm", "fma": _FMA, "f16c": _F16C},
    "avx512-256": {"vpmaddubsw": r"^\s+vpmaddubsw\s.*ymm", "registers of AVX-512": r"%ymm(1[6-9]|2\d|3[01])"},
    "avx512": {"vpmaddubsw": r"^\s+vpmaddubsw\s.*zmm", "fma": _FMA, "f16c": _F16C},
    "avx512vnni-256": {"vpdpbusd": r"^\s+vpdpbusd\s.*ymm", "registers of AVX-512": r"%ymm(1[6-9]|2\d|3[01])"},
    "avx512vnni": {"vpdpbusd": r"^\s+vpdpbusd\s.*zmm", "fma": _FMA, "f16c": _F16C},
}
FORBIDDEN = {
    "generic": {"AVX": r"^\s+v(p|mov|add|mul|fm)\w+\s", "pmaddubsw": r"^\s+(pmaddubsw|pshufb|psign|pabs)"},
    "avx": {"256-bit integers": _INTEGERS_256, "FMA": _FMA, "F16C": _F16C, "zmm": _ZMM, "masks": _MASKS},
    "avx2": {"VNNI": _VNNI, "zmm": _ZMM, "masks": _MASKS},
    "avxvnni": {"zmm": _ZMM, "masks": _MASKS, "an EVEX vpdpbusd": r"^\s+vpdp\w+\s"},
    "avx512-256": {"VNNI": _VNNI, "zmm": _ZMM},
    "avx512": {"VNNI": _VNNI},
    "avx512vnni-256": {"zmm": _ZMM},
    "avx512vnni": {},
}
KERNELS = [
    Kernel("seventy.kernels.matmul:build", ("Q4_K",)),
    Kernel("seventy.kernels.matmul:build", ("Q8_0",)),
    Kernel("seventy.kernels.attention:build", (1, 1, 64, 64, "q8_0")),
    Kernel("seventy.kernels.activations:build", ("norm", "q8_256")),
]


@pytest.mark.parametrize("level", LEVELS)
def test_instructions_are_those_of_the_level(level: str) -> None:
    texts = {kernel: compile_assembly(kernel, LEVELS[level]) for kernel in KERNELS}
    for kernel, text in texts.items():
        for what, pattern in FORBIDDEN[level].items():
            found = re.search(pattern, text, re.MULTILINE)
            assert not found, f"{kernel} at {level} uses {what}: {found and found[0]}"
    whole = "\n".join(texts.values())
    for what, pattern in EXPECTED[level].items():
        assert re.search(pattern, whole, re.MULTILINE), f"no kernel at {level} uses {what}"


@pytest.mark.parametrize("level", ["avx", "avx2", "avx512", "avx512vnni"])
def test_tables_are_looked_up_by_byte_shuffles(level: str) -> None:
    assert "vpshufb" in compile_assembly(Kernel("seventy.kernels.matmul:build", ("IQ4_NL",)), LEVELS[level])
