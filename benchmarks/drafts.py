"""What drafts promise, shown on a model: the same text to the bit, never slower by over 2 %, faster where they can.

    python benchmarks/drafts.py MODEL equal [--prompts 200] [--draft FILE]   texts with and without are the same
    python benchmarks/drafts.py MODEL kinds [--draft FILE]                   three kinds of text, with the log of steps
    python benchmarks/drafts.py MODEL pairs [--pairs 30]                     a chat and novel prose by turns
    python benchmarks/drafts.py MODEL injected --right 0.6 0.8               guesses right so often, beside arithmetic
                                               [--against PYTHON]            and llama.cpp with guesses as often right
    python benchmarks/drafts.py MODEL mtp --right 0.88 0.8 0.6               guesses of the model's own block, right so
                                                                             often by their place, beside arithmetic
                                               [--certain 0.97 0.4]          or as often as it is certain, with and
                                                                             without leaving out what it is not
                                               [--draft FILE]                of an assistant in this file instead
    python benchmarks/drafts.py MODEL upkeep [--draft FILE]                  steps with a block that guesses nothing, by
                                                                             turns with those of the model without it
    python benchmarks/drafts.py MODEL users [--pairs 5]                      eight texts at once, with and without
    python benchmarks/drafts.py MODEL plot --out drafts.svg                  guesses that steps carried over time

`injected`, `mtp` and `upkeep` take files of random weights as well (benchmarks/write_shapes.py). Nothing
else may run meanwhile.
"""

import argparse
import math
import queue
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seventy import LLM
from seventy.bench.drafts import KINDS, logged, measure, passes, write
from seventy.bench.engine import Threads
from seventy.bench.peers import LlamaCpp
from seventy.engine.assistant import Assistant
from seventy.engine.drafts import Drafter, Drafts
from seventy.engine.governor import MAX_DRAFT, Governor, Offer
from seventy.engine.multi_token import MultiToken
from seventy.engine.passes import PassDrafter
from seventy.engine.request import Failed, Finished, Request, TextDelta
from seventy.engine.sampler import Sampling

WORDS = (
    "river", "stone", "winter", "light", "house", "engine", "garden", "letter", "number", "window", "morning", "bridge",
    "music", "answer", "question",
)  # fmt: skip
TEMPERATURES = (0.0, 0.7, 1.0)


class Told:
    """A drafter that knows what will be written and guesses it as often as `right` says."""

    def __init__(self, tokens: Sequence[int], whole: Sequence[int], right: float, vocabulary: int, hope: float) -> None:
        self._tokens, self._whole, self._right, self._hope = tokens, whole, right, hope
        self._random, self._vocabulary = random.Random(len(tokens)), vocabulary

    def observe(self) -> None:
        pass

    def chances(self, most: int) -> list[float]:
        return [self._hope ** (i + 1) for i in range(most)]

    def propose(self, n: int) -> list[int]:
        at, found = len(self._tokens), []
        for i in range(at, at + n):
            known = self._whole[i] if i < len(self._whole) else 0
            wrong = (known + 1 + self._random.randrange(self._vocabulary - 1)) % self._vocabulary
            found.append(known if self._random.random() < self._right else wrong)
        return found


def submit(llm: LLM, ids: Sequence[int], n: int, sampling: Sampling, user: str = "") -> Callable[[], list[int]]:
    """Ask for a text; the function that comes back waits for its tokens."""
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    llm.scheduler.submit(Request(ids, n, events.put, sampling, user=user, ignore_eos=True))

    def wait() -> list[int]:
        tokens: list[int] = []
        while not isinstance(event := events.get(), Finished):
            assert not isinstance(event, Failed), event
            if isinstance(event, TextDelta):
                tokens += event.tokens
        return tokens

    return wait


class Ungoverned(Governor):
    """Lets steps carry every guess there is, and a draft model read every text, whether it pays or not."""

    for_reading = 1e9

    def ready(self, texts: int) -> bool:
        return texts > 0 and bool(self.costs())

    def share(self, offers: Sequence[Offer], room: int, pass_seconds: float = 0.0) -> list[int]:
        return [min(len(offer.chances), room // len(offers)) for offer in offers]


class Reads(Governor):
    """Lets every text be read by what guesses."""

    for_reading = 1e9


def equal(llm: LLM, n_prompts: int, tokens: int, parallel: int) -> None:
    """Each option, alone in turn and under load, writes what is written without drafts."""
    rng = random.Random(1)
    model = llm.scheduler.drafts.model
    prompts = [llm.tokenize(" ".join(rng.choices(WORDS, k=rng.randrange(4, 60)))) for _ in range(n_prompts)]
    asked = [(ids, Sampling(temperature=t, seed=i)) for i, ids in enumerate(prompts) for t in TEMPERATURES]

    def all_of(drafts: Drafts, together: int) -> list[list[int]]:
        llm.scheduler.drafts = drafts
        found: list[list[int]] = []
        for first in range(0, len(asked), together):
            some = asked[first : first + together]
            waits = [submit(llm, ids, tokens, how, str(i)) for i, (ids, how) in enumerate(some)]
            found += [wait() for wait in waits]
        return found

    alone = all_of(Drafts(lookup=False), 1)
    whole = {tuple(ids): [] for ids, _ in asked}  # type: dict[tuple[int, ...], list[list[int]]]
    for (ids, _), written in zip(asked, alone, strict=True):
        whole[tuple(ids)].append([*ids, *written])

    def told(right: float) -> Drafts:
        drafts = Drafts()

        def make(ids: Sequence[int], user: str) -> Drafter:
            # Of three temperatures the text is that of one: for the others these guesses are wrong sooner or later.
            return Told(ids, rng.choice(whole[tuple(ids)]), right, llm.model.config.vocabulary, 1.0)

        drafts.make_lookup = make
        return drafts

    options = {"off": lambda: Drafts(lookup=False), "lookup": Drafts, "right": lambda: told(1.0),
               "wrong": lambda: told(0.0), "random": lambda: told(0.5)}  # fmt: skip
    if model:
        options["model"] = lambda: Drafts(lookup=False, model=model)
        options["model and lookup"] = lambda: Drafts(model=model)
    for name, make in options.items():
        for governed in (True, False):
            drafts = make()
            if not governed:
                drafts.governor = Ungoverned()
            found = all_of(drafts, parallel)
            different = sum(a != b for a, b in zip(alone, found, strict=True))
            drafted, right = (sum(each) for each in zip(*drafts.counts.values(), strict=True))
            how = "governed" if governed else "always"
            guesses = f"{right} of {drafted} guesses right"
            print(f"{name}, {how}: {different} of {len(alone)} texts differ; {guesses}", flush=True)


def lower_bound(values: Sequence[float], rounds: int = 4000) -> float:
    """The lower 95 % bound of the median, by drawing pairs again."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(np.asarray(values), (rounds, len(values)))
    return float(np.quantile(np.median(drawn, axis=1), 0.05))


def pairs(llm: LLM, count: int, tokens: int) -> None:
    """Whole answers, time to first token included, with drafts and without by turns."""
    drafts, off = llm.scheduler.drafts, Drafts(lookup=False)
    for kind in KINDS[1:]:
        ratios: list[float] = []
        for pair in range(count + 2):
            seconds = {}
            for now in (drafts, off) if pair % 2 else (off, drafts):
                llm.scheduler.drafts = now
                for model in (llm.model, llm.draft_model):
                    if model:
                        model.cache.forget()
                now.forget()
                start = time.perf_counter()
                write(llm, kind, tokens, pair)
                seconds[now is drafts] = time.perf_counter() - start
            if pair > 1:
                ratios.append(seconds[False] / seconds[True])
        low, middle, high = statistics.quantiles(ratios, n=4)
        bound = lower_bound(ratios)
        print(f"{kind.name}: {middle:.3f} ({low:.3f}-{high:.3f}) of {count} pairs, lower bound {bound:.3f}", flush=True)
    llm.scheduler.drafts = drafts


def injected(llm: LLM, rights: Sequence[float], tokens: int, peer: LlamaCpp | None) -> None:
    """Guesses right so often: tokens a second beside the arithmetic of steps by rows, and a peer's best."""
    ids, off = list(range(10, 74)), Drafts(lookup=False)
    llm.scheduler.drafts = off
    with logged(off) as log:
        whole = [*ids, *submit(llm, ids, tokens, Sampling())()]
    one = statistics.median(step.seconds for step in log)
    for right in rights:
        drafts = Drafts()
        # A drafter that is never right hopes all the same.
        drafts.make_lookup = lambda seen, user, right=right: Told(  # type: ignore[misc]
            seen, whole, right, llm.model.config.vocabulary, right or 0.6
        )
        llm.scheduler.drafts = drafts
        for _ in range(2):
            with logged(drafts) as steps:
                assert submit(llm, ids, tokens, Sampling())() == whole[len(ids) :]
        written, seconds = sum(step.written for step in steps), sum(step.seconds + step.drafting for step in steps)
        cost = drafts.governor.cost
        best = max(range(MAX_DRAFT + 1), key=lambda n: expected(right, n) / cost(1 + n))
        limit = expected(right, best) / cost(1 + best)
        print(
            f"right {right:.0%}: {written / seconds:.1f} tok/s, {1 / one:.1f} without; arithmetic {limit:.1f} with "
            f"{best} guesses a step; passes {passes(steps):.3f} of those of one row a token; steps by rows "
            + ", ".join(f"{rows}: {1e3 * each:.1f} ms" for rows, each in drafts.governor.costs()),
            flush=True,
        )
        if peer:
            plain = tokens / peer.decode(tokens, len(ids)).seconds
            speeds = {
                n: statistics.median(tokens / peer.speculate(tokens, len(ids), n, right).seconds for _ in range(2))
                for n in (1, 2, 3, 4, 7)
            }  # fmt: skip
            listed = ", ".join(f"{n}: {speed:.1f}" for n, speed in speeds.items())
            print(
                f"llama.cpp: {max(speeds.values()):.1f} tok/s, {plain:.1f} without; by guesses a pass {listed}",
                flush=True,
            )


def expected(right: float, n: int) -> float:
    return sum(right**i for i in range(n + 1))


class ToldBlock:
    """Logits in place of the block's: of what will be written, or of another token.

    A guess is right as often as `rights` says of its place; or, with `certain`, the block is as certain of it as one of
    these says, drawn anew for each, and it is right so often.
    """

    def __init__(self, whole: Sequence[int], rights: Sequence[float], certain: Sequence[float]) -> None:
        self._whole, self._rights, self._certain, self._random = whole, rights, certain, random.Random(0)

    def __call__(self, drafter: PassDrafter, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        place, n = len(drafter.guesses), len(logits)
        at = len(drafter._generation.tokens) + place
        known = self._whole[at] if at < len(self._whole) else 0
        wrong = (known + 1 + self._random.randrange(n - 3)) % n
        sure = self._random.choice(self._certain) if self._certain else 1.0
        right = sure if self._certain else self._rights[min(place, len(self._rights) - 1)]
        guess = known if self._random.random() < right else wrong
        logits[:] = -np.inf
        if sure < 1:
            # The rest is shared, so that it stays the likeliest.
            logits[[(guess + 1) % n, (guess + 2) % n]] = math.log((1 - sure) / 2)
        logits[guess] = math.log(sure)
        return logits


def block(llm: LLM, rights: Sequence[float], tokens: int, certain: Sequence[float]) -> None:
    """The model's own block, or its assistant, with guesses that are right so often, by their place: beside the
    arithmetic.

    With `certain`, also without leaving out what it is not certain of.
    """
    ids = list(range(10, 74))
    llm.scheduler.drafts = off = Drafts(lookup=False)
    with logged(off) as log:
        whole = [*ids, *submit(llm, ids, tokens, Sampling())()]
    one = statistics.median(step.seconds for step in log)
    for cuts in (True, False) if certain else (True,):
        told, ours = ToldBlock(whole, rights, certain), PassDrafter._ours
        PassDrafter._ours = lambda drafter, logits, told=told: told(drafter, logits)  # type: ignore[method-assign]
        try:
            passes = Assistant(llm.model) if llm.model.config.assistant else MultiToken(llm.model)
            passes.warm()
            passes.cuts = cuts
            llm.scheduler.drafts = drafts = Drafts(lookup=False, model=passes)
            # A few layers read a prompt faster than all of them, and the block does not.
            drafts.governor = Reads()
            for _ in range(2):
                with logged(drafts) as steps:
                    assert submit(llm, ids, tokens, Sampling())() == whole[len(ids) :]
        finally:
            PassDrafter._ours = ours  # type: ignore[method-assign]
        written, seconds = sum(step.written for step in steps), sum(step.seconds + step.drafting for step in steps)
        guesses = statistics.fmean(step.rows - 1 for step in steps)
        found = f"{written / seconds:.1f} tok/s, {1 / one:.1f} without; {guesses:.2f} guesses a step; "
        if certain:
            sure = ", ".join(f"{each:.0%}" for each in certain)
            said = f"certain of {sure}, {'' if cuts else 'not '}cut off: {found}"
        else:
            found += arithmetic(rights, drafts, passes, one)
            said = f"right {', '.join(f'{each:.0%}' for each in rights)}: {found}"
        print(said + "; ".join(drafts.lines()), flush=True)


def arithmetic(rights: Sequence[float], drafts: Drafts, passes: MultiToken, one: float) -> str:
    """What the best number of guesses would write by what steps and passes take."""
    cost, a_pass, gained = drafts.governor.cost, passes.pass_seconds(1, one), [1.0]
    for n in range(1, 5):
        gained.append(gained[-1] + math.prod(rights[min(i, len(rights) - 1)] for i in range(n)))
    speeds = [gained[n] / (cost(1 + n) + n * a_pass) for n in range(5)]
    best = max(range(5), key=speeds.__getitem__)
    listed = ", ".join(f"{each:.1f}" for each in speeds)
    return f"arithmetic {speeds[best]:.1f} with {best} guesses a step ({listed} by guesses); "


def upkeep(path: str, draft: str, tokens: int, rounds: int) -> None:
    """Steps of one row with a block or assistant that guesses nothing, and of the model without, by turns."""
    ids, ratios = list(range(10, 74)), list[float]()
    with LLM(path, context=1024, draft="off") as off, LLM(path, context=1024, draft=draft) as on:
        on.scheduler.drafts.make_lookup = None
        on.scheduler.drafts.governor.ready = lambda texts: False  # type: ignore[method-assign]
        for turn in range(rounds + 1):
            seconds = {}
            for llm in (on, off) if turn % 2 else (off, on):
                with logged(llm.scheduler.drafts) as steps:
                    submit(llm, ids, tokens, Sampling())()
                seconds[llm is on] = statistics.median(step.seconds for step in steps)
            if turn:
                ratios.append(seconds[True] / seconds[False])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"a step with what drafts loaded takes {middle:.4f} ({low:.4f}-{high:.4f}) of one without, {rounds} pairs")


def users(llm: LLM, count: int, tokens: int, parallel: int) -> None:
    """Texts of all users together, with drafts and without by turns."""
    drafts, off = llm.scheduler.drafts, Drafts(lookup=False)
    prompts = [llm.prompt_ids(kind.prompt) for kind in KINDS]
    ratios = []
    for pair in range(count + 1):
        seconds = {}
        for now in (drafts, off) if pair % 2 else (off, drafts):
            llm.scheduler.drafts = now
            now.forget()
            start = time.perf_counter()
            waits = [
                submit(llm, prompts[i % 3], tokens, Sampling(temperature=1.0, seed=100 * pair + i), str(i))
                for i in range(parallel)
            ]
            for wait in waits:
                wait()
            seconds[now is drafts] = time.perf_counter() - start
        if pair:
            ratios.append(seconds[False] / seconds[True])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{parallel} users: {middle:.3f} ({low:.3f}-{high:.3f}) times as fast with drafts as without, {count} pairs")


def plot(llm: LLM, tokens: int, out: Path) -> None:
    """Guesses that steps carried, over the tokens of a copy, a chat and prose, one after the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(KINDS), 1, figsize=(8, 6), sharex=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        with logged(llm.scheduler.drafts) as steps:
            write(llm, kind, tokens)
        at = np.cumsum([step.written for step in steps])
        axis.step(at, [step.rows - step.texts for step in steps], where="pre", linewidth=1, label="guesses")
        axis.step(at, [step.written - step.texts for step in steps], where="pre", linewidth=1, label="right")
        axis.set_title(f"{kind.name}: {passes(steps):.2f} of the time without", fontsize=9)
    axes[0].legend()
    axes[-1].set_xlabel("tokens written")
    figure.tight_layout()
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("what", choices=("equal", "kinds", "pairs", "injected", "mtp", "upkeep", "users", "plot"))
    parser.add_argument("--draft", default="lookup")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--right", type=float, nargs="+", default=(0.6, 0.8))
    parser.add_argument("--certain", type=float, nargs="+", default=())
    parser.add_argument("--isa")
    parser.add_argument("--against")
    parser.add_argument("--out", type=Path, default=Path("drafts.svg"))
    options = parser.parse_args()
    # Without a file of an assistant, the model's own block.
    if options.what in ("upkeep", "mtp") and options.draft == "lookup":
        options.draft = "mtp"
    if options.what == "upkeep":
        upkeep(options.model, options.draft, options.tokens, options.repeats)
        return
    parallel = 8
    with LLM(options.model, context=2048, sequences=parallel, parallel=parallel, draft=options.draft,
             isa=options.isa) as llm:  # fmt: skip
        if options.what == "equal":
            equal(llm, options.prompts, min(options.tokens, 40), parallel)
        elif options.what == "kinds":
            for row in measure(llm, options.tokens, options.repeats):
                print(f"{row}; passes {row.passes:.3f} of those of one row a token")
        elif options.what == "pairs":
            pairs(llm, options.pairs, options.tokens)
        elif options.what == "injected":
            peer = None
            if options.against:
                threads = Threads(llm.model.threads, llm.model.threads)
                peer = LlamaCpp(Path(options.model), threads, 2048, 1, options.against)
            injected(llm, options.right, options.tokens, peer)
        elif options.what == "mtp":
            block(llm, options.right, options.tokens, options.certain)
        elif options.what == "users":
            users(llm, options.pairs, options.tokens, parallel)
        else:
            plot(llm, options.tokens, options.out)


if __name__ == "__main__":
    main()
