"""ISA levels: which instructions a kernel may use, and which of them this CPU has."""

import functools
import os
from dataclasses import dataclass, replace

from llvmlite import binding

from seventy.errors import SeventyError

_AVX = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "avx")
_AVX2 = (*_AVX, "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")


@dataclass(frozen=True, slots=True)
class Isa:
    """An ISA level: LLVM's feature names, and what kernels ask about them.

    `lanes` is the number of 32-bit lanes of the vectors a kernel should use; `dot` how it multiplies
    unsigned by signed bytes: `vnni` (4 products into 32 bits), `maddubs` (2 into 16 bits) or `widen` (in 16 bits).
    `optional` features are used where the CPU has them; they make kernels faster and change no result.
    """

    name: str
    features: tuple[str, ...]
    lanes: int
    dot: str
    optional: tuple[str, ...] = ()

    @property
    def vbmi(self) -> bool:
        """Whether bytes are looked up in tables of 128 by one instruction."""
        return "avx512vbmi" in self.features

    @property
    def narrowed(self) -> bool:
        """Whether the CPU has vectors of 512 bits and the kernels keep to 256 (and to AVX-512's 32 registers)."""
        return "avx512f" in self.features and self.lanes < 16

    @property
    def fma(self) -> bool:
        return "fma" in self.features

    @property
    def f16c(self) -> bool:
        return "f16c" in self.features


LEVELS = {
    level.name: level
    for level in (
        Isa("generic", ("sse2",), 4, "widen"),
        # Sandy and Ivy Bridge: integers of 128 bits only, no FMA, and half of them no F16C.
        Isa("avx", _AVX, 4, "maddubs"),
        Isa("avx2", _AVX2, 8, "maddubs"),
        Isa("avxvnni", (*_AVX2, "avxvnni"), 8, "vnni"),
        # Some CPUs lower their clock while they multiply 512 bits (Skylake-X and its Xeons).
        Isa("avx512-256", _AVX512, 8, "maddubs"),
        Isa("avx512", _AVX512, 16, "maddubs"),
        # Ice Lake and Zen 4 have VBMI, Cascade Lake has not.
        Isa("avx512vnni-256", (*_AVX512, "avx512vnni"), 8, "vnni", ("avx512vbmi",)),
        Isa("avx512vnni", (*_AVX512, "avx512vnni"), 16, "vnni", ("avx512vbmi",)),
    )
}


@functools.cache
def host_features() -> frozenset[str]:
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


# LLVM's name of a CPU, where its makers' is another.
_MICROARCHITECTURES = {
    "znver1": "Zen", "znver2": "Zen 2", "znver3": "Zen 3", "znver4": "Zen 4", "znver5": "Zen 5", "bdver4": "Excavator",
    "sandybridge": "Sandy Bridge", "ivybridge": "Ivy Bridge", "haswell": "Haswell", "broadwell": "Broadwell",
    "skylake": "Skylake", "skylake-avx512": "Skylake-X", "cascadelake": "Cascade Lake", "cooperlake": "Cooper Lake",
    "icelake-client": "Ice Lake", "icelake-server": "Ice Lake-SP", "tigerlake": "Tiger Lake",
    "rocketlake": "Rocket Lake", "alderlake": "Alder Lake", "raptorlake": "Raptor Lake", "meteorlake": "Meteor Lake",
    "arrowlake": "Arrow Lake", "arrowlake-s": "Arrow Lake", "lunarlake": "Lunar Lake", "gracemont": "Gracemont",
    "sapphirerapids": "Sapphire Rapids", "emeraldrapids": "Emerald Rapids", "graniterapids": "Granite Rapids",
    "graniterapids-d": "Granite Rapids-D", "sierraforest": "Sierra Forest", "clearwaterforest": "Clearwater Forest",
}  # fmt: skip
# Instructions that say what an engine could do here, whether ours uses them or not.
_TOLD = {
    "avx512vnni": "AVX-512 VNNI", "avxvnni": "AVX-VNNI", "avxvnniint8": "AVX-VNNI-INT8", "avx512vbmi": "AVX-512 VBMI",
    "avx512bf16": "AVX-512 BF16", "avx512fp16": "AVX-512 FP16", "amx-int8": "AMX int8", "amx-bf16": "AMX bf16",
    "amx-fp16": "AMX fp16", "avx10.1": "AVX10.1", "avx10.2": "AVX10.2",
}  # fmt: skip


def microarchitecture() -> str | None:
    """Name this CPU's microarchitecture by family, model and instructions; None if unknown."""
    return _MICROARCHITECTURES.get(binding.get_host_cpu_name())


def waits_for_memory() -> bool:
    """Whether a core of this CPU is too slow at asking for memory while it multiplies, so that kernels ask ahead even
    for one row. Measured on Zen 3 only (docs/lab.md); Zen 4 loses by it.
    """
    return binding.get_host_cpu_name() == "znver3"


def notable_features() -> list[str]:
    """List the instruction sets of this CPU beyond AVX2 and AVX-512's first."""
    return [told for name, told in _TOLD.items() if name in host_features()]


def supported() -> list[Isa]:
    """List the ISA levels this CPU can run, lowest first, without those narrowed to 256 bits."""
    return [level for level in _runnable() if not level.narrowed]


def narrow(level: Isa) -> Isa | None:
    """Return the same level with vectors of 256 bits; None if its own are not wider."""
    found = LEVELS.get(f"{level.name}-256")
    return _with_optional(found) if found else None


def wide_name(name: str) -> str:
    """Return the level's name, or that of the level it was narrowed from."""
    return name.removesuffix("-256")


def choices(name: str | None = None) -> tuple[Isa, ...]:
    """Return the level that `select` gives and, if none was requested by name, also its narrowed form."""
    level = select(name)
    other = None if name or os.environ.get("SEVENTY_ISA") else narrow(level)
    return (level, other) if other else (level,)


def _with_optional(level: Isa) -> Isa:
    """The level with those of its optional features that this CPU has."""
    present = tuple(name for name in level.optional if name in host_features())
    return replace(level, features=level.features + present)


def _runnable() -> list[Isa]:
    return [_with_optional(level) for level in LEVELS.values() if host_features().issuperset(level.features)]


def select(name: str | None = None) -> Isa:
    """Return the level called `name`, else the one SEVENTY_ISA names, else the highest this CPU has.

    Raises SeventyError for a level that is unknown or that this CPU lacks.
    """
    name = name or os.environ.get("SEVENTY_ISA")
    levels = _runnable()
    if not levels:
        raise SeventyError("the engine has kernels for x86-64 CPUs only, and this is none; seventy plan still works")
    if not name:
        return levels[-1]
    names = ", ".join(level.name for level in levels)
    if name not in LEVELS:
        raise SeventyError("there is no ISA level {name!r}; this CPU can run: {names}", name=name, names=names)
    for level in levels:
        if level.name == name:
            return level
    missing = ", ".join(feature for feature in LEVELS[name].features if feature not in host_features())
    raise SeventyError(
        "this CPU cannot run {name}: it lacks {missing}; it can run: {names}",
        name=name, missing=missing, names=names,
    )
