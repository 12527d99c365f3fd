"""Repositories on ModelScope, by its HTTP API: api/v1/models/OWNER/REPO/repo/files lists, .../repo gives a file.

MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are the names its own tools use; proxy and certificates are pip's.
"""

import contextlib
import http.client
import json
import os
import ssl
import urllib.error
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from seventy.errors import SeventyError
from seventy.hub.download import Network
from seventy.hub.huggingface import wait_seconds
from seventy.hub.listing import Body, Interrupted, NotThere, RemoteFile, Unreachable
from seventy.hub.package_index import PackageIndex
from seventy.language import reason, t

DEFAULT_ENDPOINT = "https://modelscope.cn"
_CHUNK_BYTES = 1 << 18
_MAX_PAGE_BYTES = 64 << 20
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_BROKEN = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


class ModelScope:
    kind = "ms"
    title = "ModelScope"

    def __init__(self, endpoint: str | None = None, mirror: str | None = None) -> None:
        """At `endpoint`; else at MODELSCOPE_ENDPOINT, else at `mirror`, else at the hub itself."""
        chosen = endpoint or os.environ.get("MODELSCOPE_ENDPOINT")
        self.endpoint = (chosen or mirror or DEFAULT_ENDPOINT).rstrip("/")
        self._by_address = mirror is not None and not chosen
        self._network: Network | None = None

    def name(self, repository: str) -> str:
        return f"{self.endpoint}/models/{repository}" if self._by_address else f"ms:{repository}"

    def files(self, repository: str) -> list[RemoteFile]:
        url = self._url(repository, "repo/files", Revision="master", Recursive="True")
        try:
            response, _ = self._open(url, {"Accept": "application/json"})
            with response:
                answer: Any = json.loads(response.read(_MAX_PAGE_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code, repository) from None
        except _BROKEN as error:
            refused = t("{endpoint} cannot be reached ({error})", endpoint=self.endpoint, error=error)
            raise Unreachable("{reason}; {repository}", reason=refused, repository=elsewhere(repository)) from None
        except ValueError:
            raise Unreachable(
                "{endpoint} answers no JSON; {repository}",
                endpoint=self.endpoint, repository=elsewhere(repository),
            ) from None
        data = answer.get("Data") if isinstance(answer, dict) else None
        entries = data.get("Files") if isinstance(data, dict) else None
        if entries is None:
            said = answer.get("Message") if isinstance(answer, dict) else None
            raise NotThere(
                "ModelScope has no repository {repository} ({said}); check its page",
                repository=repository, said=said or t("no list of files"),
            )
        return [
            RemoteFile(self, repository, entry["Path"], int(entry["Size"]), str(entry["Sha256"]).lower())
            for entry in entries
            if str(entry.get("Path", "")).lower().endswith(".gguf") and entry.get("Sha256")
        ]

    @contextlib.contextmanager
    def open(self, file: RemoteFile, start: int, end: int) -> Iterator[Body]:
        url = self._url(file.repository, "repo", Revision="master", FilePath=file.path)
        try:
            response, _ = self._open(url, {"Range": f"bytes={start}-{end - 1}"})
            with response:
                yield Body(response.status != 206, iter(lambda: response.read1(_CHUNK_BYTES), b""))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _TRANSIENT:
                wait = wait_seconds(error.headers.get("Retry-After"))
                raise Interrupted(t("the server answered {code}", code=error.code), wait) from None
            raise self._refused(error.code, file.repository) from None
        except _BROKEN as error:
            raise Interrupted(reason(error)) from None

    def _open(self, url: str, headers: dict[str, str]) -> tuple[Any, str | None]:
        self._network = self._network or PackageIndex.of_pip().network
        token = os.environ.get("MODELSCOPE_API_TOKEN")
        if token:
            headers |= {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}
        return self._network.open(url, headers)

    def _url(self, repository: str, what: str, **query: str) -> str:
        return f"{self.endpoint}/api/v1/models/{repository}/{what}?{urlencode(query)}"

    def _refused(self, status: int, repository: str) -> SeventyError:
        if status == 404:
            return NotThere(
                "ModelScope has no repository {repository}; check {endpoint}/models/{repository}",
                repository=repository, endpoint=self.endpoint,
            )
        if status in (401, 403):
            return SeventyError(
                "{endpoint}/models/{repository} answers {status}: it is private or asks for consent; log in there, "
                "and set MODELSCOPE_API_TOKEN",
                endpoint=self.endpoint, repository=repository, status=status,
            )
        return Unreachable(
            "{endpoint} answers {status}; {repository}",
            endpoint=self.endpoint, status=status, repository=elsewhere(repository),
        )


def elsewhere(repository: str) -> str:
    """Return a sentence on what to try if the hub does not answer."""
    return t(
        "try Hugging Face (seventy pull hf:{repository}) or a mirror of it (HF_ENDPOINT=https://hf-mirror.com)",
        repository=repository,
    )
