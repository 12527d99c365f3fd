"""Which machine gets a request: the one that has read most of its prompt, else the one with the fewest requests."""

import json
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, Protocol, TypeVar

# What a prompt is made of, in the order of the engine's: what stands first in the prompt stands first here.
_PROMPT = ("model", "tools", "system", "instructions", "messages", "prompt", "input", "content")
# About 64 tokens, two pages of the engine's cache.
_CHUNK_CHARACTERS = 256
_MAX_NOTES = 200_000
T = TypeVar("T")


class Busy(Protocol):
    @property
    def running(self) -> Collection[Any]:
        """The requests it has."""
        ...


M = TypeVar("M", bound=Busy)


def prompt_of(body: bytes) -> str:
    """Return what a request's body asks to be read, as a text whose beginning equals that of a prompt that goes on."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    return "".join(json.dumps(fields[name], ensure_ascii=False) for name in _PROMPT if name in fields)


class Router:
    """Remembers which machine served the beginnings of prompts last; the longest unused are forgotten first."""

    def __init__(self, slack: int = 2) -> None:
        """A machine is kept for its cache while it has at most `slack` more requests than the least busy one."""
        self._slack = slack
        self._chunks: OrderedDict[int, object] = OrderedDict()
        self._users: OrderedDict[str, object] = OrderedDict()
        self._turns: dict[object, int] = {}

    def choose(self, machines: Collection[M], prompt: str, user: str) -> M:
        """Choose one of some machines. A request without a prompt goes where its user's last prompt went."""
        if not prompt:
            for machine in machines:
                if machine is self._users.get(user):
                    return machine
        idle = min(machines, key=lambda each: (len(each.running), self._turns.get(each, 0)))
        for chunk in reversed(_beginnings(prompt)):
            known = self._chunks.get(chunk)
            for machine in machines:
                if machine is known and len(machine.running) <= len(idle.running) + self._slack:
                    return machine
        return idle

    def served(self, machine: object, prompt: str, user: str) -> None:
        """Note that a machine has taken a request."""
        if not prompt:
            return
        self._turns[machine] = 1 + max(self._turns.values(), default=0)
        _note(self._users, [user], machine)
        _note(self._chunks, _beginnings(prompt), machine)

    def forget(self, machine: object) -> None:
        """Forget what a machine has read: it is gone, and its cache with it."""
        self._turns.pop(machine, None)
        self._chunks = OrderedDict((chunk, each) for chunk, each in self._chunks.items() if each is not machine)
        self._users = OrderedDict((user, each) for user, each in self._users.items() if each is not machine)


def _note(table: OrderedDict[T, object], keys: list[T], machine: object) -> None:
    for key in keys:
        table[key] = machine
        table.move_to_end(key)
    while len(table) > _MAX_NOTES:
        table.popitem(last=False)


def _beginnings(prompt: str) -> list[int]:
    """A number for each beginning of whole chunks, the shortest first."""
    numbers, so_far = [], 0
    for at in range(0, len(prompt) - _CHUNK_CHARACTERS + 1, _CHUNK_CHARACTERS):
        so_far = hash((so_far, prompt[at : at + _CHUNK_CHARACTERS]))
        numbers.append(so_far)
    return numbers
