"""The constants of the prediction, each with its source, and what engine they stand for.

`SHARES` and `SPREADS` are what plan/fit.py computes from the published measurements (tests/plan/test_fit.py holds
them to it); the others were read off the same measurements by hand and are explained in docs/prediction.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from seventy.plan.machine import Machine


@dataclass(frozen=True, slots=True)
class Share:
    """The share of peak bandwidth a class of machine reaches, and the factor either way that holds four of five."""

    share: float
    spread: float


# kind of machine -> share of peak, spread, from plan/fit.py.
SHARES: Mapping[str, Share] = {
    "server": Share(0.63, 1.45),
    "two sockets": Share(0.45, 1.6),
    "desktop": Share(0.77, 1.45),
    "mobile": Share(0.57, 1.45),
    "apple": Share(0.53, 1.45),
    "arm": Share(0.46, 1.45),
    "measured": Share(0.85, 1.45),
}
# A barrier costs each thread of llama.cpp about this much per layer (about ten operations): the intercepts of
# EPYC 9554 (64 threads, four quants), Xeon 6980P (128), AmpereOne (192) and 7965WX (24) give 4.2 to 6.7.
BARRIER_US_PER_THREAD_LAYER = 5.0
# Operations per cycle and core while decoding one token, where arithmetic and not memory is the limit. Few machines
# are: Core 2 (M073), Sandy Bridge (M074), 6 threads of an E5 v4 (M014); two Zen 4 cores do at least 12 (D001).
DECODE_OPS_PER_CYCLE = {
    "sse": 0.8, "avx": 4.0, "avx2": 16.0, "avxvnni": 18.0, "avx512": 16.0, "avx512vnni": 22.0, "amx": 22.0,
    "neon": 3.0, "dotprod": 5.0, "i8mm": 9.0,
}  # fmt: skip
# Weights of 2 and 3 bits take twice the arithmetic of 4 (M013 and M014, both on 6 threads of an E5-2680 v4).
LOW_BIT_COST = 2.0
# Operations per cycle and core of a prompt, llama.cpp since 2024, 4- to 8-bit weights, dense.
PREFILL_OPS_PER_CYCLE = {
    "sse": 1.5, "avx": 5.0, "avx2": 24.0, "avxvnni": 27.0, "avx512": 24.0, "avx512vnni": 26.0, "amx": 40.0,
    "neon": 4.0, "dotprod": 10.0, "i8mm": 16.0,
}  # fmt: skip
SLOW_CORES = {"Alder Lake-N": 0.4, "Zen": 0.6, "Zen+": 0.6, "Zen (Naples)": 0.6, "Jasper Lake": 0.5}
PREFILL_MIXTURE = 0.45
PREFILL_PER_EXTRA_SOCKET = 0.7
# What the whole prefill side is scaled by, from plan/fit.py.
PREFILL_SCALE = 1.07
PREFILL_SPREAD = 1.6
# What seventy aims at beside llama.cpp (docs/prediction.md); to be replaced by its own measurements.
SEVENTY_PREFILL_AIM, SEVENTY_BARRIER_AIM = 1.7, 0.5
# GB/s one core can draw: ten to sixteen outstanding 64-byte lines over 60 to 100 ns.
CORE_GBS = {"server": 9.0, "two sockets": 9.0, "desktop": 22.0, "mobile": 18.0, "apple": 25.0, "arm": 10.0}


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything the prediction takes from measurements."""

    shares: Mapping[str, Share]
    prefill_scale: float = PREFILL_SCALE
    prefill_spread: float = PREFILL_SPREAD

    def bandwidth(self, machine: Machine, engine: str) -> Share:
        """Share and spread for a machine; wider for a CPU the catalogue does not know."""
        # Two sockets lose their time between the sockets, however much both can read.
        kind = "measured" if machine.measured_gbs and machine.sockets == 1 else machine.kind
        found = self.shares.get(kind) or self.shares["server"]
        spread = found.spread * (1.25 if machine.guessed and machine.measured_gbs is None else 1.0)
        share = found.share
        if engine == "seventy" and kind == "two sockets":
            # Each socket reads its own share of the weights; the aim is one socket's share, not measured yet.
            share = math.sqrt(share * self.shares["server"].share)
        return Share(min(share, 1.0), spread)

    def core_gbs(self, machine: Machine) -> float:
        return CORE_GBS.get(machine.kind, 9.0)

    def barrier_us(self, engine: str) -> float:
        return BARRIER_US_PER_THREAD_LAYER * (SEVENTY_BARRIER_AIM if engine == "seventy" else 1.0)

    def decode_ops_per_s(self, machine: Machine, low_bit: bool, workers: int) -> float:
        per_cycle = DECODE_OPS_PER_CYCLE[machine.isa] * SLOW_CORES.get(machine.microarch, 1.0)
        return workers * machine.ghz * 1e9 * per_cycle / (LOW_BIT_COST if low_bit else 1.0)

    def prefill_ops_per_s(self, machine: Machine, mixture: bool, engine: str) -> tuple[float, float]:
        """Operations per second of a prompt, and the spread."""
        per_cycle = PREFILL_OPS_PER_CYCLE[machine.isa] * SLOW_CORES.get(machine.microarch, 1.0)
        rate = machine.cores * machine.ghz * 1e9 * per_cycle * self.prefill_scale
        if mixture:
            rate *= PREFILL_MIXTURE
        rate *= PREFILL_PER_EXTRA_SOCKET ** (machine.sockets - 1)
        if engine == "seventy":
            rate *= SEVENTY_PREFILL_AIM
        if machine.measured_int8_gops is not None:
            rate = min(rate, machine.measured_int8_gops * 1e9)
        return rate, self.prefill_spread * (1.25 if machine.guessed else 1.0)


CALIBRATION = Calibration(SHARES)
