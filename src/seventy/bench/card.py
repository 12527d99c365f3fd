"""A result card: what a run of `bench` found, in a form that others can compare and a catalogue can import.

JSON of the dataclasses below. It holds no free text and nothing that names the machine's owner: every text is one of
a known set or matches a narrow pattern, and slots lose the names their board gives them. What is read is not
believed: unknown keys, wrong types, figures that contradict each other or the machine's limit are refused.
"""

import json
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from seventy.bench.measure import Task, spread
from seventy.errors import SeventyError
from seventy.formats import formats
from seventy.jit.isa import LEVELS, wide_name
from seventy.language import t
from seventy.machine.records import from_json
from seventy.measure.profile import Profile

VERSION = 4
TASKS = ("prefill", "decode", "batch")
# Above it a figure is a mistake: a limit measured on a busy machine is too low, but not by more.
MOST_SHARE = 1.5
# A shared machine's memory was seen to change by 1.7.
_MOST_MEMORY = 2
# A model that fits in a cache may beat the memory's limit by any factor.
_CACHED = 4
_WORDS = re.compile(r"[\w .,:()@+/-]{0,80}", re.ASCII)
_VERSION = re.compile(r"[\w.+-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Samples:
    """Repeats of one measurement: all of them, their median, and half the quartiles' distance as a share of it."""

    values: tuple[float, ...]
    median: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Samples":
        return cls(tuple(values), statistics.median(values), spread(values))


@dataclass(frozen=True, slots=True)
class Versus:
    """The peer on the same task, tokens per second, and ours to its, from pairs that ran one after the other."""

    tokens_per_second: Samples
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one task: `n` tokens of a prompt, `n` tokens decoded at `depth`, or `passes` over `n` sequences at
    `depth`.

    `gbs` (1e9 bytes/s) counts the weights as in the file, once per pass (of experts only those read), and the cache;
    `gops` (1e9 operations/s, two per multiply-add) counts the matrices; `operations_per_byte` is per byte of weights
    read. `whole_model` is the extrapolation to all layers if some were left out. `joules_per_token` (extrapolated
    likewise) is None if energy was not measured, `read_limit_gbs` is the read bandwidth measured just before each
    repeat, or None. `experts` is the mean number of different experts a pass read per layer; None for a dense model.
    """

    what: str
    n: int
    depth: int
    passes: int
    tokens_per_second: Samples
    gbs: float
    gops: float
    operations_per_byte: float
    whole_model: Samples | None
    joules_per_token: Samples | None
    versus: Versus | None
    read_limit_gbs: Samples | None
    experts: float | None

    def memory_share(self, machine: Profile) -> float:
        """Return the median over repeats of achieved bandwidth divided by the bandwidth measured just before."""
        speeds = self.tokens_per_second
        known = [machine.read_bandwidth_gbs] * len(speeds.values)
        limits = self.read_limit_gbs.values if self.read_limit_gbs else known
        shares = [speed / limit for speed, limit in zip(speeds.values, limits, strict=True)]
        return self.gbs / speeds.median * statistics.median(shares)

    @property
    def label(self) -> str:
        return Task(self.what, self.n, self.depth, self.passes).label


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The model that was run; `format_bytes` are the bytes of its matrices by tensor type, `whole_layers` its full
    number of layers.

    Per token `token_bytes` of the matrices are read, and `experts_used` of `experts` in each layer that has them; both
    are 0 for a dense model. `synthetic` means random weights.
    """

    architecture: str
    layers: int
    whole_layers: int
    hidden: int
    vocabulary: int
    context: int
    format_bytes: dict[str, int]
    token_bytes: int
    experts: int
    experts_used: int
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """`isa` is the level it was built for, where it says that."""

    name: str
    version: str
    isa: str | None


@dataclass(frozen=True, slots=True)
class Energy:
    """The source of energy figures: `wall` (a constant power, in `watts`) or `rapl`. The tariff is the user's."""

    source: str
    watts: float | None
    cny_per_kwh: float | None


@dataclass(frozen=True, slots=True)
class Card:
    version: int
    seventy: str
    date: str
    machine: Profile
    isa: str
    threads: int
    repeats: int
    kv: str
    model: ModelShape
    load_seconds: float
    peak_memory_bytes: int
    peer: Peer | None
    energy: Energy | None
    results: tuple[Result, ...]

    @property
    def weight_bytes(self) -> int:
        return sum(self.model.format_bytes.values())

    @property
    def memory_limit_gbs(self) -> float:
        """GB/s (1e9) of memory: the profile's, or more where a run saw more."""
        seen = [result.read_limit_gbs.median for result in self.results if result.read_limit_gbs]
        return max([self.machine.read_bandwidth_gbs, *seen])

    @property
    def int8_limit_gops(self) -> float | None:
        """The measured peak at this ISA level; None where it was not measured or the weights are floats."""
        floats = sum(self.model.format_bytes.get(name, 0) for name in ("F32", "F16", "BF16"))
        return None if 2 * floats > self.weight_bytes else self.machine.int8_gops.get(wide_name(self.isa))

    def text(self) -> str:
        """Encode the card as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


def anonymous(profile: Profile) -> Profile:
    """Return the profile without the names that the board gives to its slots."""
    slots = tuple(replace(slot, name="") for slot in profile.slots.slots)
    return replace(profile, slots=replace(profile.slots, slots=slots))


def write(card: Card, path: Path) -> None:
    """Write a card. Raises SeventyError if `read` would refuse it or it cannot be written."""
    _refuse(card, path)
    try:
        path.write_text(card.text(), encoding="utf-8")
    except OSError as error:
        raise SeventyError(
            "cannot write {path}: {reason}; take another place for --report",
            path=path, reason=error.strerror,
        ) from None


def read(path: Path) -> Card:
    """Read a card from a file. Raises SeventyError if it is invalid."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and "version" in data and data["version"] != VERSION:
            raise ValueError(t("its version is {data!r}, not {version}", data=data["version"], version=VERSION))
        card = from_json(Card, data, "the card")
    except OSError as error:
        raise SeventyError("cannot read {path}: {reason}", path=path, reason=error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise SeventyError("{path} is no result card: {error}", path=path, error=error) from None
    _refuse(card, path)
    return card


def _refuse(card: Card, path: Path) -> None:
    problem = next(problems(card), None)
    if problem:
        raise SeventyError(
            "{path} is no result card that can be believed: {problem}; measure again on a quiet machine",
            path=path, problem=problem,
        )


def problems(card: Card) -> Iterator[str]:
    """Yield a sentence for each reason to doubt a card's figures."""
    if card.version != VERSION:
        yield t("its version is {version}, not {version_2}", version=card.version, version_2=VERSION)
    try:
        date.fromisoformat(card.date)
    except ValueError:
        yield t("its date is {date!r}", date=card.date)
    yield from _texts(asdict(card), "the card")
    yield from _names(card)
    shape = card.model
    for name, number in {
        "threads": card.threads, "repeats": card.repeats, "layers": shape.layers, "hidden": shape.hidden,
        "vocabulary": shape.vocabulary, "context": shape.context, t("peak memory"): card.peak_memory_bytes,
        "weights": card.weight_bytes, t("weights of a token"): shape.token_bytes, "results": len(card.results),
    }.items():  # fmt: skip
        if number < 1:
            yield f"{name}: {number}"
    if not 0 <= shape.experts_used <= shape.experts or shape.token_bytes > card.weight_bytes:
        yield t(
            "{experts_used} of {experts} experts, {token_bytes} bytes of {weight_bytes}",
            experts_used=shape.experts_used, experts=shape.experts, token_bytes=shape.token_bytes,
            weight_bytes=card.weight_bytes,
        )
    if shape.whole_layers < shape.layers:
        yield t("{layers} layers of {whole_layers}", layers=shape.layers, whole_layers=shape.whole_layers)
    if not _positive(card.load_seconds):
        yield t("load_seconds: {load_seconds}", load_seconds=card.load_seconds)
    for result in card.results:
        yield from _result_problems(card, result)


def _names(card: Card) -> Iterator[str]:
    if card.isa not in LEVELS:
        yield t("there is no ISA level {isa!r}", isa=card.isa)
    if card.kv not in ("f16", "q8_0"):
        yield t("there is no cache of kind {kv!r}", kv=card.kv)
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", card.model.architecture):
        yield t("there is no architecture {architecture!r}", architecture=card.model.architecture)
    unknown = set(card.model.format_bytes) - {entry.name for entry in formats().values()}
    if unknown:
        yield t("there is no tensor type {unknown!r}", unknown=min(unknown))
    if not _VERSION.fullmatch(card.seventy):
        yield t("there is no version {seventy!r}", seventy=card.seventy)
    if card.peer and (card.peer.name != "llama.cpp" or not _VERSION.fullmatch(card.peer.version)):
        yield t("there is no peer {name!r} {version!r}", name=card.peer.name, version=card.peer.version)
    if card.peer and card.peer.isa not in (None, *LEVELS):
        yield t("there is no ISA level {isa!r}", isa=card.peer.isa)
    if card.energy and card.energy.source not in ("wall", "rapl"):
        yield t("nothing called {source!r} counts energy", source=card.energy.source)


def _result_problems(card: Card, result: Result) -> Iterator[str]:
    where = t("{what} {n} at {depth}", what=result.what, n=result.n, depth=result.depth)
    if result.what not in TASKS or result.n < 1 or result.depth < 0 or result.passes < 1:
        yield t("there is no task {where}", where=where)
    versus, optional = result.versus, (result.whole_model, result.joules_per_token, result.read_limit_gbs)
    for samples in (result.tokens_per_second, *optional, versus and versus.tokens_per_second):
        if samples and not _consistent(samples, card.repeats):
            yield t(
                "{where}: {repeats} repeats do not give {median} of {values}",
                where=where, repeats=card.repeats, median=samples.median, values=list(samples.values),
            )
    numbers = [result.gbs, result.gops, result.operations_per_byte]
    if result.experts is not None:
        numbers.append(result.experts)
        if result.experts > card.model.experts:
            yield t(
                "{where}: {experts:g} of {experts_2} experts",
                where=where, experts=result.experts, experts_2=card.model.experts,
            )
    if versus:
        numbers += [versus.ratio, versus.ratio_low, versus.ratio_high]
    for number in numbers:
        if not _positive(number):
            yield t("{where}: {number} is no rate", where=where, number=number)
    for problem in _limit_problems(card, result):
        yield f"{where}: {problem}"


def _limit_problems(card: Card, result: Result) -> Iterator[str]:
    """Rates that the machine's limits do not allow."""
    seen, known = result.read_limit_gbs, card.machine.read_bandwidth_gbs
    if seen and seen.median > _MOST_MEMORY * known:
        yield t(
            "memory gave {median:.1f} GB/s on a machine whose limit is {known:.1f}",
            median=seen.median, known=known,
        )
    cached = card.weight_bytes < _CACHED * card.machine.last_level_cache_bytes
    limits = (result.gbs, card.memory_limit_gbs, "GB/s"), (result.gops, card.int8_limit_gops, "GOPS")
    for rate, limit, unit in limits:
        if limit and rate > MOST_SHARE * limit and not (cached and unit == "GB/s"):
            yield t("{rate:.1f} {unit} on a machine whose limit is {limit:.1f}", rate=rate, unit=unit, limit=limit)


def _consistent(samples: Samples, repeats: int) -> bool:
    if len(samples.values) != repeats or not all(map(_positive, samples.values)):
        return False
    right = Samples.of(samples.values)
    return math.isclose(samples.median, right.median, rel_tol=1e-6) and abs(samples.spread - right.spread) < 1e-6


def _positive(number: float) -> bool:
    return number > 0 and math.isfinite(number)


def _texts(value: Any, where: str) -> Iterator[str]:
    """Texts that say more than a name or a number can."""
    if isinstance(value, str) and not _WORDS.fullmatch(value):
        yield t("{where} is {value!r}", where=where, value=value[:60])
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(name, where)
            yield from _texts(part, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, where)
