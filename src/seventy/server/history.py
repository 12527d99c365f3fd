"""Conversations that users keep on the server, so that they follow from phone to desktop; only where it is asked for.

A SQLite database that only the server's owner can read. Conversations belong to the name of a key, never to an address.
What is deleted is overwritten; what is old is deleted; a user's room is bounded. Nothing of it is ever logged.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field
from starlette.requests import Request as HttpRequest

from seventy.errors import SeventyError
from seventy.server.errors import ApiError
from seventy.server.json_answer import json_answer
from seventy.server.schemas import Body
from seventy.sizes import size

USER_BYTES = 64_000_000
ALL_BYTES = 1_000_000_000
_DAY_SECONDS = 86400.0
# How often what is old is looked for.
_PURGE_SECONDS = 3600.0
_SCHEMA = """
create table if not exists conversations (
    user text not null, id text not null, revision integer not null, changed real not null,
    bytes integer not null, body text, primary key (user, id)
) without rowid;
create index if not exists by_revision on conversations (user, revision);
create table if not exists revisions (user text primary key, last integer not null) without rowid;
"""
# Files of earlier versions do not say how long a body is.
_UPGRADE = (
    "alter table conversations add column bytes integer not null default 0",
    "update conversations set bytes = length(cast(body as blob)) where body is not null",
)
# What a user has is summed at every write: from this index, which holds ids, too, and not from the bodies.
_INDEX = "create index if not exists by_bytes on conversations (user, bytes)"
# A row counts, a deleted one's, too: its id is in the table and in two indices, beside what SQLite writes around it.
_ROW_BYTES = 128
_USED = f"""
select coalesce(sum({_ROW_BYTES} + 3 * length(cast(id as blob)) + bytes), 0) from conversations
where user = ? and id != ?
"""


class Conflict(Exception):
    """A conversation changed since it was read."""


class History:
    """Conversations of users in one file, kept for `days`; every change has a user's next revision.

    What was deleted leaves its id and a revision without a body, so that the user's other devices delete it, too. May
    be used by any thread, and by several processes at once.
    """

    def __init__(
        self, path: Path, days: float = 365.0, user_bytes: int = USER_BYTES, all_bytes: int = ALL_BYTES
    ) -> None:
        """Opens the file or makes it. Raises SeventyError where it cannot be."""
        self.path, self.days = path, days
        self._user_bytes, self._lock, self._purged = user_bytes, threading.Lock(), 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives its other files the rights of this one.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
            self._database = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            for setting in ("journal_mode = wal", "synchronous = full", "secure_delete = on"):
                self._database.execute(f"pragma {setting}")
            self._make_tables()
            page = int(self._database.execute("pragma page_size").fetchone()[0])
            self._database.execute(f"pragma max_page_count = {max(16, all_bytes // page)}")
        except (OSError, sqlite3.Error) as error:
            raise SeventyError("conversations cannot be kept in {path}: {error}", path=path, error=error) from None
        self.purge()

    def _make_tables(self) -> None:
        self._database.executescript(_SCHEMA)
        self._database.execute("begin immediate")
        columns = [row[1] for row in self._database.execute("pragma table_info(conversations)")]
        for statement in () if "bytes" in columns else _UPGRADE:
            self._database.execute(statement)
        self._database.execute(_INDEX)
        self._database.execute("commit")

    def close(self) -> None:
        """Close the file; nothing may be asked of it afterwards."""
        with self._lock:
            self._database.close()

    def changes(self, user: str, since: int = 0) -> list[dict[str, Any]]:
        """List what changed after a revision, oldest first: ids, their revisions, and whether they were deleted."""
        with self._reading() as database:
            rows = database.execute(
                "select id, revision, changed, body is null from conversations where user = ? and revision > ? "
                "order by revision", (user, since),
            ).fetchall()  # fmt: skip
        return [
            {"id": id, "revision": revision, "changed": changed, "deleted": bool(deleted)}
            for id, revision, changed, deleted in rows
        ]

    def read(self, user: str, id: str) -> tuple[int, str] | None:
        """Return the revision and the JSON of a conversation, or None if there is none."""
        with self._reading() as database:
            row = database.execute(
                "select revision, body from conversations where user = ? and id = ? and body is not null", (user, id)
            ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def write(self, user: str, id: str, revision: int, body: str) -> int:
        """Keep a conversation that was read at a revision, 0 for a new one; return its new revision.

        Raises Conflict where it changed since, ApiError 507 where there is no room.
        """
        with self._changing() as database:
            found = database.execute(
                "select revision from conversations where user = ? and id = ?", (user, id)
            ).fetchone()
            # One that is old is deleted without a mark, and may be kept again.
            if found and found[0] != revision:
                raise Conflict
            others = database.execute(_USED, (user, id)).fetchone()[0]
            if others + _ROW_BYTES + 3 * len(id.encode()) + len(body.encode()) > self._user_bytes:
                raise _full(f"your conversations take more than the {size(self._user_bytes)} you have here")
            return self._put(database, user, id, body)

    def delete(self, user: str, id: str) -> None:
        """Overwrite a conversation; nothing where there is none."""
        if self.read(user, id) is not None:
            with self._changing() as database:
                self._put(database, user, id, None)
            self._forget()

    def delete_all(self, user: str) -> None:
        """Overwrite all conversations of a user."""
        with self._changing() as database:
            ids = database.execute("select id from conversations where user = ? and body is not null", (user,))
            for (id,) in ids.fetchall():
                self._put(database, user, id, None)
        self._forget()

    def export(self, user: str) -> list[Any]:
        """Return all conversations of a user."""
        with self._reading() as database:
            rows = database.execute(
                "select body from conversations where user = ? and body is not null order by changed", (user,)
            ).fetchall()
        return [json.loads(body) for (body,) in rows]

    def purge(self, now: float | None = None) -> None:
        """Delete what nobody changed for `days`, and the marks of what was deleted as long ago."""
        self._purged = time.monotonic()
        before = (time.time() if now is None else now) - self.days * _DAY_SECONDS
        with self._changing() as database:
            gone = database.execute("delete from conversations where changed < ?", (before,)).rowcount
        if gone:
            self._forget()

    def _put(self, database: sqlite3.Connection, user: str, id: str, body: str | None) -> int:
        # Counted apart from the rows, which are deleted one day.
        row = database.execute(
            "insert into revisions values (?, 1) on conflict do update set last = last + 1 returning last", (user,)
        ).fetchone()
        revision = int(row[0])
        database.execute(
            "insert or replace into conversations (user, id, revision, changed, bytes, body) values (?, ?, ?, ?, ?, ?)",
            (user, id, revision, time.time(), len((body or "").encode()), body),
        )
        return revision

    def _forget(self) -> None:
        """Take what was deleted out of the log of changes, too."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):
            self._database.execute("pragma wal_checkpoint(truncate)").fetchall()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if time.monotonic() - self._purged > _PURGE_SECONDS:
            self.purge()
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise ApiError(500, f"the conversations cannot be read: {error}", "history_failed") from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is in the file when this ends, or nothing."""
        with self._lock:
            try:
                self._database.execute("begin immediate")
                yield self._database
                self._database.execute("commit")
            except sqlite3.Error as error:
                self._roll_back()
                if "full" in str(error):
                    raise _full("the disk is full, or what all users may keep here") from None
                raise ApiError(500, f"the conversation cannot be kept: {error}", "history_failed") from None
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("rollback")


def _full(why: str) -> ApiError:
    return ApiError(507, f"{why}; export and delete some conversations", "history_full")


class KeptConversation(Body):
    """A conversation as the page stores it, and the revision at which the page read it."""

    revision: int = Field(0, ge=0)
    conversation: dict[str, Any]


def router(history: History | None, users: frozenset[str]) -> APIRouter:
    """Build the routes of `/history` for users with a named key. They answer 404 if the history is off."""
    routes = APIRouter(tags=["page"])

    def of(request: HttpRequest) -> tuple[History, str]:
        user = request.state.user
        if history is None or user not in users:
            raise ApiError(404, "this server keeps no conversations; start it with --history", "no_history")
        return history, user

    @routes.get("/history")
    def changes(request: HttpRequest, since: Annotated[int, Query(ge=0, lt=1 << 63)] = 0) -> dict[str, Any]:
        """List the user's conversations that changed after a revision."""
        kept, user = of(request)
        return {"changes": kept.changes(user, since)}

    @routes.get("/history/export")
    def export(request: HttpRequest) -> Response:
        """Return all conversations of the user."""
        kept, user = of(request)
        found = {"format": "seventy.conversations", "version": 1, "conversations": kept.export(user)}
        return json_answer(found)

    @routes.get("/history/{id}")
    def read(request: HttpRequest, id: str) -> Response:
        """Return a conversation and its revision."""
        kept, user = of(request)
        if (found := kept.read(user, id)) is None:
            raise ApiError(404, "there is no such conversation", "conversation_not_found")
        return json_answer({"revision": found[0], "conversation": json.loads(found[1])})

    @routes.put("/history/{id}")
    def write(request: HttpRequest, id: str, body: KeptConversation) -> dict[str, int]:
        """Save a conversation. Answers 409 if it changed since it was read."""
        kept, user = of(request)
        if len(id) > 64:
            raise ApiError(400, "a conversation's id has 64 characters at most", "invalid_value", "id")
        try:
            text = json.dumps(body.conversation, ensure_ascii=False)
            return {"revision": kept.write(user, id, body.revision, text)}
        except Conflict:
            raise ApiError(409, "the conversation changed since it was read", "conversation_changed") from None

    @routes.delete("/history/{id}")
    def delete(request: HttpRequest, id: str) -> Response:
        """Delete a conversation permanently."""
        kept, user = of(request)
        kept.delete(user, id)
        return Response(status_code=204)

    @routes.delete("/history")
    def delete_all(request: HttpRequest) -> Response:
        """Delete all conversations of the user permanently."""
        kept, user = of(request)
        kept.delete_all(user)
        return Response(status_code=204)

    return routes
