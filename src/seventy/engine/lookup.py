"""Guesses for nothing: what followed the last few tokens before, in this text or in others of the same user."""

from collections import OrderedDict
from collections.abc import Sequence

# So many tokens in a row must have occurred before to be taken for a repetition.
_KEY = 3
# Tokens of a prompt that are indexed, the last ones, and tokens of earlier texts that are: some megabytes each.
_INDEXED, _REMEMBERED = 32768, 65536
# Of a user's texts so many are looked through, the latest.
_SEARCHED = 16
# How often a guess is right before anything was counted, by the doublings of tokens guessed right before it in a row,
# and how many guesses that counts for. Counts are halved at the last number: a text changes.
_FIRST_SHARES, _FIRST_COUNT, _MOST_COUNT = (0.2, 0.3, 0.5, 0.6, 0.7, 0.8), 4.0, 64.0
# With less hope a guess is not looked at.
_LEAST_CHANCE = 0.15

_Key = tuple[int, ...]


class Memory:
    """The texts that were written last, by user, and where in them each few tokens were followed by others.

    It has room for 65,536 tokens of all users together; the texts not used for longest leave first. No user's texts are
    looked up for another. For one thread.
    """

    def __init__(self, room: int = _REMEMBERED) -> None:
        self._room, self._size = room, 0
        # By user and a text's number its tokens and its index.
        self._texts: OrderedDict[tuple[str, int], tuple[list[int], dict[_Key, int]]] = OrderedDict()
        self._of_user: dict[str, list[int]] = {}
        self._number = 0

    def add(self, user: str, tokens: Sequence[int]) -> None:
        """Remember a text, or its end where it is long."""
        tokens = list(tokens[-min(self._room, _INDEXED) :])
        if len(tokens) <= _KEY:
            return
        self._forget_beginning_of(user, tokens)
        self._number += 1
        self._texts[user, self._number] = tokens, _index(tokens, 0)
        self._of_user.setdefault(user, []).append(self._number)
        self._size += len(tokens)
        while self._size > self._room:
            self._forget(*next(iter(self._texts)))

    def _forget_beginning_of(self, user: str, tokens: list[int]) -> None:
        """Forget the user's text that this one is the continuation of: the turn before of the same conversation."""
        for number in self._of_user.get(user, ()):
            earlier, _ = self._texts[user, number]
            if tokens[: len(earlier)] == earlier:
                self._forget(user, number)
                return

    def _forget(self, user: str, number: int) -> None:
        tokens, _ = self._texts.pop((user, number))
        self._size -= len(tokens)
        self._of_user[user].remove(number)
        if not self._of_user[user]:
            del self._of_user[user]

    def find(self, user: str, key: _Key) -> tuple[list[int], int] | None:
        """Return the user's latest text that has these tokens, and the place after them; None where no text has."""
        for number in reversed(self._of_user.get(user, ())[-_SEARCHED:]):
            tokens, index = self._texts[user, number]
            if place := index.get(key):
                self._texts.move_to_end((user, number))
                return tokens, place
        return None


def _index(tokens: Sequence[int], start: int) -> dict[_Key, int]:
    """The place after each key from `start` on; the latest stays. What comes after the last key is not known yet."""
    columns = [tokens[start + i :] for i in range(_KEY)]
    return dict(zip(zip(*columns, strict=False), range(start + _KEY, len(tokens)), strict=False))


class Lookup:
    """Guesses that what followed the last few tokens before follows them again.

    `tokens` is the text, conversation and answer, which others extend; where it has nothing, `memory` is asked for the
    other texts of the `user`. Between two tokens caches are cold and Python is slow: a token costs one dictionary entry
    and a comparison.
    """

    def __init__(self, tokens: Sequence[int], memory: Memory | None = None, user: str = "") -> None:
        self._tokens, self._memory, self._user = tokens, memory, user
        self._seen = n = len(tokens)
        self._after = _index(tokens, max(0, n - _INDEXED))
        # The text in which the next token may stand already, where, and how many were guessed right in a row.
        self._source, self._next, self._run = tokens, 0, 0
        # By whether the source is another text.
        self._right = [[share * _FIRST_COUNT for share in _FIRST_SHARES] for _ in range(2)]
        self._counted = [[_FIRST_COUNT] * len(_FIRST_SHARES) for _ in range(2)]
        key = self._last_key(n)
        # Other texts only where they are not being added to: in `observe`.
        self._next = self._after.get(key, 0)
        self._after[key] = n

    def _last_key(self, n: int) -> _Key:
        return tuple(self._tokens[max(0, n - _KEY) : n])

    def _find(self, key: _Key) -> None:
        self._source, self._next = self._tokens, self._after.get(key, 0)
        if not self._next and self._memory and (found := self._memory.find(self._user, key)):
            self._source, self._next = found

    def observe(self) -> None:
        tokens = self._tokens
        for at in range(self._seen, len(tokens)):
            if self._next:
                right = self._next < len(self._source) and self._source[self._next] == tokens[at]
                self._count(right)
                self._next, self._run = (self._next + 1, self._run + 1) if right else (0, 0)
            key = (tokens[at - 2], tokens[at - 1], tokens[at]) if at >= 2 else self._last_key(at + 1)
            if not self._next:
                self._find(key)
            self._after[key] = at + 1
        self._seen = len(tokens)

    @property
    def _other(self) -> bool:
        return self._source is not self._tokens

    def _count(self, right: bool) -> None:
        kind, rights, counted = self._kind(self._run), self._right[self._other], self._counted[self._other]
        rights[kind] += right
        counted[kind] += 1
        if counted[kind] > _MOST_COUNT:
            rights[kind] /= 2
            counted[kind] /= 2

    @staticmethod
    def _kind(run: int) -> int:
        return min(run.bit_length(), len(_FIRST_SHARES) - 1)

    def chances(self, most: int) -> list[float]:
        if not self._next:
            return []
        if self._other:
            most = min(most, len(self._source) - self._next)
        rights, counted = self._right[self._other], self._counted[self._other]
        chances, chance, run = list[float](), 1.0, self._run
        for _ in range(most):
            kind = self._kind(run)
            chance *= rights[kind] / counted[kind]
            if chance < _LEAST_CHANCE:
                break
            chances.append(chance)
            run += 1
        return chances

    def propose(self, n: int) -> list[int]:
        found = list(self._source[self._next : self._next + n])
        # A text that repeats itself goes on so.
        period = len(self._tokens) - self._next
        while len(found) < n:
            found.append(found[len(found) - period])
        return found
