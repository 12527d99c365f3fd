from functools import partial
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli._conversation import Conversation, Leave, Settings
from seventy.cli._reader import Reader
from seventy.engine.request import TooLong
from seventy.errors import SeventyError
from seventy.language import t


def chat(
    model: session.ModelArgument = "smollm2",
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
    context: session.Context = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    kv: session.KV = "f16",
    draft: session.Draft = "auto",
    history: Annotated[bool, typer.Option(help="Remember what was asked, for the arrow keys of later chats.")] = True,
    verbose: session.Verbose = False,
) -> None:
    """Talk with a model; Ctrl-C stops the answer, not the program."""
    loading = session.Loading(threads, context, isa, kv, draft, chat_template)
    sampling = session.sampling(
        temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed
    )
    talk(model, loading, Settings(max_tokens, tuple(stop or ()), False, sampling), system, history, verbose)


def talk(
    model: str, loading: session.Loading, settings: Settings, system: str | None, history: bool, verbose: bool
) -> None:
    """Read questions and write answers until the person leaves."""
    conversation = Conversation(session.locate(model), partial(session.load, loading), settings, system)
    try:
        llm = conversation.llm
        if verbose:
            session.describe(llm.model, loading.threads)
        if loading.context is None:
            session.say_context(llm.model)
        session.say_template(llm)
        session.say(t("/help shows what can be done here, /exit leaves, Ctrl-C stops an answer"))
        reader = Reader(conversation.commands, history)
        while _turn(conversation, reader):
            pass
        if verbose:
            session.describe_drafts(conversation.llm)
        if conversation.first:
            session.promise(conversation.profile)
    finally:
        conversation.llm.close()


def _turn(conversation: Conversation, reader: Reader) -> bool:
    """A line of the person's and what comes of it; whether there may be another."""
    try:
        conversation.take(reader.ask())
    except (EOFError, Leave):
        return False
    except KeyboardInterrupt:
        session.say(t("\n(/exit leaves)"))
    except SeventyError as error:
        # The conversation has outgrown the context, say: nothing of the line is remembered, the program stays.
        clear = t(" (/clear starts anew)") if isinstance(error, TooLong) else ""
        session.say(t("seventy: {error}{clear}", error=error, clear=clear))
    return True
