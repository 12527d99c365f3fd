"""The front, with two stand-ins for machines on loopback: who is asked, what a lost machine costs, who joins."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

pytest.importorskip("httpx2")

from seventy.cluster import front as front_module
from seventy.cluster.front import Front, Machine
from seventy.server import listen
from seventy.server.guard import Guard, Rules

CHAT = "/v1/chat/completions"
LONG = "Once upon a time there was a box under a desk. " * 30
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def said(text: str) -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()


# Pieces of an answer that are none: the process ends, or the machine says nothing more.
DIES, SILENT = b"dies", b"silent"


@dataclass
class StandIn:
    """Answers as `seventy serve` does, by script: a status and pieces of a body for every request."""

    name: str
    pieces: list[bytes] = field(default_factory=list)
    status: int = 200
    kind: str = "text/event-stream"
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    is_deaf: bool = False

    @contextlib.asynccontextmanager
    async def machine(self) -> AsyncIterator[Machine]:
        conversations = set[asyncio.Task[None]]()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            conversations.add(asyncio.current_task())
            try:
                await self._converse(reader, writer)
            except asyncio.CancelledError:
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        try:
            yield Machine(self.name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        finally:
            server.close()
            for each in conversations:
                each.cancel()
            await asyncio.gather(*conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = head[0].split()[1]
                if path == "/health":
                    if self.is_deaf:
                        await asyncio.Event().wait()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                self.asked.append((path, headers, body))
                await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {self.status} X\r\ncontent-type: {self.kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for piece in self.pieces:
            await writer.drain()
            if piece is DIES:
                writer.transport.abort()
                return
            if piece is SILENT:
                with contextlib.suppress(OSError):
                    await reader.read()
                self.left.set()
                return
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")


Test = Callable[[Front, httpx.AsyncClient], Coroutine[Any, Any, None]]


def with_front(test: Test, rules: Rules | None = None) -> None:
    """Run a test with a front without machines, and a client for it."""

    async def run() -> None:
        front = Front()
        server = listen.Server(Guard(front, rules or Rules()), grace_seconds=0)
        listener = listen.bind("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                await test(front, client)
        finally:
            server.stop()
            await serving

    asyncio.run(run())


def with_two(test: Callable[[Front, httpx.AsyncClient, StandIn, StandIn], Coroutine[Any, Any, None]]) -> None:
    """Run a test with two machines, `one` and `two`, that answer with their names."""

    async def run(front: Front, client: httpx.AsyncClient) -> None:
        one, two = (StandIn(name, [ROLE, said(name), DONE]) for name in ("one", "two"))
        async with one.machine() as first, two.machine() as second:
            front.add(first)
            front.add(second)
            await test(front, client, one, two)
            await front.remove(first)
            await front.remove(second)

    with_front(run)


async def chat(client: httpx.AsyncClient, *texts: str, path: str = CHAT) -> httpx.Response:
    return await client.post(path, json={"messages": [{"role": "user", "content": text} for text in texts]})


def test_a_conversation_goes_on_where_it_was_read_and_others_spread() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        for text in ("a", "b", "c", "d"):
            begun = (await chat(client, text + LONG)).content
            for _ in range(2):
                assert (await chat(client, text + LONG, "and then?")).content == begun
        assert len(one.asked) == len(two.asked) == 6
        # What has no prompt asks about what its user's last prompt made.
        assert (await client.get("/v1/responses/resp_1")).content == begun

    with_two(test)


def test_lost_before_the_first_text_another_machine_answers_and_nothing_comes_twice() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        one.pieces = two.pieces = [b": waiting\n\n", ROLE, DIES]
        async with client.stream("POST", CHAT, json={"messages": [LONG]}) as response:
            content = b""
            async for piece in response.aiter_raw():
                content += piece
                # The sign of life came through; from now on both answer.
                one.pieces = two.pieces = [ROLE, said("a"), said("b"), DONE]
        assert content == b": waiting\n\n" + ROLE + said("a") + said("b") + DONE
        (_, _, first), (_, _, second) = one.asked + two.asked
        assert first == second and json.loads(first) == {"messages": [LONG]}

    with_two(test)


def test_lost_after_text_the_stream_says_so_in_the_words_of_its_api() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        for stand_in in (one, two):
            stand_in.pieces = [ROLE, said("half an answer"), DIES]
        *_, last = (await chat(client, LONG)).text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "machine_lost"
        assert len(one.asked) + len(two.asked) == 1
        for stand_in in (one, two):
            stand_in.kind = "application/x-ndjson"
            stand_in.pieces = [b'{"response":"half"}\n', DIES]
        *_, last = (await chat(client, LONG, path="/api/generate")).text.strip().split("\n")
        assert "was lost in the middle" in json.loads(last)["error"]
        for stand_in in (one, two):
            stand_in.kind = "text/event-stream"
            half = b'event: content_block_delta\ndata: {"delta":{"text":"half"}}\n\n'
            stand_in.pieces = [b'event: message_start\ndata: {"message":{"content":[]}}\n\n', half, DIES]
        *_, last = (await chat(client, LONG, path="/v1/messages")).text.strip().split("\n\n")
        assert last.startswith("event: error\n") and '"overloaded_error"' in last

    with_two(test)


def test_a_machine_without_power_is_lost_by_its_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "PING_SECONDS", 0.01)
    monkeypatch.setattr(front_module, "_PING_TIMEOUT_SECONDS", 0.5)

    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        # It takes the request and is gone, and no connection ends.
        one.pieces, one.is_deaf = [SILENT], True
        answers = await asyncio.gather(*(chat(client, f"{n} {LONG}") for n in range(4)))
        assert [answer.content for answer in answers] == [ROLE + said("two") + DONE] * 4
        assert one.asked and len(two.asked) == 4
        shown = (await client.get("/cluster")).json()["machines"]
        assert [(each["name"], each["up"], each["running"]) for each in shown] == [("one", False, 0), ("two", True, 0)]

    with_two(test)


def test_one_that_is_full_is_passed_over_until_all_are() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        one.status, one.kind, one.pieces = 429, "application/json", [b'{"error":"full"}']
        for n in range(2):
            assert (await chat(client, f"{n} {LONG}")).content == ROLE + said("two") + DONE
        two.status, two.kind, two.pieces = one.status, one.kind, one.pieces
        response = await chat(client, "last" + LONG)
        assert (response.status_code, response.content) == (429, b'{"error":"full"}')

    with_two(test)


def test_what_joins_is_used_and_what_leaves_gives_its_requests_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "WAIT_SECONDS", 0.0)

    async def test(front: Front, client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).status_code == 503
        assert (await chat(client, LONG)).status_code == 503
        one, two = StandIn("one", [ROLE, SILENT]), StandIn("two", [ROLE, said("two"), DONE])
        async with one.machine() as first, two.machine() as second:
            front.add(first)
            assert (await client.get("/health")).status_code == 200
            waiting = asyncio.create_task(chat(client, LONG))
            while not one.asked:
                await asyncio.sleep(0.01)
            front.add(second)
            await front.remove(first)
            assert (await waiting).content == ROLE + said("two") + DONE
            await asyncio.wait_for(one.left.wait(), 10)
            await front.remove(second)

    with_front(test)


def test_a_request_that_ends_machines_does_not_end_them_all() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        one.pieces = two.pieces = [ROLE, DIES]
        response = await chat(client, LONG)
        assert "no machine" in response.text
        assert len(one.asked) + len(two.asked) == front_module._MAX_LOST

    with_two(test)


def test_who_leaves_ends_the_answer_on_the_machine() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        one.pieces = two.pieces = [ROLE, said("a"), SILENT]
        async with client.stream("POST", CHAT, json={"messages": [LONG]}) as response:
            async for piece in response.aiter_raw():
                assert said("a") in piece
                break
        asked = one if one.asked else two
        await asyncio.wait_for(asked.left.wait(), 10)

    with_two(test)


def test_a_machine_sees_a_proxys_client_and_no_other_host_is_asked() -> None:
    async def test(front: Front, client: httpx.AsyncClient, one: StandIn, two: StandIn) -> None:
        for path in ("//192.0.2.1/x?y=%2F", "/v1/a%20b", "http://192.0.2.1/z"):
            target, headers = {"target": path.encode()}, {"x-mine": "kept"}
            response = await client.post("/", json={"prompt": path}, headers=headers, extensions=target)
            assert response.status_code == 200
        asked = {path: headers for path, headers, _ in one.asked + two.asked}
        assert asked.keys() == {"//192.0.2.1/x?y=%2F", "/v1/a%20b", "/http://192.0.2.1/z"}
        for headers in asked.values():
            assert headers["x-forwarded-for"] == "127.0.0.1" and headers["x-mine"] == "kept"
            assert headers["host"].startswith("127.0.0.1:") and headers["accept-encoding"] == "identity"

    with_two(test)
