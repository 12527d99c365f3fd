"""Published measured speeds of CPU-only machines, with what each source says of the hardware."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.rows import load
from seventy.language import t

LAYOUTS = ("stated", "fixed", "measured", "assumed", "unknown")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A published run.

    `group` is the person or project it comes from: no group stands on both sides of a cross-validation. `layout` says
    how the memory is known: stated by the source, fixed by the machine (soldered), measured (the source gives GB/s,
    kept in `bandwidth_gbs`), assumed (the most the CPU takes) or unknown. `exclude` is the reason why the row does not
    test a prediction, blank if it does; `context` is the KV cache depth of the decode figure. `numa` is "tuned" if the
    source placed pages or set the BIOS for two sockets, else "default".
    """

    id: str
    group: str
    cpu: str
    machine: str
    sockets: int
    cores: int | None
    threads: int | None
    layout: str
    channels: float | None
    mts: int | None
    bandwidth_gbs: float | None
    model: str
    params_b: float
    active_params_b: float
    layers: int | None
    quant: str
    file_gib: float | None
    context: int | None
    engine: str
    decode_tok_s: float
    prefill_tok_s: float | None
    exclude: str
    source: str
    date: str
    notes: str
    numa: str = ""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(t(
                "{id}: layout {layout!r} is none of {layouts}",
                id=self.id, layout=self.layout, layouts=", ".join(LAYOUTS),
            ))
        if not self.source:
            raise ValueError(t("{id}: a measurement needs its source", id=self.id))
        if self.numa not in ("", "tuned", "default"):
            raise ValueError(t("{id}: numa {numa!r} is neither tuned nor default", id=self.id, numa=self.numa))
        if self.layout in ("stated", "fixed") and not (self.channels and self.mts):
            raise ValueError(t("{id}: layout {layout} without channels and MT/s", id=self.id, layout=self.layout))
        if self.layout == "measured" and not self.bandwidth_gbs:
            raise ValueError(t("{id}: layout measured without GB/s", id=self.id))

    @property
    def known_layout(self) -> bool:
        return self.layout in ("stated", "fixed", "measured")


@cache
def all_measurements() -> tuple[Measurement, ...]:
    return load("measurements.csv", Measurement)
