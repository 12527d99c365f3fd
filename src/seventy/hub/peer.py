"""Models of another seventy on the network: what it serves, and their files by ranges, with an owner's key.

It is asked directly, never by a proxy. Nothing it says is trusted but what the sha256 of the bytes that came confirms.
"""

import contextlib
import http.client
import json
import ssl
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from seventy.catalog.quants import quant_of
from seventy.errors import SeventyError
from seventy.hub.download import Network
from seventy.hub.hubs import Offered
from seventy.hub.listing import Body, Interrupted, NotThere, RemoteFile, Unreachable, Variant
from seventy.hub.local import Inventory, Local
from seventy.hub.names import Reference, resolve
from seventy.hub.transfer import Say
from seventy.language import reason, t
from seventy.sizes import size

PORT = 8070
_CHUNK_BYTES = 1 << 18
_MAX_LIST_BYTES = 64 << 20
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_BROKEN = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class PeerModel:
    """A model that the other machine serves; `files` are their places in its repository, and their sizes."""

    name: str
    names: tuple[str, ...]
    repository: str
    quant: str | None
    files: tuple[tuple[str, int], ...]

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self.files)


class Peer:
    """Another seventy, a hub like the others (listing.Hub) once a model of it was chosen."""

    kind = "from"

    def __init__(self, address: str, key: str | None = None) -> None:
        self.endpoint, self._key = _endpoint(address), key
        self.title = urlsplit(self.endpoint).netloc
        self._network = Network(direct=True)

    def find(self, text: str) -> PeerModel:
        """Return the model of this name that the server offers. Raises SeventyError with a list if there is none."""
        models = self.models()
        # Two of them may have the same repository, or none, and the same file's name.
        theirs = {Path("/", str(n), each.repository, each.files[0][0]): each for n, each in enumerate(models)}
        inventory = Inventory([
            Local(path, self.title, model.names, model.repository or None, model.quant)
            for path, model in theirs.items()
        ])  # fmt: skip
        if found := inventory.find(text, None) or inventory.find(text, _meaning(text)):
            return theirs[found.path]
        have = ", ".join(f"{model.name} ({size(model.nbytes)})" for model in models[:20])
        raise NotThere(
            "{title} serves no model {text}; it serves: {have}",
            title=self.title, text=text, have=have or t("none"),
        )

    def models(self) -> list[PeerModel]:
        """List the models that the server offers."""
        try:
            return [_model(entry) for entry in json.loads(self._read("/files"))["models"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._strange() from None
        except _BROKEN as error:
            raise self._broke_off(error) from None

    def files_of(self, model: PeerModel, say: Say) -> list[RemoteFile]:
        """List the files of a model with their sha256, which the server computes if it does not know them."""
        found: list[RemoteFile] = []
        for number, (path, nbytes) in enumerate(model.files):
            try:
                sha256 = self._sum(model, number, "" if found else path, say)
            except (ValueError, TypeError, AttributeError):
                raise self._strange() from None
            except _BROKEN as error:
                raise self._broke_off(error) from None
            found.append(RemoteFile(self, model.repository, path, nbytes, sha256))
        self._chosen = {file.sha256: (model.name, number) for number, file in enumerate(found)}
        return found

    def _sum(self, model: PeerModel, number: int, first: str, say: Say) -> str:
        """The sha256 of a file; of the `first` one it is said that it must be computed."""
        sha256 = ""
        with self._open(_sum_of(model, number), {}) as response:
            # Lines come while it reads the file, so that the connection is not taken for dead.
            for line in response:
                state = json.loads(line)
                if "error" in state:
                    raise SeventyError("{title}: {state}", title=self.title, state=state["error"])
                if "sha256" in state:
                    sha256 = str(state["sha256"])
                elif first and state.get("done") == 0:
                    say(t("{title} computes the sha256 of {first} first", title=self.title, first=first))
        if not sha256:
            raise ConnectionError(t("its sha256 did not come"))
        return sha256

    def _strange(self) -> Unreachable:
        return Unreachable("{endpoint} answers, but not as a seventy of this version does", endpoint=self.endpoint)

    def _broke_off(self, error: BaseException) -> Unreachable:
        return Unreachable("{endpoint} broke off ({error}); pull again", endpoint=self.endpoint, error=error)

    def name(self, repository: str) -> str:
        return self.endpoint

    def offered(self, text: str, say: Say) -> Offered:
        """Return the model with this name in the form of a hub's offer."""
        model = self.find(text)
        files = tuple(self.files_of(model, say))
        variant = Variant(model.quant or quant_of(files[0].name), files)
        return Offered(self, model.repository, (variant,), model.name)

    def files(self, repository: str) -> list[RemoteFile]:
        """Raise NotThere: a peer is asked for models by name (`find`, `files_of`), not for repositories."""
        raise NotThere(
            "{title} is asked for models, not for repositories such as {repository}",
            title=self.title, repository=repository,
        )

    @contextlib.contextmanager
    def open(self, file: RemoteFile, start: int, end: int) -> Iterator[Body]:
        name, number = self._chosen[file.sha256]
        query = urlencode({"model": name, "number": number, "sha256": file.sha256})
        try:
            with self._open(f"/files/content?{query}", {"Range": f"bytes={start}-{end - 1}"}) as response:
                yield Body(response.status != 206, iter(lambda: response.read1(_CHUNK_BYTES), b""))
        except Unreachable as error:
            raise Interrupted(error.text) from None
        except _BROKEN as error:
            raise Interrupted(reason(error)) from None

    def _read(self, path: str) -> bytes:
        with self._open(path, {}) as response:
            answer: bytes = response.read(_MAX_LIST_BYTES)
            return answer

    @contextlib.contextmanager
    def _open(self, path: str, headers: dict[str, str]) -> Iterator[Any]:
        if self._key:
            headers |= {"Authorization": f"Bearer {self._key}"}
        try:
            response, _ = self._network.open(self.endpoint + path, headers)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except _BROKEN as error:
            raise Unreachable(
                "{endpoint} cannot be reached ({error}); on that machine: seventy serve --models all --host 0.0.0.0 "
                "--api-keys FILE",
                endpoint=self.endpoint, error=error,
            ) from None
        with response:
            yield response

    def _refused(self, error: urllib.error.HTTPError) -> SeventyError:
        with error:
            said = _message(error.read(1 << 16)) or error.reason
        if error.code == 401:
            return SeventyError("{title}: {said}; here: --api-key KEY, or SEVENTY_API_KEY", title=self.title, said=said)
        if error.code in _TRANSIENT:
            return Unreachable("{title} answers {code}: {said}", title=self.title, code=error.code, said=said)
        return SeventyError("{title}: {said}", title=self.title, said=said)


def _endpoint(address: str) -> str:
    """The server's address: `box`, `box:8071`, `192.168.1.5`, `[fe80::1]:8070`, `http://box:8070/`."""
    text = address.strip()
    if "://" not in text:
        text = f"http://[{text}]" if text.count(":") > 1 and "[" not in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
        raise SeventyError(
            "--from {address} is no address; it is like box, 192.168.1.5:{port} or http://box:{port}",
            address=address, port=PORT,
        )
    host = f"[{host}]" if ":" in host else host
    default = PORT if parts.scheme == "http" else 443
    return f"{parts.scheme}://{host}:{port or default}"


def _meaning(text: str) -> Reference | None:
    """What a name means; None where it means nothing here, or two things: then only the name itself counts."""
    try:
        return resolve(text)
    except SeventyError:
        return None


def _model(entry: Any) -> PeerModel:
    files = tuple((str(file["path"]), int(file["size"])) for file in entry["files"])
    if not files:
        raise ValueError(t("a model without files"))
    quant = str(entry["quant"]) if entry["quant"] else None
    model = PeerModel(str(entry["name"]), tuple(map(str, entry["names"])), str(entry["repository"]), quant, files)
    if not all(text.isprintable() for text in (model.name, quant or "", *(path for path, _ in files))):
        raise ValueError(t("characters that would steer a terminal"))
    return model


def _sum_of(model: PeerModel, number: int) -> str:
    return f"/files/sum?model={quote(model.name, safe='')}&number={number}"


def _message(body: bytes) -> str | None:
    """What a server of ours says of an error."""
    try:
        said = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None
    return "".join(char for char in said if char.isprintable())[:500]
