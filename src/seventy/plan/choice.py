"""Which quant of a model to take on a machine, and what its neighbours would do.

On a CPU bytes are seconds. So Q4_K_M or its nearest equal; a larger one only where it fits and its predicted speed
stays at 10 tokens a second; a smaller one only where that does not fit, and never below 3 bits without being asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seventy.catalog.quants import nominal_bits, plain, tensor_types
from seventy.plan.machine import Machine
from seventy.plan.roofline import Band, Load, predict
from seventy.plan.runs import Reason, why_not

# What is as good as Q4_K_M, the best first; MXFP4 first where a model was trained in it.
EQUALS = (
    "Q4_K_M", "MXFP4", "UD-Q4_K_XL", "Q4_K_XL", "Q4_K_L", "MXFP4_MOE", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_K", "Q4_1",
    "Q4_0",
)  # fmt: skip
TRAINED_IN_MXFP4 = ("gpt-oss",)
FAST_ENOUGH = 10.0
LEAST_BITS = 3
# Beyond Q8_0 nothing is gained that anyone could tell.
MOST_BITS = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quant on a machine: what it needs, whether that fits, how fast it should be and with which engine.

    `need_bytes` is of memory; `engine` is seventy, or llama.cpp where seventy cannot run it (`problem` says why);
    `index` is its place in what was offered.
    """

    index: int
    load: Load
    need_bytes: int
    fits: bool
    speed: Band
    engine: str
    problem: Reason | None

    @property
    def quant(self) -> str:
        return self.load.quant

    @property
    def bits(self) -> int:
        return nominal_bits(self.quant)


@dataclass(frozen=True, slots=True)
class Choice:
    """`chosen` is None where none fits or only those below 3 bits do; `why` is a key of plan/words.py."""

    chosen: Candidate | None
    why: str
    smaller: Candidate | None
    larger: Candidate | None
    candidates: tuple[Candidate, ...]


def candidates(
    loads: Sequence[Load], architecture: str, experts: bool, machine: Machine, context: int
) -> list[Candidate]:
    """Collect size, speed and quality of each load on this machine."""
    found = []
    for index, load in enumerate(loads):
        problem = why_not("seventy", architecture, tensor_types(load.quant), experts, machine)
        engine = "llama.cpp" if problem else "seventy"
        speed, need = predict(machine, load, engine=engine).decode, load.need(context)
        found.append(Candidate(index, load, need.total, machine.holds(need), speed, engine, problem))
    return found


def choose(offered: Sequence[Candidate], architecture: str, quant: str | None = None) -> Choice:
    """Choose a quant by the rule above, or `quant` if it is offered; Choice.chosen is None if it is not."""
    ordered = sorted(offered, key=lambda each: each.load.file_gb)
    if quant is not None:
        same = [each for each in ordered if each.quant.upper() == quant.upper()]
        return _with_neighbours(same[0] if same else None, "q_asked", ordered)
    # What the engine can run, where it can run any of them.
    usable = [each for each in ordered if each.problem is None] or list(ordered)
    if not usable:
        return Choice(None, "q_none", None, None, ())
    base = min(usable, key=lambda each: _distance(each, architecture))
    return _at_least(base, usable, architecture) if base.fits else _below(base, usable)


def _at_least(base: Candidate, usable: Sequence[Candidate], architecture: str) -> Choice:
    """`base`, which fits, or the largest of more bits that fits and stays fast."""
    trained = architecture in TRAINED_IN_MXFP4
    larger = [each for each in usable if not trained and _better(each, base)]
    if larger:
        return _with_neighbours(_largest(larger), "q_larger", usable)
    return _with_neighbours(base, "q_four" if base.bits == 4 else "q_nearest", usable)


def _better(each: Candidate, base: Candidate) -> bool:
    return base.bits < each.bits <= MOST_BITS and each.fits and each.speed.mid >= FAST_ENOUGH


def _below(base: Candidate, usable: Sequence[Candidate]) -> Choice:
    """The largest that fits where `base` does not; none is chosen below 3 bits."""
    smaller = [each for each in usable if each.load.file_gb < base.load.file_gb and each.fits]
    good = [each for each in smaller if each.bits >= LEAST_BITS]
    if good:
        return _with_neighbours(_largest(good), "q_smaller", usable)
    if smaller:
        return Choice(None, "q_two_bits", _largest(smaller), base, tuple(usable))
    return Choice(None, "q_too_large", None, usable[0], tuple(usable))


def _largest(ordered: Sequence[Candidate]) -> Candidate:
    """The largest, of llama.cpp's own mixtures where there are some: what is in others their names do not tell."""
    own = [each for each in ordered if not each.quant.startswith("UD-") and not each.quant.endswith("XL")]
    return (own or ordered)[-1]


def _distance(candidate: Candidate, architecture: str) -> tuple[int, float]:
    """How far a quant is from Q4_K_M: the place among its equals, else by bits, above before below."""
    order = ("MXFP4", *EQUALS) if architecture in TRAINED_IN_MXFP4 else EQUALS
    name = candidate.quant.upper()
    for text in (name, plain(name)):
        if text in order:
            return order.index(text), 0.0
    if candidate.bits == 4:
        return len(order), candidate.load.file_gb
    away = candidate.bits - 4.0 if candidate.bits > 4 else 2.5 * (4.0 - candidate.bits)
    return len(order) + 1 + round(10 * away), candidate.load.file_gb


def _with_neighbours(chosen: Candidate | None, why: str, ordered: Sequence[Candidate]) -> Choice:
    """The choice between the nearest quants of fewer and of more bits; between the next in size where none has."""
    if chosen is None:
        return Choice(None, why, None, None, tuple(ordered))
    below = [each for each in ordered if each.load.file_gb < chosen.load.file_gb]
    above = [each for each in ordered if each.load.file_gb > chosen.load.file_gb]
    fewer = [each for each in below if each.bits < chosen.bits]
    more = [each for each in above if each.bits > chosen.bits]
    return Choice(
        chosen, why, (fewer or below)[-1] if below else None, (more or above)[0] if above else None, tuple(ordered)
    )
