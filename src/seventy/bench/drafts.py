"""What drafts gain on a model here: three kinds of text, written with and without by turns."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seventy.engine.drafts import Drafts, TextDrafts
from seventy.engine.llm import LLM, Completion
from seventy.language import t

_FILE = '''class Account:
    """Money of one person, in cents."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self.history = []

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("an amount must be positive")
        self.balance += amount
        self.history.append(("deposit", amount))

    def withdraw(self, amount):
        if amount > self.balance:
            raise ValueError("not enough money")
        self.balance -= amount
        self.history.append(("withdraw", amount))

    def transfer(self, other, amount):
        self.withdraw(amount)
        other.deposit(amount)

    def report(self):
        lines = [f"{self.owner}: {self.balance}"]
        for kind, amount in self.history:
            lines.append(f"  {kind} {amount}")
        return "\\n".join(lines)
'''
_EDITED = _FILE.replace("deposit", "pay_in").replace("Account", "Purse")
_FIRST_LINES = "\n".join(_EDITED.splitlines()[:5]) + "\n"
Prompt = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of text: what is asked, and how tokens are chosen."""

    name: str
    prompt: Prompt
    sampling: Mapping[str, Any]


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# The edited file has been seen once, so that a small model copies it, too.
KINDS = (
    Kind("edit", f"# old.py\n{_FILE}\n# new.py\n{_EDITED}\n# new.py, once more\n{_FIRST_LINES}", {}),
    Kind("chat", _asked("How do I keep a bicycle in order? Answer in steps."), {"temperature": 0.7, "seed": 1}),
    Kind("prose", _asked("Write the beginning of a novel that is set on a lighthouse in winter."),
         {"temperature": 1.0, "seed": 2, "top_k": 0, "top_p": 1.0, "min_p": 0.0}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A step without prompts: its rows, the tokens it wrote of so many texts, seconds, and those of drafting before."""

    texts: int
    rows: int
    written: int
    seconds: float
    drafting: float


@dataclass(frozen=True, slots=True)
class Row:
    """The effect of drafts on one kind of text: tokens per second of each run with and without, guesses made and
    accepted.

    `passes` is the same effect by the log of steps: seconds of all steps (by the median of their rows) and of drafting,
    compared to one step of one row per token.
    """

    kind: str
    tokens_per_second: tuple[float, ...]
    without: tuple[float, ...]
    drafted: int
    accepted: int
    passes: float

    @property
    def ratio(self) -> float:
        pairs = zip(self.tokens_per_second, self.without, strict=True)
        return statistics.median(a / b for a, b in pairs)

    def line(self) -> str:
        """Say how fast it was with drafts and without."""
        speeds = (statistics.median(each) for each in (self.tokens_per_second, self.without))
        share = t(
            "{accepted:.0%} of {drafted} guesses right",
            accepted=self.accepted / self.drafted, drafted=self.drafted,
        ) if self.drafted else t("no guesses")
        on, off = speeds
        return t(
            "drafts, {kind}: {on:.1f} tok/s, {off:.1f} without, {ratio:.2f} times; {share}",
            kind=self.kind, on=on, off=off, ratio=self.ratio, share=share,
        )


@contextmanager
def logged(drafts: Drafts) -> Iterator[list[Step]]:
    """Keep a log of the steps that read no prompt."""
    steps: list[Step] = []
    record = drafts.record

    def watched(
        texts: Sequence[TextDrafts], written: Sequence[int], rows: int, seconds: float, drafting: float
    ) -> float:
        steps.append(Step(len(texts), rows, sum(written), seconds, drafting))
        return record(texts, written, rows, seconds, drafting)

    drafts.record = watched  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        del drafts.record


def passes(steps: Sequence[Step], plain: Sequence[Step] = ()) -> float:
    """Return the seconds of steps of one text by the median of their rows beside those of one row a token.

    `plain` are further steps, of the same model at the same time, that medians may be of.
    """
    by_rows: dict[int, list[float]] = {}
    for step in [*steps, *plain]:
        by_rows.setdefault(step.rows, []).append(step.seconds)
    medians = {rows: statistics.median(seconds) for rows, seconds in by_rows.items()}
    taken = sum(medians[step.rows] + step.drafting for step in steps)
    return taken / (medians[1] * sum(step.written for step in steps))


def measure(llm: LLM, tokens: int, repeats: int, kinds: Sequence[Kind] = KINDS) -> Iterator[Row]:
    """Write each kind of text with and without drafts by turns, `repeats` times after a warm-up."""
    drafts, off = llm.scheduler.drafts, Drafts(lookup=False)
    for kind in kinds:
        speeds: tuple[list[float], list[float]] = [], []
        drafted = accepted = 0
        log: list[Step] = []
        plain: list[Step] = []
        for repeat in range(repeats + 1):
            for now, found in zip((drafts, off), speeds, strict=True):
                llm.scheduler.drafts = now
                # Else a text would be found whole in the one of the turn before.
                now.forget()
                with logged(now) as steps:
                    answer = write(llm, kind, tokens, repeat)
                if repeat:
                    found.append(answer.timings.decode_tokens_per_second)
                    (log if now is drafts else plain).extend(steps)
                    drafted += answer.timings.drafted_tokens
                    accepted += answer.timings.accepted_tokens
        llm.scheduler.drafts = drafts
        yield Row(kind.name, tuple(speeds[0]), tuple(speeds[1]), drafted, accepted, passes(log, plain))


def write(llm: LLM, kind: Kind, tokens: int, which: int = 0) -> Completion:
    """Write `tokens` tokens of a text of this kind; `which` selects one of the texts that are drawn at random."""
    sampling = dict(kind.sampling)
    if "seed" in sampling:
        sampling["seed"] += 1000 * which
    return llm.generate(kind.prompt, tokens, ignore_eos=True, **sampling)
