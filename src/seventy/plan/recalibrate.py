"""Brings the runs of result cards into the calibration of this machine: measured beside what was predicted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from seventy.catalog.cpus import all_cpus, find_cpu
from seventy.errors import SeventyError
from seventy.plan import local
from seventy.plan.calibration import CALIBRATION
from seventy.plan.local import Run
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import peak_gbs
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.wanted import guess_footprint

# More than this is no error of the prediction but of the card, or of what is known of the CPU.
MOST_OFF = 4.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a card reports of one engine: sizes of what ran in GB (1e9 bytes), rates in tokens per second."""

    card: str
    cpu: str
    sockets: int
    threads: int
    isa: str
    read_gbs: float
    engine: str
    quant: str
    params_b: float
    active_params_b: float
    file_gb: float
    read_gb: float
    layers: int
    decode_tok_s: float | None
    prefill_tok_s: float | None


def expected(ran: Ran) -> Prediction:
    """Predict a run from its CPU and measured bandwidth, by the project's own calibration."""
    cpu, _ = find_cpu(ran.cpu, all_cpus())
    if cpu is not None:
        machine = machine_from_cpu(cpu, min(ran.sockets, cpu.max_sockets), None)
    else:
        kind = "two sockets" if ran.sockets > 1 else "desktop"
        machine = Machine(
            ran.cpu, None, kind, ran.sockets, ran.threads, 3.0, ran.isa, "", 2, 2, 3200, peak_gbs(2, 3200), None, None,
        )  # fmt: skip
    machine = replace(machine, cores=ran.threads, measured_gbs=ran.read_gbs)
    load = Load(
        "card", ran.quant, ran.params_b, ran.active_params_b, ran.file_gb, ran.read_gb,
        guess_footprint(ran.file_gb, ran.active_params_b, ran.layers), ran.layers,
        ran.file_gb, ran.active_params_b / ran.params_b,
    )  # fmt: skip
    return predict(machine, load, 0, ran.engine, calibration=CALIBRATION)


def run_of(ran: Ran) -> Run:
    """Compare a run with its prediction. Raises SeventyError if they are too far apart to be plausible."""
    found = expected(ran)
    cpu, machine = found.machine.cpu, found.machine
    decode = ran.decode_tok_s and ran.decode_tok_s / found.decode.mid
    prefill = ran.prefill_tok_s and ran.prefill_tok_s / found.prefill.mid
    for what, factor in (("answers", decode), ("prompts", prefill)):
        if factor and not 1 / MOST_OFF <= factor <= MOST_OFF:
            raise SeventyError(
                "{card}: {engine} ran {what} {factor:.2g} times as fast as {cpu} should; nothing is calibrated by "
                "that: measure it again on a quiet machine",
                card=ran.card, engine=ran.engine, what=what, factor=factor, cpu=ran.cpu,
            )
    # Of a CPU that nothing is known of, prompts are not predicted.
    return Run(ran.card, cpu.name if cpu else ran.cpu, machine.kind, ran.engine, decode, prefill if cpu else None)


def add(found: Iterable[Ran]) -> tuple[Sequence[Run], Sequence[Run]]:
    """Import runs; return those that are new and all there are now. Raises SeventyError where that cannot be kept."""
    kept = local.runs()
    known = {(run.card, run.engine) for run in kept}
    new = [run_of(ran) for ran in found if (ran.card, ran.engine) not in known]
    every = (*kept, *new)
    local.save(every)
    if local.runs() != every:
        raise SeventyError("{path} cannot be written; nothing was imported", path=local.path())
    return new, every


def forget() -> int:
    """Forget all imported runs; return how many there were."""
    count = len(local.runs())
    local.path().unlink(missing_ok=True)
    return count
