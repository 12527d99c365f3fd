"""The constants of the prediction, each with its source, and what engine they stand for.

`SHARES` and `SPREADS` are what plan/fit.py computes from the published measurements (tests/plan/test_fit.py holds
them to it); the others were read off the same measurements by hand and are explained in docs/prediction.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from seventy.catalog.quants import plain
from seventy.plan.machine import Machine


@dataclass(frozen=True, slots=True)
class Share:
    """The share of peak bandwidth a class of machine reaches, and the factor either way that holds four of five."""

    share: float
    spread: float


# kind of machine -> share of peak, spread, from plan/fit.py.
SHARES: Mapping[str, Share] = {
    "server": Share(0.62, 1.45),
    "two sockets": Share(0.19, 1.47),
    "two sockets tuned": Share(0.57, 1.45),
    "desktop": Share(0.8, 1.45),
    "desktop assumed": Share(0.74, 1.45),
    "mobile": Share(0.57, 1.45),
    "mobile AMD": Share(0.6, 1.45),
    "limited": Share(0.8, 1.45),
    "apple": Share(0.5, 1.45),
    "arm": Share(0.61, 1.45),
    "measured": Share(0.85, 1.45),
}
# A barrier costs each thread of llama.cpp about this much per layer (about ten operations): the intercepts of
# EPYC 9554 (64 threads, four quants), Xeon 6980P (128), AmpereOne (192) and 7965WX (24) give 4.2 to 6.7.
BARRIER_US_PER_THREAD_LAYER = 5.0
# Operations per cycle and core while decoding one token, where arithmetic and not memory is the limit. Few machines
# are: Core 2 (M073), Sandy and Ivy Bridge (M074, M019), 6 threads of an E5 v4 (M014), a Raspberry Pi 4 (H34); two Zen 4
# cores do at least 12 (D001). Latent attention is multiplied at this rate, too (M034, M040, M105).
DECODE_OPS_PER_CYCLE = {
    "sse": 0.8, "avx": 3.2, "avx2": 16.0, "avxvnni": 18.0, "avx512": 16.0, "avx512vnni": 22.0, "amx": 22.0,
    "neon": 1.0, "dotprod": 12.0, "i8mm": 12.0,
}  # fmt: skip
# Weights of 2 and 3 bits take twice the arithmetic of 4 (M013 and M014, both on 6 threads of an E5-2680 v4).
LOW_BIT_COST = 2.0
# seventy's own, by the beginnings of quants' names: with AVX-512 VNNI, whose CPUs look bytes up in registers, and on
# all others. One row in cache on a Zen 4 core beside what DECODE_OPS_PER_CYCLE has (docs/lab.md, 2026-11-27).
SEVENTY_LOW_BIT_COST = {
    "IQ1_S": (1.9, 1.5), "IQ1_M": (2.1, 2.4), "IQ2_XXS": (1.2, 2.4), "IQ2_XS": (1.4, 2.4), "IQ2_": (1.6, 2.4),
    "IQ3_XXS": (1.5, 3.1), "IQ3_": (1.8, 3.1), "Q2_": (1.0, 1.0), "Q3_": (1.0, 1.0),
}  # fmt: skip
# Operations per cycle and core of a prompt, dense models of 4 to 8 bits, read off the measurements by hand: llama.cpp
# since 2024, and ik_llama.cpp, whose kernels repack every quant and do not use AMX.
PREFILL_OPS_PER_CYCLE = {
    "llama.cpp": {
        "sse": 1.5, "avx": 5.0, "avx2": 24.0, "avxvnni": 27.0, "avx512": 24.0, "avx512vnni": 26.0, "amx": 40.0,
        "neon": 3.0, "dotprod": 14.0, "i8mm": 16.0,
    },
    "ik_llama.cpp": {
        "sse": 1.5, "avx": 5.0, "avx2": 33.0, "avxvnni": 40.0, "avx512": 40.0, "avx512vnni": 65.0, "amx": 46.0,
        "neon": 8.0, "dotprod": 20.0, "i8mm": 40.0,
    },
}  # fmt: skip
# llama.cpp's own kernels without repacking: types that it multiplies as they lie (M099, M101).
NOT_REPACKED, NOT_REPACKED_COST = ("IQ",), 0.55
SLOW_CORES = {"Alder Lake-N": 0.4, "Zen": 0.6, "Zen+": 0.6, "Zen (Naples)": 0.6, "Jasper Lake": 0.5}
# Cores beyond these are worth this much of the others in a prompt: 128 of a Xeon 6980P against 64 (M037, M038).
MANY_CORES, MANY_CORES_WORTH = 64, 0.35
# Gathering the rows of an expert, and few rows for each, cost so much of the rate.
PREFILL_MIXTURE = {"llama.cpp": 0.45, "ik_llama.cpp": 0.6}
# Two sockets read a prompt no faster than one of them (M027 to M034, N031; H44's source says so of its own).
PREFILL_PER_EXTRA_SOCKET = 0.5
# Chips of laptops and mini PCs do not keep the clock of all cores through a prompt (N016 to N021, H43).
PREFILL_MOBILE = 0.8
# What the whole prefill side is scaled by, and the spread, from plan/fit.py.
PREFILL_SCALE = {"llama.cpp": 1.12, "ik_llama.cpp": 1.14}
PREFILL_SPREAD = 1.45
# Rows of a prompt that share one reading of the weights.
PREFILL_BATCH = 512
# seventy beside llama.cpp, prompts of 512 tokens on the shapes of a 70B (docs/lab.md, 2026-11-25: 2.0 with AVX-512 VNNI
# and with AVX2 on Zen 4, 2 cores), of mixtures (2026-11-27: 1.7 to 4.3, the middle). Elsewhere not measured.
SEVENTY_PREFILL, SEVENTY_PREFILL_MIXTURE, SEVENTY_BARRIER_AIM = 2.0, 2.4, 0.5
# Operations per cycle and core that seventy's AVX2 products of a prompt do at most, by the beginnings of
# microarchitectures and quants; others have no such limit here. Of Q8_0, inputs take signs at each product, and each
# product is widened by itself. Zen 3: measured, one thread, 3.0 GHz (lab.md, 2026-11-28). The rest is computed, not
# measured: llvm-mca's figures times 0.9, the median of what Zen 3 reaches of its own (0.72 to 0.97). Haswell's are
# Broadwell's.
_BROADWELL = {"Q4_K": 46.6, "Q5_K": 42.1, "Q6_K": 44.6, "Q8_0": 26.8, "Q4_0": 40.6, "MXFP4": 35.8}
_SKYLAKE = {"Q4_K": 68.6, "Q5_K": 61.7, "Q6_K": 64.2, "Q8_0": 31.1, "Q4_0": 56.2, "MXFP4": 50.0}
SEVENTY_AVX2_OPS_PER_CYCLE = {
    "Zen 3": {"Q4_K": 66.0, "Q5_K": 61.0, "Q6_K": 47.0, "Q8_0": 37.0, "Q4_0": 60.0, "MXFP4": 55.0},
    "Haswell": _BROADWELL, "Broadwell": _BROADWELL,
    "Skylake": _SKYLAKE, "Kaby Lake": _SKYLAKE, "Coffee Lake": _SKYLAKE, "Comet Lake": _SKYLAKE,
}  # fmt: skip
# What a step of seventy takes beside reading, in microseconds: what Python does between two (lab.md, 2026-11-27), and
# the 13 operations of a layer, each of which begins anew: SmolLM2's layers say 37 on Zen 4 and 83 on Zen 3 (results/).
SEVENTY_STEP_US, SEVENTY_LAYER_US = 400.0, 70.0
# GB/s one core can draw: ten to sixteen outstanding 64-byte lines over 60 to 100 ns.
CORE_GBS = {"server": 9.0, "two sockets": 9.0, "two sockets tuned": 9.0, "desktop": 22.0, "mobile": 18.0,
            "mobile AMD": 18.0, "apple": 25.0, "arm": 10.0}  # fmt: skip
# Newer server cores draw more: 16 of an EPYC 9135 read 281 GB/s for 7.17 tok/s (H23), 17.6 each and not at their limit.
# What that limit is, is inferred, not measured.
NEWER_CORE_GBS = {"Zen 5 (Turin)": 20.0, "Zen 4 (Genoa)": 14.0}


def class_of(machine: Machine) -> str:
    """Return the calibration class: measured, limited (by links, not channels), else the machine's kind.

    Two sockets lose time in the link between them, however much both can read.
    """
    if machine.sockets > 1:
        return machine.kind
    if machine.measured_gbs:
        return "measured"
    if machine.limited and machine.kind != "apple":
        return "limited"
    assumed = machine.kind == "desktop" and any(key == "memory_assumed" for key, _ in machine.notes)
    return "desktop assumed" if assumed else machine.kind


def _most_ops_per_cycle(machine: Machine, quant: str) -> float:
    """Return the operations per cycle and core that seventy's products of this quant are limited to; inf if unknown."""
    if machine.isa != "avx2":
        return math.inf
    of_cpu = (by_quant for name, by_quant in SEVENTY_AVX2_OPS_PER_CYCLE.items() if machine.microarch.startswith(name))
    return next((ops for name, ops in next(of_cpu, {}).items() if plain(quant).startswith(name)), math.inf)


@dataclass(frozen=True, slots=True)
class Measured:
    """The ratio of measured to predicted speed in imported runs, and their number; None if it was not measured."""

    decode: float | None
    prefill: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything the prediction takes from measurements.

    `local` is what cards imported on this machine say (plan/local.py), by CPU or class and engine.
    """

    shares: Mapping[str, Share]
    prefill_scale: Mapping[str, float] = field(default_factory=lambda: PREFILL_SCALE)
    prefill_spread: float = PREFILL_SPREAD
    local: Mapping[tuple[str, str], Measured] = field(default_factory=dict)

    def measured(self, machine: Machine, engine: str) -> Measured | None:
        """Return what imported cards say of this CPU, or of machines of its class."""
        name = machine.cpu.name if machine.cpu is not None else machine.name
        return self.local.get((name, engine)) or self.local.get((machine.kind, engine))

    def bandwidth(self, machine: Machine, engine: str) -> Share:
        """Return the bandwidth's share and spread for a machine; wider for a CPU that is not in the catalogue."""
        kind = class_of(machine)
        found = self.shares.get(kind) or self.shares["server"]
        spread = found.spread * (1.25 if machine.guessed and machine.measured_gbs is None else 1.0)
        share = found.share
        if engine == "seventy" and kind == "two sockets":
            # Each socket reads its own share of the weights; the aim is what tuned machines reach, not measured yet.
            share = self.shares["two sockets tuned"].share
        if (here := self.measured(machine, engine)) and here.decode:
            share *= here.decode
        return Share(min(share, 1.0), spread)

    def tuned(self, machine: Machine) -> Share | None:
        """Return the share of peak bandwidth of two sockets whose owner placed the pages; None for one socket."""
        return self.shares.get("two sockets tuned") if machine.kind == "two sockets" else None

    def core_gbs(self, machine: Machine) -> float:
        return NEWER_CORE_GBS.get(machine.microarch, CORE_GBS.get(machine.kind, 9.0))

    def barrier_us(self, engine: str) -> float:
        return BARRIER_US_PER_THREAD_LAYER * (SEVENTY_BARRIER_AIM if engine == "seventy" else 1.0)

    def starting_s(self, engine: str, layers: int) -> float:
        """Return the seconds of a step that do not depend on how much is read."""
        return (SEVENTY_STEP_US + layers * SEVENTY_LAYER_US) * 1e-6 if engine == "seventy" else 0.0

    def decode_ops_per_s(self, machine: Machine, quant: str, low_bit: bool, workers: int, engine: str) -> float:
        per_cycle = DECODE_OPS_PER_CYCLE[machine.isa] * SLOW_CORES.get(machine.microarch, 1.0)
        cost = LOW_BIT_COST
        if engine == "seventy":
            found = (costs for name, costs in SEVENTY_LOW_BIT_COST.items() if quant.startswith(name))
            cost = next(found, (cost, cost))[machine.isa not in ("avx512vnni", "amx")]
        return workers * machine.ghz * 1e9 * per_cycle / (cost if low_bit else 1.0)

    def prefill_ops_per_s(self, machine: Machine, mixture: bool, engine: str, quant: str = "") -> tuple[float, float]:
        """Return the operations per second of prompts, and the spread as a factor."""
        kernels = "ik_llama.cpp" if engine == "ik_llama.cpp" else "llama.cpp"
        per_cycle = PREFILL_OPS_PER_CYCLE[kernels][machine.isa] * SLOW_CORES.get(machine.microarch, 1.0)
        each = machine.cores / machine.sockets
        cores = machine.sockets * (min(each, MANY_CORES) + MANY_CORES_WORTH * max(0.0, each - MANY_CORES))
        rate = cores * machine.ghz * 1e9 * per_cycle * self.prefill_scale[kernels]
        if mixture:
            rate *= PREFILL_MIXTURE[kernels]
        if machine.kind.startswith("mobile"):
            rate *= PREFILL_MOBILE
        if engine == "llama.cpp" and quant.upper().removeprefix("UD-").startswith(NOT_REPACKED) and not mixture:
            rate *= NOT_REPACKED_COST
        rate *= PREFILL_PER_EXTRA_SOCKET ** (machine.sockets - 1)
        if engine == "seventy":
            rate *= SEVENTY_PREFILL_MIXTURE if mixture else SEVENTY_PREFILL
            rate = min(rate, machine.cores * machine.ghz * 1e9 * _most_ops_per_cycle(machine, quant))
        if (here := self.measured(machine, engine)) and here.prefill:
            rate *= here.prefill
        if machine.measured_int8_gops is not None:
            rate = min(rate, machine.measured_int8_gops * 1e9)
        return rate, self.prefill_spread * (1.25 if machine.guessed else 1.0)


CALIBRATION = Calibration(SHARES)
