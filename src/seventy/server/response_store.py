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
from seventy.server.json_answer import json_bytes

_log = logging.getLogger("seventy.server")
KEPT_SECONDS = 3600.0
# So many of all users: each is looked at when one more comes.
_MAX_RESPONSES = 4096


@dataclass(slots=True)
class StoredResponse:
    """A response and the items it was asked with, as JSON, and the id of the response it went on from."""

    response: bytes
    asked: bytes
    previous: str | None
    used: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        return len(self.response) + len(self.asked)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items it was asked with and those it said. Takes time: not in the event loop."""
        return [*json.loads(self.asked), *json.loads(self.response)["output"]]


class ResponseStore:
    """Keeps responses by user and id. What is too old or too much is forgotten, the longest unused first.

    All users' answers may take `max_bytes` as JSON, and one user's `max_bytes_of_user`, which is 0 until the first.
    """

    def __init__(self) -> None:
        self.max_bytes = self.max_bytes_of_user = 0
        self._promise: Reservation | None = None
        # The longest unused first.
        self._entries: dict[tuple[str, str], StoredResponse] = {}

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

    async def put(
        self, user: str, response: dict[str, Any], asked: list[dict[str, Any]], previous: str | None
    ) -> None:
        """Keep a response and the items it was asked with, unless it alone is more than its user may keep."""
        stored = StoredResponse(await json_bytes(response), await json_bytes(asked), previous)
        await asyncio.to_thread(self._promise_room)
        if stored.size <= self.max_bytes_of_user:
            self._entries[user, response["id"]] = stored
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
        return entry

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
        """Drop responses that are too old, or the oldest if there are too many bytes."""
        until, total, users = time.monotonic() - KEPT_SECONDS, 0, dict[str, int]()
        kept: list[tuple[tuple[str, str], StoredResponse]] = []
        for key, entry in reversed(self._entries.items()):
            mine = users[key[0]] = users.get(key[0], 0) + entry.size
            if entry.used < until or mine > self.max_bytes_of_user:
                continue
            total += entry.size
            if total > self.max_bytes or len(kept) == _MAX_RESPONSES:
                break
            kept.append((key, entry))
        self._entries = dict(reversed(kept))
