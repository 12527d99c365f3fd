"""Who may ask, and how much: host names, origins, keys, sizes and times, before anything else sees a request."""

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seventy.errors import SeventyError
from seventy.server.errors import ApiError

# Seen without a key: the page asks for one itself, who watches a server needs none, and a code is as good as one.
_OPEN_PATHS = ("/", "/health", "/favicon.ico", "/pair")
_OPEN_FOLDER = "/page/"
_MAX_HEADER_BYTES = 32 << 10
# The page takes nothing from elsewhere, and what a model writes can do nothing in it; nothing else is shown at all.
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
]
# What proxies add; who comes through one may be anybody.
_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")


@dataclass(frozen=True, slots=True)
class Rules:
    """The server's access rules.

    `keys` maps users to their keys; without any, every client may ask. `owners` are the users who may pull and delete
    models. `hosts` are further names of this server, `origins` other sites whose pages may use it (CORS; `*` for all,
    `localhost` for those of this machine at any port).
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    max_body_bytes: int = 8 << 20
    body_seconds: float = 30.0
    owners: Collection[str] = ()


def read_keys(path: Path) -> tuple[dict[str, str], set[str]]:
    """Read a file with a line `name key` or `name key owner` for each key; return the keys by name, and the owners.

    Lines that begin with # are comments. Raises SeventyError if the file is invalid.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SeventyError(
            "the keys cannot be read from {path}: {error}; write a line 'name key' for each",
            path=path, error=error,
        ) from None
    keys, owners = dict[str, str](), set[str]()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (2, 3) or words[2:] not in ([], ["owner"]) or words[0] in keys:
            raise SeventyError(
                "{path}, line {number}: a line is 'name key' or 'name key owner', each name once",
                path=path, number=number,
            )
        keys[words[0]] = words[1]
        if words[2:]:
            owners.add(words[0])
    if not keys:
        raise SeventyError("{path} holds no keys; write a line 'name key' for each", path=path)
    return keys, owners


def check_owner(request: Request) -> None:
    """Raise ApiError 403 if the user is not an owner."""
    if not request.state.owner:
        raise ApiError(
            403, "models are changed and copied by an owner's key (a line 'name key owner' of --api-keys) or, where "
            "there are no keys, from this machine itself", "not_owner",
        )  # fmt: skip


class Guard:
    """ASGI middleware that checks every request against the rules.

    Sets `state.user` to the name of the key, or to the client's address if there are no keys, and `state.owner` to
    whether the user may pull and delete models.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        # Equal lengths, so that comparing tells nothing of them.
        self._digests = {name: _digest(key) for name, key in rules.keys.items()}
        self._hosts = {"localhost", socket.gethostname().lower(), f"{socket.gethostname()}.local".lower()}
        self._hosts |= {host.lower() for host in rules.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            # Nothing here speaks by websocket.
            return await send({"type": "websocket.close", "code": 1003})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin")
        allowed = origin is not None and self._is_allowed(origin)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [*_ALWAYS]
                if allowed and origin:
                    extra += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
                raise ApiError(431, f"the headers are longer than {_MAX_HEADER_BYTES} bytes", "headers_too_long")
            self._check_host(headers.get("host"))
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                # A page that may not is told so by the header that is not there.
                wanted = headers.get("access-control-request-headers", "")
                return await _preflight(scope["path"], wanted, send_guarded)
            self._check_origin(origin, headers.get("host", ""), allowed)
            user = self._user(scope, headers)
            owner = user in self._rules.owners if self._digests else _is_here(scope, headers)
            scope.setdefault("state", {}).update(user=user, owner=owner)
            body = await self._read(headers, receive)
        except ApiError as error:
            return await error.response(scope["path"])(scope, receive, send_guarded)
        if body is None:
            return
        # Every body here is JSON, also where a client does not say so (curl, Ollama's clients). That browsers ask
        # before they send JSON to other sites is not relied on: the origin was checked.
        kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope = {**scope, "headers": [*kept, (b"content-type", b"application/json")]}
        if scope["method"] == "HEAD":
            # The same as GET; the protocol leaves the body out.
            scope["method"] = "GET"
        await self._app(scope, replay(body, receive), send_guarded)

    def _is_allowed(self, origin: str) -> bool:
        if "*" in self._rules.origins or origin in self._rules.origins:
            return True
        parts = _split(origin) if "localhost" in self._rules.origins else None
        return parts is not None and is_loopback(parts.hostname or "")

    def _check_host(self, host: str | None) -> None:
        """A name that an attacker's DNS points here is not one of ours (DNS rebinding); addresses cannot be."""
        parts = _split(f"//{host or ''}")
        name = parts.hostname or "" if parts else ""
        if name in self._hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise ApiError(
                403, f"this server does not go by the name {name[:100]!r}; start it with --allow-host", "wrong_host"
            ) from None

    def _check_origin(self, origin: str | None, host: str, allowed: bool) -> None:
        """Another site's page may not use this server in its visitor's name, even where it cannot read the answer."""
        if origin is None or allowed:
            return
        if not _is_same(origin, host):
            raise ApiError(403, "pages of other sites may not use this server; start it with --cors", "wrong_origin")

    def _user(self, scope: Scope, headers: Mapping[str, str]) -> str:
        client = scope.get("client")
        if not self._digests:
            return str(client[0]) if client else ""
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest, found = _digest(given), None
        for name, wanted in self._digests.items():
            # All of them, whichever it is.
            if hmac.compare_digest(digest, wanted):
                found = name
        path = scope["path"]
        if found is None and path not in _OPEN_PATHS and not path.startswith(_OPEN_FOLDER):
            said = "the API key is not one of this server's" if given else "this server wants an API key"
            raise ApiError(
                401, f"{said}: send the header 'Authorization: Bearer KEY'", "invalid_api_key", None,
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return found or ""

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes | None:
        """The whole body; None when the client has gone."""
        limit = self._rules.max_body_bytes
        too_large = ApiError(
            413, f"the body is larger than {limit} bytes; send less or start with --max-body", "body_too_large", None,
            {"Connection": "close"},
        )  # fmt: skip
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._rules.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come within {self._rules.body_seconds:g} s", "body_too_slow", None,
                {"Connection": "close"},
            ) from None  # fmt: skip


def _is_here(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine: not through a proxy, and not from a page of another site."""
    client, origin = scope.get("client"), headers.get("origin")
    host = _split(f"//{headers.get('host', '')}")
    if any(name in _FORWARDED or name.startswith("x-forwarded") for name in headers) or not (client and host):
        return False
    # A picture or a script that another site's page asks for has no origin; browsers say where it comes from.
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    if origin is not None and not _is_same(origin, host.netloc):
        return False
    return is_loopback(str(client[0])) and is_loopback(host.hostname or "")


def _is_same(origin: str, host: str) -> bool:
    """Whether a page is this server's own."""
    parts = _split(origin)
    return parts is not None and parts.netloc.lower() == host.lower()


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _split(address: str) -> SplitResult | None:
    """None for what is no address: brackets that do not close, characters no name has."""
    try:
        return urlsplit(address) if address.isascii() else None
    except ValueError:
        return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


async def _preflight(path: str, wanted: str, send: Send) -> None:
    """Allow a page whose origin was checked the headers it wants: clients have many of their own."""
    methods = b"GET, POST, PUT, DELETE, OPTIONS" if path.startswith("/history/") else b"GET, POST, DELETE, OPTIONS"
    headers = [
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", wanted.encode("latin-1") or b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI `receive` that delivers a body once more, and then the original's messages."""
    unread = True

    async def replayed() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed
