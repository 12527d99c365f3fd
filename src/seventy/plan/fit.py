"""Computes the prediction's shares from published measurements, and tests them on sources left out.

`fit` is what the constants in calibration.py come from; `cross_validate` is what docs/prediction.md prints.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from seventy.catalog.cpus import all_cpus, find_cpu
from seventy.catalog.measurements import Measurement, all_measurements
from seventy.catalog.models import find_model
from seventy.errors import SeventyError
from seventy.plan.calibration import CALIBRATION, Calibration, Share, class_of
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import peak_gbs
from seventy.plan.roofline import Load, guess_layers, predict
from seventy.plan.wanted import guess_footprint, hosted_load

# A spread is never published narrower than this: the sources agree with each other no better.
NARROWEST, WIDEST = 1.45, 1.6
_WITHIN = 0.85
# Rows of a class needed before its own spread is trusted; below, the spread of all classes is used.
_ENOUGH_GROUPS = 3

# A measurement, the machine it ran on and the model that ran.
Case: TypeAlias = tuple[Measurement, Machine, Load]
HEAD = "| class | n | sources | median error | band holds | band width |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Tested:
    """A measurement, and the prediction for it by constants fitted without its source."""

    row: Measurement
    kind: str
    mid: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        return abs(self.mid / self.measured - 1)

    @property
    def held(self) -> bool:
        return self.low <= self.measured <= self.high


def load_of(row: Measurement) -> Load | None:
    """Return the model that a source ran; None if its size is unknown."""
    if row.file_gib is None:
        return None
    nbytes = round(row.file_gib * 2**30)
    try:
        model = find_model(row.model)
        if abs(model.params_b / row.params_b - 1) < 0.1:
            return hosted_load(model, row.model, row.quant, nbytes)
    except SeventyError:
        pass
    active = min(1.0, row.active_params_b / row.params_b)
    layers = row.layers or guess_layers(row.params_b, row.active_params_b)
    footprint = guess_footprint(nbytes / 1e9, row.active_params_b, layers)
    return Load(row.model, row.quant, row.params_b, row.active_params_b, nbytes / 1e9, nbytes / 1e9 * active, footprint,
                layers, nbytes / 1e9, active)  # fmt: skip


def machine_of(row: Measurement) -> Machine | None:
    """Return the machine a source used; None if its CPU or its bandwidth is unknown."""
    cpu, _ = find_cpu(row.cpu, all_cpus())
    if cpu is None or (row.bandwidth_gbs is None and not (row.channels and row.mts)):
        return None
    base = machine_from_cpu(cpu, min(row.sockets, cpu.max_sockets), None)
    peak = peak_gbs(row.channels, row.mts) if row.channels and row.mts else row.bandwidth_gbs or base.peak_gbs
    limited = cpu.read_limit_gbs is not None and peak > cpu.read_limit_gbs * row.sockets
    if cpu.read_limit_gbs is not None:
        peak = min(peak, cpu.read_limit_gbs * row.sockets)
    cores = min(row.cores, base.cores) if row.cores else base.cores
    return replace(
        base, kind=_row_kind(row, base.kind), sockets=row.sockets, cores=cores, channels=row.channels or base.channels,
        mts=row.mts or base.mts, peak_gbs=peak, measured_gbs=row.bandwidth_gbs, limited=limited,
        notes=(("memory_assumed", {}),) if row.layout == "assumed" else (),
    )


def _row_kind(row: Measurement, kind: str) -> str:
    return f"{kind} tuned" if kind == "two sockets" and row.numa == "tuned" else kind


def usable(rows: Iterable[Measurement], known_layout: bool = True) -> list[Case]:
    """Return the rows that test a prediction: not excluded, size and CPU known, memory layout known (or assumed)."""
    found = []
    for row in rows:
        if row.exclude or (row.known_layout != known_layout) or row.layout == "unknown":
            continue
        machine, load = machine_of(row), load_of(row)
        if machine is not None and load is not None:
            found.append((row, machine, load))
    return found


def fit(cases: Sequence[Case]) -> Calibration:
    """Fit each class's share, the median of its machines' medians, and spread, which holds 85 % of its rows."""
    by_kind: dict[str, dict[str, list[float]]] = {}
    for row, machine, load in cases:
        full = predict(machine, load, row.context or 0, threads=row.threads)
        if full.bound == "compute":
            continue
        seconds = 1 / row.decode_tok_s - full.barrier_ms / 1e3
        share = full.memory_ms / 1e3 / max(seconds, 1e-4) * full.share
        by_kind.setdefault(class_of(machine), {}).setdefault(f"{row.group} {row.cpu}", []).append(min(share, 1.1))
    shares = {kind: median(median(found) for found in groups.values()) for kind, groups in by_kind.items()}
    everywhere = median(shares.values())
    shares = {kind: shares.get(kind, everywhere) for kind in CALIBRATION.shares}
    flat = Calibration({kind: Share(min(share, 1.0), 1.0) for kind, share in shares.items()})
    off: dict[str, list[float]] = {}
    groups_seen: dict[str, set[str]] = {}
    for row, machine, load in cases:
        expected = predict(machine, load, row.context or 0, threads=row.threads, calibration=flat).decode.mid
        off.setdefault(class_of(machine), []).append(abs(math.log(row.decode_tok_s / expected)))
        groups_seen.setdefault(class_of(machine), set()).add(row.group)
    overall = _quantile([value for values in off.values() for value in values])
    result = {}
    for kind, share in shares.items():
        own = _quantile(off[kind]) if len(groups_seen.get(kind, ())) >= _ENOUGH_GROUPS else max(
            overall, _quantile(off.get(kind, [overall])))  # fmt: skip
        result[kind] = Share(round(min(share, 1.0), 2), round(min(WIDEST, max(NARROWEST, math.exp(own))), 2))
    return Calibration(result)


def _quantile(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(_WITHIN * len(ordered)) - 1)]


def cross_validate(
    cases: Sequence[Case], also: Sequence[Case] = (),
    from_channels: bool = False,
) -> list[Tested]:  # fmt: skip
    """Predict every row with constants fitted without its source; `also` are rows to fit on but not to test.

    `from_channels` tests only machines whose bandwidth was measured, and predicts them as if it had not been.
    """
    tested = []
    for group in sorted({row.group for row, _, _ in cases}):
        calibration = fit([case for case in (*cases, *also) if case[0].group != group])
        for row, machine, load in cases:
            if row.group == group:
                if from_channels:
                    if machine.measured_gbs is None or row.channels is None:
                        continue
                    machine = replace(machine, measured_gbs=None)
                found = predict(machine, load, row.context or 0, threads=row.threads, calibration=calibration)
                band = found.decode
                kind, measured = class_of(machine), row.decode_tok_s
                tested.append(Tested(row, kind, band.mid, band.low, band.high, measured))
    return tested


def kernels_of(row: Measurement) -> str | None:
    """Return which prompt kernels a row ran: llama.cpp's of 2024 and later, ik_llama.cpp's, or None for others."""
    if row.engine.startswith("ik_llama.cpp"):
        return "ik_llama.cpp"
    recent = row.date[:4].isdigit() and int(row.date[:4]) >= 2024
    own = row.engine.startswith(("llama.cpp", "ollama", "LM Studio", "llamafile"))
    return "llama.cpp" if own and recent else None


def prefill_cases(rows: Iterable[Measurement]) -> list[Case]:
    """Return the rows that test prefill. Memory matters little to it, so that its layout may be assumed."""
    found = []
    for row in rows:
        if row.prefill_tok_s is None or row.exclude or kernels_of(row) is None:
            continue
        cpu, _ = find_cpu(row.cpu, all_cpus())
        load = load_of(row)
        if cpu is None or load is None:
            continue
        machine = machine_of(row) or machine_from_cpu(cpu, min(row.sockets, cpu.max_sockets), None)
        cores = min(row.threads or row.cores or machine.cores, machine.cores)
        found.append((row, replace(machine, cores=cores), load))
    return found


def fit_prefill(cases: Sequence[Case]) -> tuple[dict[str, float], float]:
    """Fit a scale for the prefill rates of each set of kernels, and the spread that holds 85 % of the rows."""
    ratios: dict[str, dict[str, list[float]]] = {}
    plain = Calibration(CALIBRATION.shares, {"llama.cpp": 1.0, "ik_llama.cpp": 1.0}, 1.0)
    for row, machine, load in cases:
        kernels = kernels_of(row) or "llama.cpp"
        expected = predict(machine, load, row.context or 0, kernels, calibration=plain).prefill.mid
        ratios.setdefault(kernels, {}).setdefault(row.group, []).append((row.prefill_tok_s or 0) / expected)
    scales = {kernels: median(median(found) for found in groups.values()) for kernels, groups in ratios.items()}
    off = _quantile([abs(math.log(ratio / scales[kernels])) for kernels, groups in ratios.items()
                     for found in groups.values() for ratio in found])  # fmt: skip
    rounded = {"llama.cpp": 1.0, "ik_llama.cpp": 1.0} | {kernels: round(scale, 2) for kernels, scale in scales.items()}
    return rounded, round(min(1.6, max(NARROWEST, math.exp(off))), 2)


def cross_validate_prefill(cases: Sequence[Case]) -> list[Tested]:
    """Cross-validate prompts, as `cross_validate` does decoding."""
    tested = []
    for group in sorted({row.group for row, _, _ in cases}):
        scales, spread = fit_prefill([case for case in cases if case[0].group != group])
        calibration = Calibration(CALIBRATION.shares, scales, spread)
        for row, machine, load in cases:
            if row.group == group:
                engine = kernels_of(row) or "llama.cpp"
                mid = predict(machine, load, row.context or 0, engine, calibration=calibration).prefill.mid
                tested.append(Tested(row, machine.kind, mid, mid / spread, mid * spread, row.prefill_tok_s or 0))
    return tested


def known_cases() -> list[Case]:
    """Return the test rows: the memory layout is stated or fixed by the machine, or its bandwidth was measured."""
    return usable(all_measurements())


def assumed_cases() -> list[Case]:
    """Return further rows to fit on: every channel is assumed filled at the CPU's rated speed."""
    return usable(all_measurements(), known_layout=False)


def line(name: str, tested: Sequence[Tested]) -> str:
    errors = [test.error for test in tested]
    held = sum(test.held for test in tested) / len(tested)
    width = median(test.high / test.low for test in tested)
    groups = len({test.row.group for test in tested})
    return (f"| {name} | {len(tested)} | {groups} | {100 * median(errors):.0f} % | {100 * held:.0f} % | "
            f"{width:.2f}x |")  # fmt: skip


def error_tables() -> str:
    """Format the error tables of docs/prediction.md as Markdown."""
    also = assumed_cases()
    known = cross_validate(known_cases(), also)
    from_channels = cross_validate(known_cases(), also, from_channels=True)
    assumed = cross_validate(also, known_cases())
    prompts = cross_validate_prefill(prefill_cases(all_measurements()))
    lines = ["Decode, memory layout known:", "", HEAD, line("all", known)]
    lines += [line(kind, [t for t in known if t.kind == kind]) for kind in sorted({t.kind for t in known})]
    lines += ["", "Decode, the measured machines of that table predicted from their channels instead:", "", HEAD]
    lines += [line("all", from_channels)]
    lines += ["", "Decode, layout assumed to be the CPU's most:", "", HEAD, line("all", assumed)]
    lines += [line(kind, [t for t in assumed if t.kind == kind]) for kind in sorted({t.kind for t in assumed})]
    lines += ["", "Prefill, llama.cpp builds of 2024 and later, and ik_llama.cpp:", "", HEAD]
    lines += [line("all", prompts)]
    for kernels in ("llama.cpp", "ik_llama.cpp"):
        lines.append(line(kernels, [t for t in prompts if kernels_of(t.row) == kernels]))
    laid_out = [t for t in prompts if t.row.known_layout]
    lines.append(line("memory layout known", laid_out))
    lines += [line(kind, [t for t in prompts if t.kind == kind]) for kind in sorted({t.kind for t in prompts})]
    return "\n".join(lines)


def left_out() -> dict[str, int]:
    """Count the measurements that test nothing, by the reason that excludes them."""
    counted: dict[str, int] = {}
    for row in all_measurements():
        if row.exclude:
            rule = row.exclude.split(":")[0]
        elif row.layout == "unknown":
            rule = "memory layout unknown"
        else:
            known = machine_of(row) is not None and load_of(row) is not None
            rule = "" if known else "CPU or model size unknown"
        if rule:
            counted[rule] = counted.get(rule, 0) + 1
    return dict(sorted(counted.items()))
