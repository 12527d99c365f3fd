"""Predicts decode and prefill speed of a model on a CPU machine, from what limits them.

    decode = 1 / (max(bytes per token / effective bandwidth, operations / vector rate) + barriers)
    prefill = vector rate / operations per token

The derivation, the figures behind every constant and how far they can be trusted: docs/prediction.md.
What it does not know: other load on the machine, thermal limits, BIOS snoop and NUMA modes, wrong thread counts.
"""

import math
from dataclasses import dataclass

from seventy.catalog.quants import plain
from seventy.language import t
from seventy.plan import local
from seventy.plan.calibration import PREFILL_BATCH, Calibration
from seventy.plan.machine import Machine
from seventy.runtime.memory import USUAL_CONTEXT, Footprint, Need

# KV cache is read by attention kernels at about a third of the rate of weights (T5810 rows N013-N015).
KV_READ_COST = 3.0
PROMPT_TOKENS = 1000
# Intel's memory checker reads 140 of 153.6 GB/s of two E5-2697A v4 (M049) and 554.8 of 614.4 of a Xeon 6980P (M035).
READ_OF_PEAK = 0.91
# Quants whose weights take more unpacking than arithmetic; ik_llama.cpp's IQ2_K to IQ4_K do not.
LOW_BIT = ("IQ1_", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "Q2_", "Q3_")


@dataclass(frozen=True, slots=True)
class Latent:
    """The operations of latent attention (MLA) per position attended to, in all layers.

    All heads share one key. An answer's token multiplies it as stored (`decode_ops`); a prompt's tokens multiply the
    unpacked keys and values (`prefill_ops`). If an indexer chooses positions, at most `most_positions` are attended to.
    """

    decode_ops: int
    prefill_ops: int
    most_positions: int | None = None

    def positions(self, context: int) -> int:
        return min(context, self.most_positions or context)


@dataclass(frozen=True, slots=True)
class Load:
    """A model to run: sizes in GB (1e9 bytes).

    `read_gb` is what one token reads of the weights; `footprint` is what it takes of memory. `expert_gb` is how much of
    the file are experts, `used_share` which part of the experts of a layer one token uses. `pass_share` is what a pass
    of its block of multi-token prediction reads of `read_gb`, 0 where it has none. `latent` is None where each head has
    keys of its own. `assisted` says that models of its architecture have an assistant that drafts for them.
    """

    name: str
    quant: str
    params_b: float
    active_params_b: float
    file_gb: float
    read_gb: float
    footprint: Footprint
    layers: int
    expert_gb: float = 0.0
    used_share: float = 1.0
    pass_share: float = 0.0
    latent: Latent | None = None
    assisted: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.active_params_b <= self.params_b * 1.001:
            raise ValueError(t(
                "{name}: {active_params_b:g} B active of {params_b:g} B parameters",
                name=self.name, active_params_b=self.active_params_b, params_b=self.params_b,
            ))
        if self.file_gb <= 0 or self.read_gb <= 0 or self.layers < 1:
            raise ValueError(t("{name}: sizes and layers must be positive", name=self.name))
        if not 0 <= self.expert_gb <= self.file_gb or not 0 <= self.used_share <= 1:
            raise ValueError(t(
                "{name}: a share {used_share:g} of {expert_gb:g} GB of experts",
                name=self.name, used_share=self.used_share, expert_gb=self.expert_gb,
            ))

    @property
    def mixture(self) -> bool:
        """Whether a token uses some of its experts only."""
        return self.expert_gb > 0 and self.used_share < 1

    @property
    def low_bit(self) -> bool:
        return plain(self.quant).startswith(LOW_BIT)

    def step_gb(self, rows: int) -> float:
        """Return the GB of weights read by a step with one token each of `rows` texts.

        An expert chosen by several tokens is read once. With k of E experts each, n tokens that choose at random use E
        (1 - (1 - k / E)^n) different ones.
        """
        return self.read_gb + self.expert_gb * (1 - (1 - self.used_share) ** rows - self.used_share)

    def need(self, context: int, users: int = 1) -> Need:
        """Return what must fit in memory for `users` texts of this context each, as the engine counts it.

        The context is limited to the model's own.
        """
        return self.footprint.need(users * min(context, self.footprint.context), users)


@dataclass(frozen=True, slots=True)
class Band:
    """A figure with the range in which four of five measurements fell."""

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.mid <= self.high:
            raise ValueError(t("a band must rise: {low}, {mid}, {high}", low=self.low, mid=self.mid, high=self.high))

    def inverse(self, of: float) -> "Band":
        """Return `of` divided by this band: a time from a rate."""
        return Band(of / self.high, of / self.mid, of / self.low)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted speed and the figures behind it.

    `decode` is for each of `users` texts written at once. `need` is the memory at `context`, or at the usual context if
    that is longer. `tuned` is the speed of two sockets whose owner placed the pages. `bound` is memory, compute,
    barriers or ssd; `effective_gbs` is the assumed read bandwidth, `peak_gbs` the peak of the channels that hold
    memory; times are in milliseconds per step, which is one token of each text.
    """

    machine: Machine
    load: Load
    engine: str
    context: int
    users: int
    decode: Band
    prefill: Band
    first_token_s: Band
    bound: str
    fits: bool
    need: Need
    read_gb_per_step: float
    effective_gbs: float
    peak_gbs: float
    share: float
    tuned: Band | None
    memory_ms: float
    compute_ms: float
    barrier_ms: float
    ssd_ms: float

    @property
    def together(self) -> Band:
        """Tokens a second of all texts."""
        return Band(self.users * self.decode.low, self.users * self.decode.mid, self.users * self.decode.high)


def predict(
    machine: Machine,
    load: Load,
    context: int = 1000,
    engine: str = "llama.cpp",
    threads: int | None = None,
    calibration: Calibration | None = None,
    users: int = 1,
) -> Prediction:
    """Predict the speed for `users` simultaneous requests on an otherwise idle, well configured machine.

    Each has a text of `context` tokens. The default calibration is the project's, adjusted by imported cards.
    """
    calibration = calibration or local.current()
    workers = min(threads, machine.cores) if threads else machine.cores
    # Fewer threads do not make two sockets faster: what they save in waiting they lose on the way between the sockets.
    waiting = workers if machine.sockets == 1 else machine.cores
    bandwidth = calibration.bandwidth(machine, engine)
    peak = machine.measured_gbs or machine.peak_gbs
    if machine.measured_gbs is not None and machine.sockets > 1:
        # Shares of two sockets are of their channels' peak, whose part a program that only reads gets.
        peak = machine.measured_gbs / READ_OF_PEAK
    effective = peak * bandwidth.share
    if machine.measured_gbs is None:
        # What was measured, was measured with these cores.
        effective = min(effective, workers * calibration.core_gbs(machine))
    kv_gb, read_gb = users * load.footprint.seen_bytes(context) / 1e9, load.step_gb(users)
    operations = 2e9 * load.active_params_b
    rate, prefill_spread = calibration.prefill_ops_per_s(machine, load.mixture, engine, load.quant)
    decode_rate = calibration.decode_ops_per_s(machine, plain(load.quant), load.low_bit, workers, engine)
    memory_s = (read_gb + KV_READ_COST * kv_gb) / effective
    attention_s = 0.0
    if load.latent is not None:
        # One key for all heads is read once, and multiplied by each of them.
        float_rate = calibration.decode_ops_per_s(machine, "", False, workers, engine)
        attention_s = load.latent.positions(context) / float_rate
        memory_s = (read_gb + kv_gb) / effective + users * load.latent.decode_ops * attention_s
    # Rows of several users are multiplied as those of a prompt are.
    compute_s = users * operations / (decode_rate if users == 1 else max(decode_rate, rate))
    barrier_s = load.layers * waiting * calibration.barrier_us(engine) * 1e-6
    barrier_s += calibration.starting_s(engine, load.layers)
    need = load.need(max(context, USUAL_CONTEXT), users)
    fits = machine.holds(need)
    ssd_s = 0.0
    if machine.room_bytes is not None and not fits:
        missing = min(1.0, (need.total - machine.room_bytes) / (load.file_gb * 1e9))
        ssd_s = read_gb * missing / machine.ssd_gbs
    seconds = max(memory_s, compute_s) + barrier_s + ssd_s
    spread = bandwidth.spread if fits else max(bandwidth.spread, 2.0)
    decode = Band(1 / seconds / spread, 1 / seconds, 1 / seconds * min(spread, 2.0 if not fits else spread))

    tuned = calibration.tuned(machine)
    placed = None
    if tuned is not None and users == 1:
        faster_s = max(memory_s * bandwidth.share / tuned.share, compute_s) + barrier_s + ssd_s
        placed = Band(1 / faster_s / tuned.spread, 1 / faster_s, 1 / faster_s * tuned.spread)
    # A batch of a prompt reads all weights once.
    depth_s = load.latent.prefill_ops * attention_s if load.latent is not None else 0.0
    tokens_per_second = 1 / (operations / rate + load.file_gb / effective / PREFILL_BATCH + depth_s)
    if not fits:
        # A prompt reads each missing byte once per batch of 512 tokens.
        whole_s = ssd_s * load.read_gb / read_gb * load.params_b / load.active_params_b
        tokens_per_second = 1 / (1 / tokens_per_second + whole_s / PREFILL_BATCH)
    prefill = Band(tokens_per_second / prefill_spread, tokens_per_second, tokens_per_second * prefill_spread)
    parts = {"memory": memory_s, "compute": compute_s if compute_s > memory_s else 0.0, "barriers": barrier_s}
    bound = "ssd" if ssd_s > seconds / 2 else max(parts, key=lambda part: parts[part])
    return Prediction(
        machine=machine, load=load, engine=engine, context=context, users=users, decode=decode, prefill=prefill,
        first_token_s=prefill.inverse(PROMPT_TOKENS), bound=bound, fits=fits, need=need,
        read_gb_per_step=read_gb + kv_gb, effective_gbs=effective, peak_gbs=peak, share=effective / peak, tuned=placed,
        memory_ms=memory_s * 1e3, compute_ms=compute_s * 1e3, barrier_ms=barrier_s * 1e3, ssd_ms=ssd_s * 1e3,
    )  # fmt: skip


def guess_layers(params_b: float, active_params_b: float | None = None) -> int:
    """Guess the number of layers of a transformer: dense 32 at 8 B, 73 at 70 B, 132 at 405 B.

    Mixtures of experts are wide, not deep: 35 at 30 B with 3 B active, 64 from 160 B on (DeepSeek R1 has 61).
    """
    if active_params_b is not None and active_params_b < 0.95 * params_b:
        return max(24, min(64, round(32 * (math.sqrt(params_b * active_params_b) / 8) ** 0.38)))
    return max(12, round(32 * (params_b / 8) ** 0.38 * (1 if params_b < 200 else 0.93)))
