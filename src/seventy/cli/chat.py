from functools import partial
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli._conversation import Conversation, Leave, Settings
from seventy.cli._reader import Reader
from seventy.cli.pull import get
from seventy.engine.request import TooLong
from seventy.errors import SeventyError
from seventy.language import t


@session.takes_options
def chat(
    model: session.ModelArgument = "smollm2",
    history: Annotated[bool, typer.Option(help="Remember what was asked, for the arrow keys of later chats.")] = True,
    *,
    options: session.Options,
) -> None:
    """Talk with a model; Ctrl-C stops the answer, not the program."""
    talk(model, options, Settings(options.max_tokens, tuple(options.stop or ()), False, options.sampling()), history)


def talk(model: str, options: session.Options, settings: Settings, history: bool = True) -> None:
    """Read questions and write answers until the person leaves."""
    conversation = Conversation(get(model), partial(session.load, options), settings, options.system)
    try:
        llm = conversation.llm
        if options.verbose:
            session.describe(llm.model, options.threads)
        if options.context is None:
            session.say_context(llm.model)
        session.say_template(llm)
        session.say(t("/help shows what can be done here, /exit leaves, Ctrl-C stops an answer"))
        reader = Reader(conversation.commands, history)
        while _turn(conversation, reader):
            pass
        if options.verbose:
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
