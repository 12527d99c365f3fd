"""Tests the prediction on rows that no constant was fitted on: the latest year's, and reports gathered afterwards.

Constants that were read off measurements by hand (plan/calibration.py) are as they are; shares and spreads are fitted
anew without the rows that are tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seventy.catalog.cpus import all_cpus, find_cpu
from seventy.catalog.measurements import Measurement, all_measurements
from seventy.catalog.models import find_model
from seventy.errors import SeventyError
from seventy.plan.calibration import Calibration, class_of
from seventy.plan.fit import (
    HEAD,
    Case,
    Tested,
    assumed_cases,
    fit,
    fit_prefill,
    kernels_of,
    known_cases,
    line,
    load_of,
    machine_of,
    prefill_cases,
)
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.roofline import Band, Load, predict
from seventy.plan.wanted import catalogue_load

# The year held out: all other rows are older, or say no date.
YEAR = "2026"
# Reports of mixtures of experts on CPUs, gathered after everything else had been fitted.
REPORTS = tuple(f"H{number:02}" for number in range(2, 30))


@dataclass(frozen=True, slots=True)
class Report:
    """A report and the decode predicted for it without it; `prediction` is None where its source says too little."""

    row: Measurement
    prediction: Band | None
    remark: str

    @property
    def held(self) -> bool | None:
        found = self.prediction
        return None if found is None else found.low <= self.row.decode_tok_s <= found.high


def _decode(row: Measurement, machine: Machine, load: Load, calibration: Calibration) -> Tested:
    band = predict(machine, load, row.context or 0, threads=row.threads, calibration=calibration).decode
    return Tested(row, class_of(machine), band.mid, band.low, band.high, row.decode_tok_s)


def _prefill(row: Measurement, machine: Machine, load: Load, calibration: Calibration) -> Tested:
    engine = kernels_of(row) or "llama.cpp"
    band = predict(machine, load, row.context or 0, engine, calibration=calibration).prefill
    return Tested(row, machine.kind, band.mid, band.low, band.high, row.prefill_tok_s or 0)


def _split(cases: Sequence[Case], year: str) -> tuple[list[Case], list[Case]]:
    """The cases of other years, and those of this one."""
    return [c for c in cases if not c[0].date.startswith(year)], [c for c in cases if c[0].date.startswith(year)]


def held_out_year() -> tuple[list[Tested], list[Tested]]:
    """Decode and prefill of a year's rows, predicted with constants fitted on the others; layouts known and assumed."""
    old, new = _split([*known_cases(), *assumed_cases()], YEAR)
    calibration = fit(old)
    old_prompts, new_prompts = _split(prefill_cases(all_measurements()), YEAR)
    scales, spread = fit_prefill(old_prompts)
    prompts = replace(calibration, prefill_scale=scales, prefill_spread=spread)
    return [_decode(*case, calibration) for case in new], [_prefill(*case, prompts) for case in new_prompts]


def reports() -> list[Report]:
    """Predict every report whose source names machine and model, with constants fitted without any of them."""
    calibration = fit([case for case in (*known_cases(), *assumed_cases()) if case[0].id not in REPORTS])
    return [_report(row, calibration) for row in all_measurements() if row.id in REPORTS]


def _report(row: Measurement, calibration: Calibration) -> Report:
    cpu, _ = find_cpu(row.cpu, all_cpus())
    load, remark = load_of(row), row.exclude
    if cpu is None:
        return Report(row, None, remark or "no CPU is named")
    if load is None:
        load, remark = _usual_load(row), remark or "its usual size"
    if load is None:
        return Report(row, None, remark)
    machine = machine_of(row)
    if machine is None:
        machine = machine_from_cpu(cpu, min(row.sockets, cpu.max_sockets), None)
        remark = f"{remark}; memory as the CPU takes at most".removeprefix("; ")
    return Report(row, predict(machine, load, row.context or 0, threads=row.threads, calibration=calibration).decode,
                  remark)  # fmt: skip


def _usual_load(row: Measurement) -> Load | None:
    """The model of the catalogue at the quant named, or at two bits where only that is known."""
    try:
        return catalogue_load(find_model(row.model).name, row.quant or ("Q2_K" if "Q2" in row.exclude else "Q4_K_M"))
    except SeventyError:
        return None


def tables() -> str:
    """Format the tables of docs/prediction.md about unseen measurements as Markdown."""
    decode, prompts = held_out_year()
    lines = [f"Rows of {YEAR}, predicted with constants fitted on the years before:", "", HEAD]
    lines += [line("decode", decode)]
    lines += [
        line(f"decode, {kind}", [t for t in decode if t.kind == kind])
        for kind in sorted({t.kind for t in decode})
        if sum(t.kind == kind for t in decode) >= 3
    ]
    lines += [line("prompts", prompts), "", "Every report of mixtures, predicted before any of them was fitted:", ""]
    lines += ["| report | CPU | model, quant | measured | predicted | holds | remark |", "|" + 7 * "---|"]
    for found in reports():
        row, band = found.row, found.prediction
        predicted = "-" if band is None else f"{band.mid:.3g} ({band.low:.3g} - {band.high:.3g})"
        holds = {None: "-", True: "yes", False: "no"}[found.held]
        lines.append(f"| {row.id} | {row.cpu or '-'} | {row.model}, {row.quant or '?'} | {row.decode_tok_s:g} | "
                     f"{predicted} | {holds} | {found.remark} |")  # fmt: skip
    return "\n".join(lines)
