"""What is taken of tool servers over HTTP: answers of a bounded size, as they are and from where they were asked."""

from collections.abc import AsyncIterator, Mapping

import httpx2

_MAX_BYTES = 16 << 20


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream, self._left = stream, _MAX_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise httpx2.ReadError(f"an answer of more than {_MAX_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Transport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        # A few compressed bytes may become any number.
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("an answer is compressed, which was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream)
        return response


def client(headers: Mapping[str, str], seconds: float) -> httpx2.AsyncClient:
    """Return a client that sends these headers, waits at most `seconds` for each piece, and follows no redirects."""
    sent = {"Accept-Encoding": "identity", **headers}
    return httpx2.AsyncClient(headers=sent, timeout=seconds, transport=_Transport(), follow_redirects=False)
