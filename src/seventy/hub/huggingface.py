"""Repositories on the Hugging Face hub or a mirror of it, by the library huggingface_hub.

HF_ENDPOINT, HF_TOKEN (or the token that `hf auth login` left in HF_HOME) and HF_HUB_OFFLINE are the library's own
settings. Bytes come by ranges over plain HTTP, never by Xet: a download must go on where it was after the process
was killed, which neither Xet nor the library's own downloads do, and Xet does not go through HF_ENDPOINT.
"""

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from seventy.errors import SeventyError
from seventy.hub.listing import Body, Interrupted, NotThere, RemoteFile, Unreachable
from seventy.language import reason, t
from seventy.version import __version__

DEFAULT_ENDPOINT = "https://huggingface.co"
MIRROR = "https://hf-mirror.com"
# Seconds until a server must have accepted the connection, and between two packets of its answer.
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
_TRANSIENT = (408, 429, 500, 502, 503, 504)


class HuggingFace:
    kind = "hf"
    title = "Hugging Face"

    def __init__(self, endpoint: str | None = None, mirror: str | None = None) -> None:
        """At `endpoint`; else at HF_ENDPOINT, else at `mirror`, else at the hub itself."""
        chosen = endpoint or endpoint_setting()
        self.endpoint = (chosen or mirror or DEFAULT_ENDPOINT).rstrip("/")
        # A mirror that only an address named gets no token: the user's is for servers of his choosing.
        self._by_address = mirror is not None and not chosen
        self._token = False if self._by_address else None

    def name(self, repository: str) -> str:
        return f"{self.endpoint}/{repository}" if self._by_address else f"hf:{repository}"

    def files(self, repository: str) -> list[RemoteFile]:
        _prepare()
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token, library_name="seventy", library_version=__version__)
        with self._explained(repository):
            info = api.model_info(repository, files_metadata=True, timeout=CONNECT_SECONDS)
        return [
            RemoteFile(self, repository, file.rfilename, file.lfs.size, file.lfs.sha256)
            for file in info.siblings or ()
            if file.rfilename.lower().endswith(".gguf") and file.lfs
        ]

    @contextlib.contextmanager
    def open(self, file: RemoteFile, start: int, end: int) -> Iterator[Body]:
        _prepare()
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(file.repository, file.path, endpoint=self.endpoint)
        headers = build_hf_headers(token=self._token, library_name="seventy", library_version=__version__)
        headers |= {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        timeout = (CONNECT_SECONDS, READ_SECONDS, READ_SECONDS, READ_SECONDS)
        transport = _transport_error()
        try:
            with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                if response.status_code in _TRANSIENT:
                    wait = wait_seconds(response.headers.get("Retry-After"), response.headers.get("RateLimit"))
                    raise Interrupted(t("the server answered {status_code}", status_code=response.status_code), wait)
                with self._explained(file.repository):
                    hf_raise_for_status(response)
                yield Body(response.status_code != 206, response.iter_raw())
        except transport as error:
            raise Interrupted(reason(error)) from None

    @contextlib.contextmanager
    def _explained(self, repository: str) -> Iterator[None]:
        """What the library raises, as a sentence that says what to do."""
        from huggingface_hub import errors

        page = f"{self.endpoint}/{repository}"
        try:
            yield
        except errors.GatedRepoError:
            raise SeventyError(
                "{repository} asks for consent first: log in at {page}, accept its terms, then set HF_TOKEN to a "
                "token of yours (or use `hf auth login`) and pull again",
                repository=repository, page=page,
            ) from None
        except errors.RepositoryNotFoundError:
            raise NotThere(
                "{title} has no repository {repository}, or it is private (then set HF_TOKEN); check {page}",
                title=self.title, repository=repository, page=page,
            ) from None
        except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
            raise NotThere(
                "{page} no longer has that file; see what it has: seventy pull hf:{repository}",
                page=page, repository=repository,
            ) from None
        except errors.OfflineModeIsEnabled:
            raise SeventyError("HF_HUB_OFFLINE is set, so that nothing is fetched; unset it to pull") from None
        except errors.HFValidationError as error:
            raise SeventyError(
                "{repository} cannot be a repository: {error}",
                repository=repository, error=error,
            ) from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status in (401, 403):
                raise SeventyError(
                    "{page} answers {status}: it is private, or the token in HF_TOKEN is not valid; check both",
                    page=page, status=status,
                ) from None
            if status == 429:
                raise SeventyError(
                    "{endpoint} answers 429, too many requests from this address; wait some minutes, set HF_TOKEN, "
                    "or take another hub (ms:{repository})",
                    endpoint=self.endpoint, repository=repository,
                ) from None
            raise Unreachable(
                "{endpoint} answers {status}; {repository}",
                endpoint=self.endpoint, status=status or error, repository=elsewhere(repository),
            ) from None
        except _transport_error() as error:
            raise Unreachable(
                "{endpoint} cannot be reached ({error}); {repository}",
                endpoint=self.endpoint, error=error, repository=elsewhere(repository),
            ) from None


def endpoint_setting() -> str | None:
    """Return HF_ENDPOINT, where it is set. Raises SeventyError where it is no address."""
    text = os.environ.get("HF_ENDPOINT", "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right:
        raise SeventyError("HF_ENDPOINT={text} is no address; it is like {mirror}", text=text, mirror=MIRROR)
    return text


def elsewhere(repository: str) -> str:
    """Return a hint about what to try if the hub does not answer."""
    mirror = f"HF_ENDPOINT={MIRROR} seventy pull hf:{repository}"
    return t(
        "try a mirror ({mirror}) or ModelScope (seventy pull ms:{repository})",
        mirror=mirror, repository=repository,
    )


def wait_seconds(retry_after: str | None, rate_limit: str | None = None) -> float | None:
    """Return the seconds a server asks to wait: from Retry-After, or from `t=` of a RateLimit header (IETF draft)."""
    if retry_after and retry_after.strip().isdigit():
        return float(retry_after)
    for part in (rate_limit or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "t" and value.isdigit():
            return float(value)
    return None


def _prepare() -> None:
    """Before the library is imported: it asks its server about the program it runs in, for its statistics."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _transport_error() -> type[Exception]:
    """The class of connection errors of the HTTP library that this huggingface_hub uses (httpx or httpx2)."""
    from huggingface_hub.errors import HfHubHTTPError

    found = HfHubHTTPError.__bases__[0]
    assert issubclass(found, Exception), found
    return found
