"""What a model thinks before it answers (`<think> ... </think>`), told apart from the answer as it comes."""

OPEN, CLOSE = "<think>", "</think>"


def opens_reasoning(prompt: str) -> bool:
    """Whether the answer to a prompt begins in the middle of the thinking: some templates write the tag themselves."""
    return prompt.rstrip().endswith(OPEN)


class Reasoning:
    """Splits the pieces of an answer; `inside` when the thinking has begun in the prompt already."""

    def __init__(self, inside: bool = False) -> None:
        self._state = "inside" if inside else "start"
        self._held = ""

    def push(self, piece: str) -> tuple[str, str]:
        """What of the thinking and what of the answer can be shown now."""
        if self._state == "start":
            self._held += piece
            begun = self._held.lstrip()
            if OPEN.startswith(begun[: len(OPEN)]) and len(begun) < len(OPEN):
                return "", ""
            if not begun.startswith(OPEN):
                self._state = "answer"
                held, self._held = self._held, ""
                return "", held
            self._state, self._held = "inside", ""
            piece = begun[len(OPEN) :]
        if self._state == "inside":
            self._held += piece
            at = self._held.find(CLOSE)
            if at < 0:
                keep = next((n for n in range(len(CLOSE) - 1, 0, -1) if self._held.endswith(CLOSE[:n])), 0)
                shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
                return shown, ""
            thought, piece, self._held = self._held[:at], self._held[at + len(CLOSE) :], ""
            self._state = "after"
            return thought, self._answer(piece)
        return "", self._answer(piece)

    def flush(self) -> tuple[str, str]:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "inside" else ("", held)

    def _answer(self, piece: str) -> str:
        # The empty lines between the thinking and the answer belong to neither.
        if self._state == "after":
            piece = piece.lstrip()
            if piece:
                self._state = "answer"
        return piece
