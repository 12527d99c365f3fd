"""Files over HTTP from any server: resumed where they broke off, by Python's own library."""

import base64
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from seventy.errors import SeventyError
from seventy.language import t
from seventy.version import __version__

# Bytes there are and, where the server says it, bytes there will be.
Progress = Callable[[int, int | None], None]

# Seconds before another try; after that many in a row that brought nothing it is given up.
PAUSES_SECONDS = (0.5, 2.0, 5.0, 10.0)
_CHUNK_BYTES = 1 << 18
_TRANSIENT = (408, 429, 500, 502, 503, 504)
# Characters of an address that stand for themselves, or for what they part.
_AS_IT_IS = "%/:?#[]@!$&'()*+,;=-._~"
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


@dataclass(frozen=True, slots=True)
class Network:
    """The user's network settings: certificates and proxies, taken from pip's configuration where it has them.

    `direct` ignores all proxies, also those of the environment: for machines on the local network.
    """

    timeout_seconds: float = 30.0
    certificates: str | None = None
    trusted_hosts: frozenset[str] = frozenset()
    proxy: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict)
    direct: bool = False

    def open(self, url: str, headers: Mapping[str, str]) -> tuple[Any, str | None]:
        """Open a URL; return the response and the file's sha256 if a server on the way sent it (the Hugging Face hub
        does).

        `headers` are not sent to servers that the request is redirected to. Raises the errors of urllib.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "file"):
            raise SeventyError("cannot download {url}: only http, https and file addresses work", url=url)
        host = parts.netloc.rpartition("@")[2]
        # What browsers show is not what goes over the wire: Chinese characters and spaces are written as %XX there.
        path, query = quote(parts.path, safe=_AS_IT_IS), quote(parts.query, safe=_AS_IT_IS)
        request = urllib.request.Request(urlunsplit((parts.scheme, host, path, query, "")))
        request.add_header("User-Agent", f"seventy/{__version__}")
        request.add_header("Accept-Encoding", "identity")
        for name, value in headers.items():
            # A range must survive the way to the server that has the bytes, a password must not.
            add = request.add_header if name in ("Range", "If-Range", "Accept") else request.add_unredirected_header
            add(name, value)
        login = parts.netloc.rpartition("@")[0] or self.credentials.get(host)
        if login and "Authorization" not in headers:
            encoded = base64.b64encode(unquote(login).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        context = ssl.create_default_context(cafile=self.certificates)
        if parts.hostname in self.trusted_hosts or host in self.trusted_hosts:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        redirects = _Redirects()
        handlers: list[urllib.request.BaseHandler] = [redirects, urllib.request.HTTPSHandler(context=context)]
        if self.direct:
            handlers.append(urllib.request.ProxyHandler({}))
        elif self.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": self.proxy, "https": self.proxy}))
        response = urllib.request.build_opener(*handlers).open(request, timeout=self.timeout_seconds)
        return response, redirects.sha256 or _told_sha256(response.headers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.sha256 = self.sha256 or _told_sha256(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _told_sha256(headers: Message) -> str | None:
    match = _SHA256.fullmatch(headers.get("X-Linked-Etag", ""))
    return match[1] if match else None


def fetch(
    network: Network, url: str, part: Path, progress: Progress, headers: Mapping[str, str] | None = None
) -> str | None:
    """Download the file at `url` to `part`, resuming where `part` ends; return the sha256 the server sent, or None.

    On a SeventyError `part` is kept for the next attempt, unless the server says that there is no such file.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return _fetch_once(network, url, part, progress, headers or {})
        except urllib.error.HTTPError as error:
            error.close()
            reason = t("the server answered {code} {reason}", code=error.code, reason=error.reason)
            if error.code == 416:
                # The part is no beginning of that file.
                part.unlink(missing_ok=True)
            elif error.code in (401, 403):
                raise SeventyError(
                    "cannot download {url}: {reason}; log in there or ask for access first",
                    url=url, reason=reason,
                ) from None
            elif error.code not in _TRANSIENT:
                raise SeventyError(
                    "cannot download {url}: {reason}; check the name, or try another mirror",
                    url=url, reason=reason,
                ) from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        failures = failures + 1 if _size(part) <= before else 1
        # A server that never answered is given one more chance only.
        if failures > (len(PAUSES_SECONDS) if _size(part) else 1):
            raise SeventyError(
                "download of {url} broke off at {part} bytes ({reason}); try again to go on from there, or set "
                "another mirror",
                url=url, part=_size(part), reason=reason,
            )
        time.sleep(PAUSES_SECONDS[failures - 1])


def _fetch_once(network: Network, url: str, part: Path, progress: Progress, headers: Mapping[str, str]) -> str | None:
    # Which version of the file the part is the beginning of, where the server gives versions names.
    version = part.with_name(f"{part.name}.etag")
    have = _size(part)
    asked = dict(headers)
    if have:
        asked["Range"] = f"bytes={have}-"
        if version.exists():
            asked["If-Range"] = version.read_text()
    try:
        response, sha256 = network.open(url, asked)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "") == f"bytes */{have}":
            error.close()
            return _told_sha256(error.headers)
        raise
    with response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            total = have + total if total is not None else None
        else:
            # No ranges here, or another version of the file: from the start.
            have = 0
            etag = response.headers.get("ETag", "")
            if etag.startswith('"'):
                version.write_text(etag)
            else:
                version.unlink(missing_ok=True)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise SeventyError(
                "{parent} has {free:.1f} GB free, the download needs {total:.1f} GB; free some, or choose another "
                "folder with SEVENTY_MODELS",
                parent=part.parent, free=free / 1e9, total=(total - have) / 1e9,
            )
        with _opened(part, "ab" if have else "wb") as file:
            progress(have, total)
            while chunk := response.read(_CHUNK_BYTES):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise SeventyError(
                        "cannot write {part}: {reason}; free some space there",
                        part=part, reason=error.strerror,
                    ) from None
                have += len(chunk)
                progress(have, total)
            os.fsync(file.fileno())
        if total is not None and have < total:
            raise ConnectionError(t("the server sent {have} of {total} bytes", have=have, total=total))
    version.unlink(missing_ok=True)
    return sha256


def fetch_checked(
    network: Network, url: str, part: Path, progress: Progress, headers: Mapping[str, str], sha256: str | None
) -> None:
    """Download as `fetch` does and check the sum: `sha256`, or the one the server sends, if either is known.

    An existing part may belong to another file: if the sum is wrong, the file is downloaded once more from the start.
    """
    resumed = part.exists()
    wanted = sha256 or fetch(network, url, part, progress, headers)
    if sha256:
        fetch(network, url, part, progress, headers)
    got = sha256_of(part)
    if wanted is None or got == wanted:
        return
    part.unlink()
    if resumed:
        return fetch_checked(network, url, part, progress, headers, sha256)
    raise SeventyError(
        "{url} came with wrong bytes (sha256 {got}, wanted {wanted}); nothing was kept, try again, or another mirror",
        url=url, got=got, wanted=wanted,
    )


def _opened(part: Path, mode: str) -> IO[bytes]:
    try:
        return part.open(mode)
    except OSError as error:
        raise SeventyError(
            "cannot write {part}: {reason}; check the folder",
            part=part, reason=error.strerror,
        ) from None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
