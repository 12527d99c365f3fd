"""What a model thinks before it answers (`<think> ... </think>`), told apart from the answer as it comes."""

from dataclasses import dataclass

from seventy.text.parts import Part, Splitter, Text, Thought, overlap


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around thinking. If `anywhere`, they also count after the answer has begun; else they are text there."""

    open: str
    close: str
    anywhere: bool = False

    def opened_by(self, prompt: str) -> bool:
        """Return whether the prompt ends with the opening tag, so that the answer begins inside the thinking."""
        return prompt.rstrip().endswith(self.open)

    def closed(self, prompt: str) -> str:
        """Return the prompt with the thinking that it opens closed, so that the answer follows at once."""
        gap = "\n\n" if self.open == THINK.open else ""
        return f"{prompt.rstrip()}{gap}{self.close}{gap}"


THINK = Tags("<think>", "</think>")
# In templates that have one of these, it is this one; the others, and models without a template, have THINK.
_OTHERS = (
    Tags("<|channel>thought", "<channel|>", anywhere=True),
    Tags("[THINK]", "[/THINK]", anywhere=True),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>", anywhere=True),
)


def tags(template: str) -> Tags:
    """Return the thinking tags that a chat template uses."""
    return next((tags for tags in _OTHERS if tags.open in template), THINK)


class Reasoning(Splitter):
    """Splits the pieces of an answer; `inside` when the thinking has begun in the prompt already.

    Newlines at both ends of the thinking, and empty lines between it and the answer, belong to neither.
    """

    def __init__(self, tags: Tags = THINK, inside: bool = False) -> None:
        super().__init__()
        self._tags = tags
        self._state = "inside" if inside else "start"
        self._thought = False

    def flush(self) -> list[Part]:
        """End the answer and return the rest."""
        held, self._held = self._held, ""
        if self._state == "inside":
            held = held if self._thought else held.lstrip("\n")
            return [Thought(held)] if held else []
        return [Text(held)] if held and self._state != "after" else []

    def _advance(self, parts: list[Part]) -> bool:
        if self._state == "start":
            return self._start()
        if self._state == "inside":
            return self._inside(parts)
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "answer"
            return bool(self._held)
        return self._answer(parts)

    def _start(self) -> bool:
        begun, open = self._held.lstrip(), self._tags.open
        if begun.startswith(open):
            self._open(begun[len(open) :])
            return True
        if open.startswith(begun):
            return False
        self._state = "answer"
        return True

    def _open(self, rest: str) -> None:
        self._state, self._held, self._thought = "inside", rest, False

    def _inside(self, parts: list[Part]) -> bool:
        close = self._tags.close
        at = self._held.find(close)
        end = at if at >= 0 else len(self._held) - overlap(self._held, close)
        thought = self._held[:end].rstrip("\n")
        shown = thought if self._thought else thought.lstrip("\n")
        if shown:
            parts.append(Thought(shown))
            self._thought = True
        if at < 0:
            self._held = self._held[len(thought) :]
            return False
        self._state, self._held = "after", self._held[at + len(close) :]
        return True

    def _answer(self, parts: list[Part]) -> bool:
        open = self._tags.open
        at = self._held.find(open) if self._tags.anywhere else -1
        end = at if at >= 0 else len(self._held) - (overlap(self._held, open) if self._tags.anywhere else 0)
        if end:
            parts.append(Text(self._held[:end]))
        if at >= 0:
            self._open(self._held[at + len(open) :])
            return True
        self._held = self._held[end:]
        return False
