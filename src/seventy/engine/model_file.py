"""Opens a model's file, and beside it the file of an assistant that drafts for the model."""

import contextlib
import os
from types import ModuleType

from seventy import models
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.gguf.joined import Joined
from seventy.gguf.source import Source
from seventy.models import gemma4_assistant
from seventy.models.blocks.config import Config
from seventy.models.blocks.multi_token import has_block, refuse_alone, with_block


def open_model(
    files: contextlib.ExitStack,
    source: str | os.PathLike[str] | Source,
    mtp: bool = False,
    assistant: str | os.PathLike[str] | None = None,
) -> tuple[Source, ModuleType, Config]:
    """Return a model's tensors with those of its assistant, its architecture and its config; `files` closes what was
    opened.

    With `mtp`, the config has the block of multi-token prediction, if the file has one. Raises SeventyError for a file
    that cannot be read, an unknown architecture, and an assistant that was made for another model.
    """
    tensors: Source = files.enter_context(GGUF(source) if isinstance(source, str | os.PathLike) else source)
    architecture = models.find(tensors.metadata.get("general.architecture"))
    config: Config = architecture.config(tensors.metadata)
    refuse_alone(config, tensors.tensors, tensors.path)
    if assistant:
        small = files.enter_context(GGUF(assistant))
        config = _with_assistant(config, tensors, small)
        tensors = Joined(tensors, small, gemma4_assistant.PREFIX)
    elif mtp and has_block(config, tensors.tensors):
        config = with_block(config)
    return tensors, architecture, config


def _with_assistant(config: Config, source: Source, assistant: GGUF) -> Config:
    """Return the numbers of the model in `source` with those of the file that drafts for it."""
    try:
        return gemma4_assistant.beside(config, source.metadata, assistant.metadata)
    except SeventyError as error:
        raise SeventyError(
            "{path} cannot draft for {path_2}: {error}",
            path=assistant.path, path_2=source.path, error=error,
        ) from None
