"""What `run` and `chat` share: loading with a bar, writing an answer as it comes, saying how fast it was."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from seventy.cache.store import DiskCache
from seventy.cli._console import plain
from seventy.cli.pull import get
from seventy.engine.drafts import CHOICES
from seventy.engine.llm import LLM, Completion, Stream
from seventy.engine.model import Model
from seventy.engine.sampler import Sampling
from seventy.errors import SeventyError
from seventy.jit.isa import LEVELS
from seventy.kernels.pages import PAGE
from seventy.language import said, sentences, t
from seventy.machine.topology import allowed_cpus
from seventy.measure.profile import Profile, raise_limit
from seventy.runtime.memory import MOST_CONTEXT, USUAL_CONTEXT, room, whole_pages
from seventy.sizes import size
from seventy.text.fallbacks import TEMPLATES

MODEL = typer.Argument(help="A model's name (fetched when absent, see `seventy pull --help`) or a .gguf file.")
ModelArgument = Annotated[str, MODEL]
Context = Annotated[
    int | None,
    typer.Option(min=1, help=f"The most tokens of prompt and answer; what memory allows, up to {MOST_CONTEXT}."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; the physical cores when not given.")]
Isa = Annotated[str | None, typer.Option(help=f"An ISA level below this CPU's best: {', '.join(LEVELS)}.")]
KV = Annotated[str, typer.Option(help="How keys and values are kept: f16, or q8_0 in half the memory.")]
CacheDir = Annotated[
    Path | None, typer.Option(help="Keep what was read of texts in this folder, for you alone, and for the next run.")
]
CacheGb = Annotated[float, typer.Option(min=0.01, help="How many GB --cache-dir takes; the longest unused go first.")]
Draft = Annotated[
    str,
    typer.Option(
        help=f"Guess tokens so that a step may write several, the same text: {', '.join(CHOICES)} (the model's own "
        f"block of multi-token prediction), or the name or file of a small model of the same vocabulary, or of "
        f"Gemma 4's assistant."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was chosen and where the time went.")]
ChatTemplate = Annotated[
    str | None,
    typer.Option(help=f"A file with a chat template, or the name of one ({', '.join(TEMPLATES)}); else the model's."),
]

# By less, a limit is the same; and fewer tokens of an answer do not tell.
MORE, _TOKENS_THAT_TELL = 1.03, 16

_stderr = plain(stderr=True)


@dataclass(slots=True)
class Bars:
    """Progress bars on stderr, one for each kind of work; none where stderr is no terminal."""

    progress: Progress
    tasks: dict[str, Any]

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(escape(said(what)), total=total)
        self.progress.update(self.tasks[what], completed=done, total=total)


@contextlib.contextmanager
def bars() -> Iterator[Bars]:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %")
    with Progress(
        *columns, TimeRemainingColumn(), console=_stderr, transient=True, disable=not _stderr.is_terminal
    ) as progress:
        yield Bars(progress, {})


def locate_draft(draft: str) -> str:
    """Resolve --draft: one of CHOICES, or the file of a model, which is downloaded if absent."""
    return draft if draft in CHOICES else str(get(draft))


def say_draft(llm: LLM, draft: str) -> None:
    """Say on stderr which draft model was found on this disk, if nobody named one."""
    if llm.draft_path and draft == "auto":
        nbytes = llm.draft_model.weight_bytes if llm.draft_model else llm.draft_path.stat().st_size
        say(
            t(
                "{name} ({size}) is on this disk and drafts while that pays; without: --draft lookup",
                name=llm.draft_path.name, size=size(nbytes),
            )
        )


def template(given: str | None) -> str | None:
    """Return the template that --chat-template names, or read it from the file."""
    if given is None or given in TEMPLATES:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else t("it is no text")
        raise SeventyError(
            "--chat-template {given}: {why}; give a file, or one of {templates}",
            given=given, why=why, templates=", ".join(TEMPLATES),
        ) from None


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's options that `run` and `chat` share."""

    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None
    chat_template: ChatTemplate = None
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", min=1, help="The longest answer.")] = None
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token, higher is more varied.")] = 0.7
    top_k: Annotated[int, typer.Option(help="Choose among so many likeliest tokens; 0 for all.")] = 40
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that have this share together.")] = 0.95
    min_p: Annotated[float, typer.Option(help="Leave out tokens below this share of the likeliest.")] = 0.05
    repeat_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens of the last 64 less likely.")] = 1.0
    presence_penalty: Annotated[float, typer.Option(help="Lowers tokens that have occurred.")] = 0.0
    frequency_penalty: Annotated[float, typer.Option(help="Lowers tokens by how often they have occurred.")] = 0.0
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same answer, of the same version and vector width (--isa)."),
    ] = None
    stop: Annotated[list[str] | None, typer.Option(help="End the answer at this text; may be given again.")] = None
    context: Context = None
    threads: Threads = None
    isa: Isa = None
    kv: KV = "f16"
    draft: Draft = "auto"
    verbose: Verbose = False

    def sampling(self) -> dict[str, Any]:
        """Return the options that are fields of engine.sampler.Sampling, checked."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name in Sampling.__slots__}
        Sampling(**given)
        return given


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of Options as options of its own; it is called with one argument `options`."""

    @functools.wraps(command)
    def call(**given: Any) -> None:
        options = Options(**{field.name: given.pop(field.name) for field in fields(Options)})
        command(options=options, **given)

    own = inspect.signature(command, eval_str=True).parameters.values()
    shared = inspect.signature(Options, eval_str=True).parameters.values()
    parameters = [*(parameter for parameter in own if parameter.name != "options"), *shared]
    # What typer reads: the signature, and the types by name.
    vars(call)["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def load(options: Options, path: Path) -> LLM:
    """Load a model from a file."""
    given, draft = template(options.chat_template), locate_draft(options.draft)
    with bars() as progress:
        llm = LLM(
            path, options.threads, options.context, isa=options.isa, kv=options.kv, progress=progress,
            chat_template=given, draft=draft,
        )  # fmt: skip
    say_threads(options.threads)
    say_draft(llm, draft)
    return llm


def say_threads(threads: int | None) -> None:
    """Warn on stderr if there are more threads than CPUs: they wait for each other at every operation."""
    cpus = len(allowed_cpus())
    if threads is not None and threads > cpus:
        say(t(
            "--threads {threads} is more than the {cpus} CPUs there are: many times slower; leave --threads out",
            threads=threads, cpus=cpus,
        ))


def say_template(llm: LLM) -> None:
    """Say on stderr if the chat template is not the model's own, or the model was not made to chat."""
    if llm.ranking and llm.ranking.only:
        say(t("this model ranks documents: seventy serve it and ask /v1/rerank; it was not made to chat"))
    elif note := llm.chat_format.checked().note:
        say(note)


def write(stream: Stream) -> Completion:
    """Write the answer to stdout as it comes; on a terminal without control characters."""
    plain = sys.stdout.isatty()
    for piece in stream:
        shown = "".join(c for c in piece if c.isprintable() or c in "\n\t") if plain else piece
        sys.stdout.write(shown)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    assert stream.completion is not None
    return stream.completion


def say_context(model: Model) -> None:
    """Say on stderr which context was chosen by default, and why it is not longer."""
    own, taken = model.config.context, model.context
    if taken == own:
        why = t("the longest that the model was made for")
    elif taken == MOST_CONTEXT:
        why = t("--context N for another, up to the model's {own}", own=own)
    else:
        why = t("what memory allows; the model was made for up to {own}", own=own)
    _stderr.print(said(t("context {taken} tokens ({why})", taken=taken, why=why)), style="dim", soft_wrap=True)


def cache_shared(model: Model, texts: int) -> str:
    """Describe the size of the shared cache if it cannot hold all texts at full length; else return ""."""
    positions = model.cache.n_pages * PAGE
    return t(
        " in a cache of {positions} tokens",
        positions=positions,
    ) if positions < texts * whole_pages(model.context) else ""


def report(completion: Completion, limit_gbs: float, context: int) -> None:
    """Print a line on stderr: tokens, speed, share of the memory's limit, and why an answer was cut short."""
    timings = completion.timings
    read = timings.prompt_tokens - timings.cached_tokens
    parts = [t(
        "prompt {read} tokens at {prompt_tokens_per_second:.1f} tok/s",
        read=read, prompt_tokens_per_second=timings.prompt_tokens_per_second,
    )]
    if timings.cached_tokens:
        parts[0] += t(" ({cached_tokens} more were known)", cached_tokens=timings.cached_tokens)
    if timings.generated_tokens > 1:
        parts.append(t(
            "answer {generated_tokens} tokens at {decode_tokens_per_second:.1f} tok/s",
            generated_tokens=timings.generated_tokens, decode_tokens_per_second=timings.decode_tokens_per_second,
        ))
        share = t(
            "{decode_gbs:.0%} of this machine's {limit_gbs:.1f}",
            decode_gbs=timings.decode_gbs / limit_gbs, limit_gbs=limit_gbs,
        )
        parts.append(t("{decode_gbs:.1f} GB/s read, {share}", decode_gbs=timings.decode_gbs, share=share))
    if timings.drafted_tokens:
        right = t(
            "{accepted_tokens} of {drafted_tokens} drafted tokens were right",
            accepted_tokens=timings.accepted_tokens, drafted_tokens=timings.drafted_tokens,
        )
        parts.append(t(
            "{right}, {draft_speedup:.2f} times as fast as without",
            right=right, draft_speedup=timings.draft_speedup,
        ))
    if completion.finish_reason == "length":
        full = timings.prompt_tokens + timings.generated_tokens >= context
        reason = t("the context of {context} tokens is full (--context)", context=context) if full else "--max-tokens"
        parts.append(t("cut at its longest: {reason}", reason=reason))
    _stderr.print(said(sentences(parts)), style="dim", soft_wrap=True)


def keep_limit_seen(model: Model, profile: Profile, completion: Completion) -> None:
    """Store the bandwidth that memory delivered while an answer was written, if it exceeds the measured one."""
    from seventy.bench.engine import WHOLE_PROBE_CACHES

    seen = completion.timings.decode_gbs
    whole = model.weight_bytes >= WHOLE_PROBE_CACHES * profile.last_level_cache_bytes
    long = completion.timings.generated_tokens > _TOKENS_THAT_TELL
    if whole and long and seen > MORE * profile.read_bandwidth_gbs and raise_limit(profile, seen):
        say(t(
            "Memory gave {seen:.1f} GB/s, not {read_bandwidth_gbs:.1f} as measured before; that is kept.",
            seen=seen, read_bandwidth_gbs=profile.read_bandwidth_gbs,
        ))


def machine_limit(model: Model) -> tuple[Profile, bool]:
    """Return this machine's profile, measured now (one second) if none is valid, and whether it is the first."""
    from seventy.measure import profile

    known = profile.load()
    if known is not None and not known.disturbed:
        return known, False
    with _stderr.status(said(t("measuring this machine's memory, one second ..."))):
        return profile.quick(model.library, model.threads), known is None


def say(text: str) -> None:
    """Print a line for the person at the terminal, in the language that is spoken, beside the answer."""
    _stderr.print(said(text), soft_wrap=True)


def describe(model: Model, given_threads: int | None) -> None:
    """Say what was chosen for this model and machine, and why."""
    weights = model.program.weights
    formats = ", ".join(sorted({kernel.parameters[0] for kernel in weights.kernels()}))
    nodes = t(" on {nodes_count} NUMA nodes", nodes_count=len(weights.nodes)) if len(weights.nodes) > 1 else ""
    say(
        t(
            "{layers} layers of {hidden}, {formats}; {weight_bytes} of weights{nodes}; context {context} as {kind}; "
            "{threads} threads; ISA {name}",
            layers=model.config.layers, hidden=model.config.hidden, formats=formats,
            weight_bytes=size(model.weight_bytes), nodes=nodes, context=model.context, kind=model.cache.memory.kind,
            threads=model.threads, name=model.isa.name,
        )
    )
    if model.tuning:
        for line in model.tuning.lines():
            say(line)
    elif model.disturbing_cpus:
        say(
            t(
                "other programs used {disturbing_cpus:.1f} CPUs while threads, width and tiles were tried, so these "
                "are the defaults; when it is quiet: seventy bench MODEL --tune",
                disturbing_cpus=model.disturbing_cpus,
            )
        )
    elif given_threads is None:
        say(t("threads, vector width and tiles are the defaults; to measure what is best: seventy bench MODEL --tune"))


def describe_drafts(llm: LLM) -> None:
    """Print who drafted, the share of right guesses, and the time of a step by its number of rows."""
    for line in llm.scheduler.drafts.lines():
        say(line)


def promise(profile: Profile) -> None:
    """Say how fast a 70B would run on this machine, by its measured bandwidth."""
    from seventy.plan.here import this_machine
    from seventy.plan.roofline import predict
    from seventy.plan.wanted import catalogue_load

    load = catalogue_load("llama-3.3-70b", "Q4_K_M")
    speed = predict(replace(this_machine(), room_bytes=None), load, engine="seventy").decode.mid
    total = profile.memory_bytes
    say(
        t(
            "Llama-3.3-70B Q4_K_M here: needs {need} (you have {all}, {free} free for it), would run about "
            "{speed:.1f} tok/s (memory limit {read_bandwidth_gbs:.1f}); see: seventy plan",
            need=size(load.need(USUAL_CONTEXT).total), all=size(total), free=size(room(total)), speed=speed,
            read_bandwidth_gbs=profile.read_bandwidth_gbs / load.read_gb,
        )
    )


def disk_cache(folder: Path | None, gigabytes: float) -> DiskCache | None:
    """Return the disk cache that --cache-dir and --cache-gb describe, or None."""
    return DiskCache(folder.expanduser(), round(1e9 * gigabytes)) if folder else None
