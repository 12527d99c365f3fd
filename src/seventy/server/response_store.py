"""Answers of /v1/responses that later requests go on from: in memory only, for an hour, each for its own user.

What they may take is promised in the account of memory (runtime/memory.py, runtime/reservations.py) from the first one
on, so that no model is given it.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from seventy.errors import SeventyError
from seventy.runtime import reservations
from seventy.runtime.memory import kept_bytes
from seventy.runtime.reservations import Reservation
from seventy.server.errors import ApiError

_log = logging.getLogger("seventy.server")
KEPT_SECONDS = 3600.0
# So many of all users: each is looked at when one more comes.
_MAX_RESPONSES = 4096


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, the items it was asked with and those it said, and the id of the response it went on from."""

    response: dict[str, Any]
    items: list[dict[str, Any]]
    n_input: int
    previous: str | None


@dataclass(slots=True)
class _Entry:
    data: bytes
    previous: str | None
    used: float = field(default_factory=time.monotonic)


class ResponseStore:
    """Keeps responses by user and id. What is too old or too much is forgotten, the longest unused first.

    All users' answers may take `max_bytes` as JSON, and one user's `max_bytes_of_user`, which is 0 until the first.
    """

    def __init__(self) -> None:
        self.max_bytes = self.max_bytes_of_user = 0
        self._promise: Reservation | None = None
        # The longest unused first.
        self._entries: dict[tuple[str, str], _Entry] = {}

    def _promise_room(self) -> None:
        """Promise the memory that the answers may come to take; less where there is little."""
        if self._promise is not None:
            return
        try:
            with reservations.ledger() as ledger:
                self.max_bytes, self.max_bytes_of_user = kept_bytes(ledger.room)
                self._promise = ledger.promise(self.max_bytes, "what users' responses take")
        except SeventyError as error:
            _log.warning("responses are not kept: %s", error)

    async def put(self, user: str, stored: StoredResponse) -> None:
        """Keep a response, unless it alone is more than its user may keep."""
        value = {"response": stored.response, "items": stored.items, "n_input": stored.n_input}
        data = await asyncio.to_thread(lambda: json.dumps(value).encode())
        await asyncio.to_thread(self._promise_room)
        if len(data) <= self.max_bytes_of_user:
            self._entries[user, stored.response["id"]] = _Entry(data, stored.previous)
            self.tidy()
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self.tidy)

    def get(self, user: str, id: str) -> StoredResponse:
        """Return the user's response with this id. Raises ApiError 404 if there is none."""
        entry = self._entries.pop((user, id), None)
        if entry is None or entry.used < time.monotonic() - KEPT_SECONDS:
            said = f"there is no response {id[:80]!r}, or no more: they are kept for an hour"
            raise ApiError(404, said, "response_not_found", "response_id")
        entry.used = time.monotonic()
        self._entries[user, id] = entry
        return StoredResponse(**json.loads(entry.data), previous=entry.previous)

    def conversation(self, user: str, id: str) -> list[dict[str, Any]]:
        """Return all items of a conversation up to and including a response's.

        Raises ApiError 400 if some of them are no longer stored.
        """
        found: list[StoredResponse] = []
        at: str | None = id
        while at is not None:
            try:
                found.append(self.get(user, at))
            except ApiError as error:
                raise ApiError(400, error.message, "previous_response_not_found", "previous_response_id") from None
            at = found[-1].previous
        return [item for stored in reversed(found) for item in stored.items]

    def delete(self, user: str, id: str) -> None:
        """Forget a response. ApiError 404 where this user has none."""
        self.get(user, id)
        del self._entries[user, id]

    def tidy(self) -> None:
        """Forget what is too old or too much."""
        until, total, users = time.monotonic() - KEPT_SECONDS, 0, dict[str, int]()
        kept: list[tuple[tuple[str, str], _Entry]] = []
        for key, entry in reversed(self._entries.items()):
            mine = users[key[0]] = users.get(key[0], 0) + len(entry.data)
            if entry.used < until or mine > self.max_bytes_of_user:
                continue
            total += len(entry.data)
            if total > self.max_bytes or len(kept) == _MAX_RESPONSES:
                break
            kept.append((key, entry))
        self._entries = dict(reversed(kept))
