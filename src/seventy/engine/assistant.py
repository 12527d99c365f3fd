"""Guesses of a small model in a file of its own that attends to the large one's keys and values (gemma4-assistant).

It remembers nothing (models/gemma4_assistant.py): its first guess takes in the text's last token and what the model
made of the one before, which every step keeps in the model's pages; each further guess takes in the one before and what
the assistant made of that. So it has no text to read before it can guess, and what is shared, preempted or left and
gone on with later needs nothing.
"""

import os

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine.generation import Generation
from seventy.engine.model import Segment
from seventy.engine.multi_token import MOST_GUESSES, MultiToken
from seventy.engine.passes import PassDrafter
from seventy.gguf.file import GGUF
from seventy.language import t
from seventy.models import gemma4_assistant


def is_assistant(path: str | os.PathLike[str]) -> bool:
    """Return whether this model file only drafts for another."""
    with GGUF(path) as file:
        return bool(file.metadata.get("general.architecture") == gemma4_assistant.NAME)


class Assistant(MultiToken):
    """Guesses of the assistant that a model was loaded with."""

    name = t("the assistant")

    def open(self, generation: Generation, sequence: CachedSequence) -> "AssistantDrafter":
        return AssistantDrafter(self, generation, sequence)


class AssistantDrafter(PassDrafter):
    """The guesses of one text."""

    behind = 0

    def __init__(self, of: Assistant, generation: Generation, sequence: CachedSequence) -> None:
        super().__init__(of, generation)
        self._of, self._sequence = of, sequence

    def _most(self) -> int:
        return min(MOST_GUESSES, self._of.model.context - len(self._generation.tokens))

    def can_read(self, rows: int) -> bool:
        return True

    def catch_up(self, rows: int) -> bool:
        return self.able

    def _reserve(self, n: int) -> bool:
        # The same rows that the step will have.
        self._sequence.reserve(self._at + n, n)
        return True

    def segment(self) -> Segment:
        read, fed = self._at - 1, self.guesses[-1:] or self._generation.tokens[-1:]
        return Segment(read + len(self.guesses), fed, 1, self._sequence.pages, read=read)

    def _commit(self, right: int) -> None:
        pass

    def close(self) -> None:
        self.guesses = []
