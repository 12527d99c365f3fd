"""Connections that have said nothing yet: each is a socket that is watched for its first byte, and nothing more.

What asyncio and uvicorn make of a connection (a task, a transport, a parser, timers) costs several times as much, and
who opens idle connections by the hundred would take that from the answers that are being written.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

# So many are accepted before others have their turn.
_AT_ONCE = 64
# Where more than so many say nothing, the next ones are waited for so long, so that they come together.
_CROWD, _CROWDED_SECONDS = 64, 0.02
# What the system lacks for the moment, and the seconds to the next try.
_LACKING, _LACKING_SECONDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), 1.0


class Arrivals:
    """Accepts connections, and gives those that say something to a protocol.

    `seconds` says how long a connection may say nothing. `is_full` is told how many there are here; where it is true
    for a new one, the one that said nothing for the longest time is closed, or what `make_room` closes; where that is
    nothing, the new one.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        seconds: Callable[[], float],
        is_full: Callable[[int], bool],
        make_room: Callable[[], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol, self._seconds, self._is_full, self._make_room = protocol, seconds, is_full, make_room
        self._listeners = set[socket.socket]()
        # When each has to have said something, the longest silent first.
        self._silent = dict[socket.socket, float]()
        self._timer: asyncio.TimerHandle | None = None
        self._connecting = set[asyncio.Task[None]]()

    def listen(self, listener: socket.socket) -> None:
        """Accept connections of a socket that listens. NotImplementedError where the loop watches no sockets."""
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept, listener)
        self._listeners.add(listener)

    def close(self) -> None:
        """Accept nothing more, and close those that said nothing."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._listeners.clear()
        for connection in list(self._silent):
            self._close(connection)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                self._loop.call_exception_handler({"message": "a connection cannot be accepted", "exception": error})
                return self._pause(listener, _LACKING_SECONDS)
            connection.setblocking(False)
            self._silent[connection] = self._loop.time() + self._seconds()
            self._loop.add_reader(connection, self._said, connection)
            if self._is_full(len(self._silent) + len(self._connecting)) and (
                len(self._silent) > 1 or not self._make_room()
            ):
                self._close(next(iter(self._silent)))
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds(), self._look)
        if len(self._silent) > _CROWD:
            self._pause(listener, _CROWDED_SECONDS)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        def go_on() -> None:
            if listener in self._listeners:
                self.listen(listener)

        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, go_on)

    def _close(self, connection: socket.socket) -> None:
        del self._silent[connection]
        self._loop.remove_reader(connection)
        connection.close()

    def _look(self) -> None:
        """Close those that said nothing for too long."""
        now, self._timer = self._loop.time(), None
        while self._silent:
            connection, until = next(iter(self._silent.items()))
            if until > now:
                self._timer = self._loop.call_at(until, self._look)
                break
            self._close(connection)

    def _said(self, connection: socket.socket) -> None:
        gone = False
        with contextlib.suppress(BlockingIOError, InterruptedError):
            try:
                gone = not connection.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                gone = True
        if gone:
            return self._close(connection)
        del self._silent[connection]
        self._loop.remove_reader(connection)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()
