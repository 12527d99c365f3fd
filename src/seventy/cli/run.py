import sys
from pathlib import Path
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli._conversation import Settings
from seventy.cli._reader import piped
from seventy.cli.pull import get
from seventy.errors import SeventyError
from seventy.language import t

_FIRST_MODEL = "smollm2"
_FIRST_PROMPT = "In two sentences: what is a large language model?"


@session.takes_options
def run(
    model: Annotated[str | None, session.MODEL] = None,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; what is piped in follows it, and - is that alone.")
    ] = None,
    raw: Annotated[bool, typer.Option(help="Continue the prompt as it is, without the chat template.")] = False,
    ignore_eos: Annotated[bool, typer.Option(help="Go on after the end of the answer.")] = False,
    *,
    options: session.Options,
) -> None:
    """Ask a model once, the answer alone goes to stdout; on a terminal and without a prompt, talk with it."""
    if raw and (options.system or options.chat_template):
        what = "--system" if options.system else "--chat-template"
        raise SeventyError(
            "{what} is for chats, and --raw continues the prompt as it is; leave one of the two out",
            what=what,
        )
    if model is not None and prompt is None and " " in model.strip() and not Path(model).exists():
        model, prompt = None, model
    settings = Settings(options.max_tokens, tuple(options.stop or ()), ignore_eos, options.sampling())
    text = _prompt(prompt, first=model is None)
    if text is None:
        if raw:
            raise SeventyError("--raw continues a text; write it after the model's name or on stdin")
        from seventy.cli.chat import talk

        talk(model or _FIRST_MODEL, options, settings)
    else:
        _answer(model or _FIRST_MODEL, text, options, settings, raw)


def _prompt(given: str | None, first: bool) -> str | None:
    """The prompt: what is given, then what is piped in; without both a first question, or None to talk instead."""
    text = sys.stdin.read() if given == "-" and sys.stdin is not None else piped(wait=given is None and not first)
    if given not in (None, "-"):
        text = f"{given}\n\n{text}" if given.strip() and text.strip() else f"{given}{text}"
    elif given is None and not text and first:
        session.say(t("> {prompt}", prompt=_FIRST_PROMPT))
        return _FIRST_PROMPT
    elif given is None and sys.stdin is not None and sys.stdin.isatty():
        return None
    if not text.strip():
        raise SeventyError("the prompt is empty; write it after the model's name or on stdin")
    return text


def _answer(model: str, text: str, options: session.Options, settings: Settings, raw: bool) -> None:
    with session.load(options, get(model)) as llm:
        if options.verbose:
            session.describe(llm.model, options.threads)
        if not raw:
            session.say_template(llm)
        messages = [{"role": "system", "content": options.system}] if options.system else []
        messages.append({"role": "user", "content": text})
        with session.bars() as progress:
            stream = llm.stream(
                text if raw else messages, settings.max_tokens, stop=settings.stop, ignore_eos=settings.ignore_eos,
                progress=progress, **settings.sampling,
            )  # fmt: skip
        if options.context is None:
            session.say_context(llm.model)
        completion = session.write(stream)
        profile, first = session.machine_limit(llm.model)
        session.report(completion, profile.read_bandwidth_gbs, llm.context)
        session.keep_limit_seen(llm.model, profile, completion)
        if options.verbose:
            session.describe_drafts(llm)
        if first:
            session.promise(profile)
