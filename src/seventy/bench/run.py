"""A whole run of `bench`: which tasks, on which model, against whom, and the card that comes of it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from seventy.bench import energy, peers
from seventy.bench.card import VERSION, Card, Energy, ModelShape, Peer, anonymous
from seventy.bench.engine import Engine, PeerLost, Seventy, Threads
from seventy.bench.figures import result
from seventy.bench.measure import Task, measure
from seventy.bench.synthetic import Synthetic
from seventy.cache.pages import pages
from seventy.engine.model import Model, Progress
from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE
from seventy.machine.memory import peak_rss_bytes
from seventy.measure.profile import Profile
from seventy.version import __version__

PROMPTS, DEPTHS, USERS = (128, 512), (0, 1024), (2, 4, 8)
# Users who have just begun: more shows attention, not batching.
USER_DEPTH = 16
_KV = "f16"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The user's choices; empty fields are chosen automatically."""

    prompts: Sequence[int] = ()
    depths: Sequence[int] = ()
    users: Sequence[int] = ()
    tokens: int = 32
    repeats: int = 5
    watts: float | None = None
    cny_per_kwh: float | None = None

    def tasks(self, context: int) -> list[Task]:
        """List the tasks that fit a model of this context. Raises SeventyError if a requested one does not."""
        kinds: list[tuple[Sequence[int], Sequence[int], Callable[[int], Task]]] = [
            (self.prompts, PROMPTS, lambda n: Task("prefill", n)),
            (self.users, USERS, lambda n: Task("batch", n, USER_DEPTH, max(1, self.tokens // 4))),
            (self.depths, DEPTHS, lambda depth: Task("decode", self.tokens, depth)),
        ]
        found = []
        for wanted, default, make in kinds:
            for task in map(make, wanted or default):
                if needed(task) <= context:
                    found.append(task)
                elif wanted:
                    raise SeventyError(
                        "{label} needs a context of {task} tokens, and this model's longest is {context}",
                        label=task.label, task=needed(task), context=context,
                    )
        return found


def needed(task: Task) -> int:
    """Return how many cache positions a task needs; sequences take whole pages."""
    return pages(task.length) * PAGE * task.n if task.what == "batch" else task.length


@dataclass(slots=True)
class Bench:
    """A loaded model and what it took to load it."""

    model: Model
    wish: BenchOptions
    tasks: list[Task]
    synthetic: Synthetic | None
    path: Path | None
    load_seconds: float
    lost: str = ""

    @classmethod
    def load(
        cls,
        source: Path | Synthetic,
        wish: BenchOptions,
        threads: int | None,
        isa: str | None,
        progress: Progress | None = None,
        tune: bool = False,
    ) -> "Bench":
        tasks = wish.tasks(1 << 30)
        longest, users = max(map(needed, tasks)), max(task.n if task.what == "batch" else 1 for task in tasks)
        start = time.perf_counter()
        model = Model(source, threads, longest, users, isa, _KV, progress, tune, positions=longest)
        # Measured once, loaded often.
        seconds = time.perf_counter() - start - model.tuning_seconds
        try:
            tasks = wish.tasks(model.context)
        except BaseException:
            model.close()
            raise
        synthetic = source if isinstance(source, Synthetic) else None
        return cls(model, wish, tasks, synthetic, source if isinstance(source, Path) else None, seconds)

    @property
    def layer_scale(self) -> float | None:
        """The factor from the layers made to all layers; None if none were left out."""
        partial = self.synthetic and len(self.synthetic.layers) < self.synthetic.shape.layers
        return self.synthetic.layer_scale if self.synthetic and partial else None

    def run(self, profile: Profile, against: str | None = None, progress: Progress | None = None) -> Card:
        """Measure every task, alternating with the peer. If the peer dies, `lost` says at which task."""
        meter = energy.meter(self.wish.watts)
        engines: list[Engine] = [Seventy(self.model, meter)]
        if self.layer_scale:
            engines.append(Seventy(self.model, head=False))
        with contextlib.ExitStack() as stack:
            peer = None
            if against:
                assert self.path, "a peer needs a file"
                most = max((task.n for task in self.tasks if task.what == "batch"), default=1)
                threads = Threads(self.model.threads_for(self.model.max_rows), self.model.threads_for(1))
                try:
                    other = peers.find(against, self.path, threads, max(self.model.context, 512), most)
                except PeerLost as error:
                    self._lose(error)
                else:
                    stack.callback(other.close)
                    engines.append(other)
                    peer = Peer(other.name, other.version, other.isa)
            figures = list(measure(engines, self.tasks, self.wish.repeats, progress, self._lose))
            if peer and not any(peer.name in each for each in figures):
                peer = None
        counted = None
        if meter:
            wall = self.wish.watts is not None
            counted = Energy("wall" if wall else "rapl", self.wish.watts, self.wish.cny_per_kwh)
        return Card(
            version=VERSION,
            seventy=__version__,
            date=datetime.now(UTC).date().isoformat(),
            machine=anonymous(profile),
            isa=self.model.isa.name,
            threads=self.model.threads,
            repeats=self.wish.repeats,
            kv=_KV,
            model=self._shape(),
            load_seconds=self.load_seconds,
            peak_memory_bytes=peak_rss_bytes(),
            peer=peer,
            energy=counted,
            results=tuple(result(self.model, each, self.layer_scale) for each in figures),
        )

    def _lose(self, error: PeerLost) -> None:
        self.lost = error.text

    def _shape(self) -> ModelShape:
        config = self.model.config
        format_bytes: dict[str, int] = {}
        for matrix in self.model.matrices:
            format_bytes[matrix.format.name] = format_bytes.get(matrix.format.name, 0) + matrix.nbytes
        return ModelShape(
            architecture=str(self.model.metadata["general.architecture"]),
            layers=config.layers,
            whole_layers=self.synthetic.shape.layers if self.synthetic else config.layers,
            hidden=config.hidden,
            vocabulary=config.vocabulary,
            context=self.model.context,
            format_bytes=format_bytes,
            token_bytes=self.model.read_bytes(0),
            experts=config.experts.count if config.experts else 0,
            experts_used=self.model.program.slots_per_row,
            synthetic=self.synthetic is not None,
        )
