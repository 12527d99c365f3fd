import sys
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.errors import SeventyError

_FIRST_MODEL = "smollm2"
_FIRST_PROMPT = "In two sentences: what is a large language model?"


def run(
    model: session.ModelArgument = _FIRST_MODEL,
    prompt: Annotated[str | None, typer.Argument(help="What to ask; from stdin when not given.")] = None,
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
    """Ask a model once; the answer alone goes to stdout."""
    if prompt is None and " " in model.strip():
        model, prompt = _FIRST_MODEL, model
    if prompt is None:
        prompt = _from_stdin(model)
    if not prompt.strip():
        raise SeventyError("the prompt is empty; write it after the model's name or on stdin")
    with session.load(model, threads, context, isa, kv, draft, chat_template) as llm:
        if verbose:
            session.describe(llm.model, threads)
        if not raw:
            session.say_template(llm)
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        with session.bars() as progress:
            stream = llm.stream(
                prompt if raw else messages,
                max_tokens,
                stop=stop or (),
                ignore_eos=ignore_eos,
                progress=progress,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repeat_penalty=repeat_penalty,
                presence_penalty=presence_penalty,
                frequency_penalty=frequency_penalty,
                seed=seed,
            )
        if context is None:
            session.say_context(llm.model)
        completion = session.write(stream)
        profile, first = session.machine_limit(llm.model)
        session.report(completion, profile.read_bandwidth_gbs, llm.context)
        if first:
            session.promise(profile)


def _from_stdin(model: str) -> str:
    """What is piped in; without a pipe, or with an empty one and no arguments, a first question."""
    text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    if text or (model != _FIRST_MODEL and not sys.stdin.isatty()):
        return text
    session.say(f"> {_FIRST_PROMPT}")
    return _FIRST_PROMPT
