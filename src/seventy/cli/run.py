import sys
from pathlib import Path
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli._conversation import Settings
from seventy.cli._reader import piped
from seventy.errors import SeventyError

_FIRST_MODEL = "smollm2"
_FIRST_PROMPT = "In two sentences: what is a large language model?"


def run(
    model: Annotated[str | None, session.MODEL] = None,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; what is piped in follows it, and - is that alone.")
    ] = None,
    raw: Annotated[bool, typer.Option(help="Continue the prompt as it is, without the chat template.")] = False,
    system: session.System = None,
    chat_template: session.ChatTemplate = None,
    max_tokens: session.MaxTokens = None,
    temperature: session.Temperature = 0.7,
    top_k: session.TopK = 40,
    top_p: session.TopP = 0.95,
    min_p: session.MinP = 0.05,
    repeat_penalty: session.RepeatPenalty = 1.0,
    presence_penalty: session.PresencePenalty = 0.0,
    frequency_penalty: session.FrequencyPenalty = 0.0,
    seed: session.Seed = None,
    stop: session.Stop = None,
    ignore_eos: Annotated[bool, typer.Option(help="Go on after the end of the answer.")] = False,
    context: session.Context = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    kv: session.KV = "f16",
    draft: session.Draft = "auto",
    verbose: session.Verbose = False,
) -> None:
    """Ask a model once, the answer alone goes to stdout; on a terminal and without a prompt, talk with it."""
    if raw and (system or chat_template):
        what = "--system" if system else "--chat-template"
        raise SeventyError(
            "{what} is for chats, and --raw continues the prompt as it is; leave one of the two out",
            what=what,
        )
    if model is not None and prompt is None and " " in model.strip() and not Path(model).exists():
        model, prompt = None, model
    loading = session.Loading(threads, context, isa, kv, draft, chat_template)
    sampling = session.sampling(
        temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed
    )
    settings = Settings(max_tokens, tuple(stop or ()), ignore_eos, sampling)
    text = _prompt(prompt, first=model is None)
    if text is None:
        if raw:
            raise SeventyError("--raw continues a text; write it after the model's name or on stdin")
        from seventy.cli.chat import talk

        talk(model or _FIRST_MODEL, loading, settings, system, True, verbose)
    else:
        _answer(model or _FIRST_MODEL, text, loading, settings, system, raw, verbose)


def _prompt(given: str | None, first: bool) -> str | None:
    """The prompt: what is given, then what is piped in; without both a first question, or None to talk instead."""
    text = sys.stdin.read() if given == "-" and sys.stdin is not None else piped(wait=given is None and not first)
    if given not in (None, "-"):
        text = f"{given}\n\n{text}" if given.strip() and text.strip() else f"{given}{text}"
    elif given is None and not text and first:
        session.say(f"> {_FIRST_PROMPT}")
        return _FIRST_PROMPT
    elif given is None and sys.stdin is not None and sys.stdin.isatty():
        return None
    if not text.strip():
        raise SeventyError("the prompt is empty; write it after the model's name or on stdin")
    return text


def _answer(
    model: str, text: str, loading: session.Loading, settings: Settings, system: str | None, raw: bool, verbose: bool
) -> None:
    with session.load(loading, session.locate(model)) as llm:
        if verbose:
            session.describe(llm.model, loading.threads)
        if not raw:
            session.say_template(llm)
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        with session.bars() as progress:
            stream = llm.stream(
                text if raw else messages, settings.max_tokens, stop=settings.stop, ignore_eos=settings.ignore_eos,
                progress=progress, **settings.sampling,
            )  # fmt: skip
        if loading.context is None:
            session.say_context(llm.model)
        completion = session.write(stream)
        profile, first = session.machine_limit(llm.model)
        session.report(completion, profile.read_bandwidth_gbs, llm.context)
        session.keep_limit_seen(llm.model, profile, completion)
        if verbose:
            session.describe_drafts(llm)
        if first:
            session.promise(profile)
