"""SentencePiece encoding as Llama 1 and 2 and Mistral do it (`tokenizer.ggml.model` llama).

Neighbours that together are a token are joined, best score first, leftmost first among equals, until none are;
what is no token then becomes byte tokens. The merges have no order of their own (two ways to make a token have its
one score), so a list of merges, which the `tokenizers` library wants, cannot say the same.
"""

import heapq
from collections.abc import Mapping, Sequence
from functools import lru_cache

SPACE = "▁"
_CACHED_WORDS, _CACHED_CHARACTERS = 1 << 16, 64


class SentencePieceEncoder:
    """Text without special tokens to ids.

    `ids` has every token by its text, `scores` are by id; `unknown` stands for bytes that have no token.
    """

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], unknown: int | None) -> None:
        self._ids = ids
        self._scores = scores
        alone = {byte: ids[chr(byte)] for byte in range(128) if chr(byte) in ids}
        self._byte_ids = [ids.get(f"<0x{byte:02X}>", alone.get(byte, unknown)) for byte in range(256)]
        # No merge crosses two characters that no token has side by side: the text may be cut there, and words that
        # come again (in all usual vocabularies a word is cut at its spaces) are looked up.
        self._inside = {text[i : i + 2] for text in ids for i in range(len(text) - 1)}
        self._known = lru_cache(_CACHED_WORDS)(self._merge)

    def encode(self, text: str) -> list[int]:
        text = text.replace(" ", SPACE)
        inside, word, output, start = self._inside, self._word, list[int](), 0
        for i in range(1, len(text)):
            if text[i - 1 : i + 1] not in inside:
                output += word(text[start:i])
                start = i
        output += word(text[start:])
        return output

    def _word(self, word: str) -> tuple[int, ...]:
        return self._known(word) if len(word) <= _CACHED_CHARACTERS else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        ids, scores = self._ids, self._scores
        if len(word) == 1:
            return self._lookup(word)
        # A chain of symbols, each known by the index of its first character; length 0 once joined to its left.
        n = len(word)
        lengths = [1] * n
        before = list(range(-1, n - 1))
        after = [*range(1, n), -1]
        queue: list[tuple[float, int, int, int]] = []

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                both = lengths[left] + lengths[right]
                token = ids.get(word[left : left + both])
                if token is not None:
                    heapq.heappush(queue, (-scores[token], left, right, both))

        for left in range(n - 1):
            consider(left, left + 1)
        while queue:
            _, left, right, both = heapq.heappop(queue)
            if not lengths[left] or not lengths[right] or lengths[left] + lengths[right] != both:
                continue
            lengths[left], lengths[right] = both, 0
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            consider(before[left], left)
            consider(left, after[left])

        output: list[int] = []
        symbol = 0
        while symbol >= 0:
            output += self._lookup(word[symbol : symbol + lengths[symbol]])
            symbol = after[symbol]
        return tuple(output)

    def _lookup(self, piece: str) -> tuple[int, ...]:
        token = self._ids.get(piece)
        if token is not None:
            return (token,)
        return tuple(token for byte in piece.encode() if (token := self._byte_ids[byte]) is not None)

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """Return the bytes that a normal token stands for."""
        return text.replace(SPACE, " ").encode()
