"""What a model's name means: a model of the catalogue, a repository on a hub, an address, or a file.

    llama-3.3-70b  qwen3:8b  deepseek-r1:70b  llama-3.3-70b:Q8_0  ollama:qwen3      names of catalog/data/names.csv
    hf:OWNER/REPO[:QUANT]  hf:OWNER/REPO/FILE.gguf  hf.co/OWNER/REPO[:QUANT]  https://huggingface.co/OWNER/REPO ...
    ms:OWNER/REPO[:QUANT]  ms:OWNER/REPO/FILE.gguf  https://modelscope.cn/models/OWNER/REPO ...
    https://ollama.com/library/qwen3:8b              https://any.server/FILE.gguf                     ./FILE.gguf

It asks no network and looks at no disk but for a path's existence.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from seventy.catalog import names
from seventy.catalog.names import Name
from seventy.catalog.quants import known_quant
from seventy.errors import SeventyError
from seventy.hub.huggingface import endpoint_setting
from seventy.hub.package import PACKAGED
from seventy.language import either, t

# How a name looks, for messages.
EXAMPLES = t(
    "llama-3.3-70b, qwen3:8b, hf:OWNER/REPOSITORY:Q4_K_M, ms:OWNER/REPOSITORY:Q4_K_M, https://.../x.gguf or a path"
)
HUBS = {"hf": "Hugging Face", "ms": "ModelScope"}
_HOSTS = {
    "huggingface.co": "hf", "www.huggingface.co": "hf", "hf.co": "hf", "hf-mirror.com": "hf", "modelscope.cn": "ms",
    "www.modelscope.cn": "ms", "modelscope.ai": "ms", "www.modelscope.ai": "ms",
}  # fmt: skip
# Hosts that are asked themselves where their address is given and no other endpoint is set.
_MIRRORS = {
    "hf-mirror.com": "https://hf-mirror.com", "modelscope.ai": "https://modelscope.ai",
    "www.modelscope.ai": "https://www.modelscope.ai",
}  # fmt: skip
_OLLAMA_HOSTS = ("ollama.com", "www.ollama.com", "registry.ollama.ai")
# What addresses of pages and files have between the repository and the file, with the revision.
_TO_FILE = re.compile(
    r"(?P<repository>[^/]+/[^/]+)/(?:resolve|blob|raw|file/view)/(?P<revision>[^/]+)/(?P<file>.+)"
)
_TO_FOLDER = re.compile(
    r"(?P<repository>[^/]+/[^/]+)/(?:tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?|[a-z-]+(?:/.*)?)"
)
# What the newest is called; no other revision is fetched.
_NEWEST = ("main", "master", "HEAD")
# Where an address names a file in its query: a file's panel on a page, and ModelScope's API.
_FILE_FIELDS = ("show_file_info", "fileName", "FilePath")
_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<tag>[^/?#]*)|/(?P<file>[^?#]+\.gguf))?/?", re.I)


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model inside a package of the Python package index."""

    name: str


@dataclass(frozen=True, slots=True)
class Catalogued:
    """A model of the catalogue's names, and the quant where one was said, or `implied` by a name of Ollama's."""

    name: Name
    quant: str | None
    implied: bool = False


@dataclass(frozen=True, slots=True)
class Hosted:
    """A repository on a hub (`hf` or `ms`), with a file or a quant where one was said.

    `endpoint` is the server to ask where none is set: the one that an address named.
    """

    hub: str
    repository: str
    quant: str | None = None
    file: str | None = None
    endpoint: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        tail = f":{self.quant}" if self.quant else f"/{self.file}" if self.file else ""
        return f"{self.hub}:{self.repository}{tail}"


@dataclass(frozen=True, slots=True)
class Address:
    """A file on any server."""

    url: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file by its path."""

    path: Path


Reference = Packaged | Catalogued | Hosted | Address | LocalFile


def resolve(text: str) -> Reference:
    """Resolve a name to a model, file or address. Raises SeventyError with similar names for an unknown name.

    Raises AmbiguousName for a name that means another model at Ollama.
    """
    text = text.strip()
    if text in PACKAGED:
        return Packaged(text)
    if hosted := _hosted(text):
        return hosted
    text = _of_ollama(text)
    if re.match(r"https?://", text, re.IGNORECASE):
        return Address(text)
    if text.startswith("file://"):
        return LocalFile(Path(unquote(urlsplit(text).path)))
    path = Path(text).expanduser()
    if text.startswith((".", "/", "~")) or text.lower().endswith(".gguf") or path.is_file():
        return LocalFile(path)
    if found := names.meaning(text):
        return Catalogued(found.name, found.quant, found.implied)
    raise unknown(text)


def of_hubs(text: str) -> Packaged | Catalogued | Hosted | None:
    """Resolve the name of a model; return None for paths, addresses and unknown names. Does not look at the disk."""
    text = text.strip()
    if text in PACKAGED:
        return Packaged(text)
    try:
        if hosted := _hosted(text):
            return hosted
        found = names.meaning(_of_ollama(text))
    except SeventyError:
        return None
    return Catalogued(found.name, found.quant, found.implied) if found else None


def unknown(text: str) -> SeventyError:
    """Return the error for an unknown name."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", text):
        return SeventyError("there is no file {text}; a repository on Hugging Face is written hf:{text}", text=text)
    near = names.close(text)
    like = t("did you mean {near}? ", near=either(near)) if near else ""
    end = t("names are like {examples}; seventy models --all lists them", examples=EXAMPLES)
    return SeventyError("there is no model or file {text!r}; {like}{end}", text=text, like=like, end=end)


def _of_ollama(text: str) -> str:
    """`ollama:NAME` of an address in Ollama's library, and of that in other capitals; other texts as they are."""
    host, _, rest = re.sub(r"^https?://", "", text, flags=re.IGNORECASE).partition("/")
    if host.lower() in _OLLAMA_HOSTS and rest.startswith("library/"):
        return f"ollama:{urlsplit(rest).path.removeprefix('library/').rstrip('/')}"
    return re.sub(r"^ollama:", "ollama:", text, flags=re.IGNORECASE)


def _hosted(text: str) -> Hosted | None:
    """The repository that a text names by `hf:` or `ms:`, or by an address on a hub or a page of HF_ENDPOINT."""
    kind, _, rest = text.partition(":")
    if kind.lower() in HUBS:
        return _parse(kind.lower(), unquote(rest.lstrip("/")) if "%" in rest else rest.lstrip("/"), text)
    bare = re.sub(r"^https?://", "", text, flags=re.IGNORECASE)
    host, _, rest = bare.partition("/")
    host, mirror = host.lower(), urlsplit(endpoint_setting() or "").netloc.lower()
    file = "/blob/" not in rest and rest.partition("?")[0].lower().endswith(".gguf")
    page = bare != text and bool(mirror) and host == mirror and not file
    hub = _HOSTS.get(host) or ("hf" if page else None)
    if hub is None or not rest.strip("/"):
        return None
    found = _of_address(hub, rest, text)
    return replace(found, endpoint=_MIRRORS.get(host))


def _of_address(hub: str, rest: str, text: str) -> Hosted:
    """The repository of an address, with the file or the quant that a browser's address of a page says."""
    parts = urlsplit(f"//x/{rest}")
    path = parts.path.strip("/").removeprefix("api/v1/").removeprefix("models/")
    fields = parse_qs(parts.query)
    repository = unquote("/".join(path.split("/")[:2]))
    for revision in fields.get("Revision", ()):
        _check_revision(revision, text)
    for name in _FILE_FIELDS:
        for file in fields.get(name, ()):
            return _parse(hub, f"{repository}/{file}", text)
    # Before anything is unquoted: a revision may hold a quoted slash.
    if match := _TO_FILE.fullmatch(path):
        _check_revision(unquote(match["revision"]), text)
        return _parse(hub, f"{repository}/{unquote(match['file'])}", text)
    if not path.lower().endswith(".gguf") and (match := _TO_FOLDER.fullmatch(path)):
        _check_revision(unquote(match["revision"] or "main"), text)
        quant = known_quant(unquote(match["folder"] or "").rpartition("/")[2])
        return _parse(hub, f"{repository}:{quant}" if quant else repository, text)
    return _parse(hub, unquote(path), text)


def _check_revision(revision: str, text: str) -> None:
    if revision not in _NEWEST:
        raise SeventyError(
            "{text} names the revision {revision}; only the newest is fetched: write main instead",
            text=text, revision=revision,
        )


def _parse(hub: str, rest: str, text: str) -> Hosted:
    match = _REPOSITORY.fullmatch(rest)
    if match is None:
        raise SeventyError(
            "{text} is not like {hub}:OWNER/REPOSITORY, {hub}:OWNER/REPOSITORY:Q4_K_M or "
            "{hub}:OWNER/REPOSITORY/FILE.gguf; copy the names from the model's page",
            text=text, hub=hub,
        )
    tag, file = match["tag"] or "", match["file"]
    if tag.lower().endswith(".gguf"):
        # As Ollama takes it, too.
        tag, file = "", tag
    quant = None if tag.lower() in ("", "latest") else known_quant(tag)
    if quant is None and tag.lower() not in ("", "latest"):
        raise SeventyError(
            "{tag!r} in {text} is no quant; they are called like Q4_K_M, Q8_0, IQ4_XS, UD-Q4_K_XL",
            tag=tag, text=text,
        )
    if file and (".." in file.split("/") or "\\" in file or "\0" in file):
        raise SeventyError("{text} has a path that leads out of the repository", text=text)
    return Hosted(hub, match["repository"], quant, file)
