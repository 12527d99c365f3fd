"""What a model's name means: a model of the catalogue, a repository on a hub, an address, or a file.

    llama-3.3-70b  qwen3:8b  deepseek-r1:70b  llama-3.3-70b:Q8_0  ollama:qwen3      names of catalog/data/names.csv
    hf:OWNER/REPO[:QUANT]  hf:OWNER/REPO/FILE.gguf  hf.co/OWNER/REPO[:QUANT]  https://huggingface.co/OWNER/REPO ...
    ms:OWNER/REPO[:QUANT]  ms:OWNER/REPO/FILE.gguf  https://modelscope.cn/models/OWNER/REPO ...
    https://any.server/FILE.gguf                     ./FILE.gguf

It asks no network and looks at no disk but for a path's existence.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from seventy.catalog import names
from seventy.catalog.names import Name
from seventy.catalog.quants import known_quant
from seventy.errors import SeventyError
from seventy.hub.package import PACKAGED

# How a name looks, for messages.
EXAMPLES = (
    "llama-3.3-70b, qwen3:8b, hf:OWNER/REPOSITORY:Q4_K_M, ms:OWNER/REPOSITORY:Q4_K_M, https://.../x.gguf or a path"
)
HUBS = {"hf": "Hugging Face", "ms": "ModelScope"}
_HF_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_MS_HOSTS = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")
_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<quant>[\w.-]+)|/(?P<file>[^?#]+\.gguf))?/?")


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
    """A repository on a hub (`hf` or `ms`), with a file or a quant where one was said."""

    hub: str
    repository: str
    quant: str | None = None
    file: str | None = None

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
    """What a name means; SeventyError with names like it where it means nothing.

    Raises AmbiguousName for a name that means another model at Ollama.
    """
    text = text.strip()
    if text in PACKAGED:
        return Packaged(text)
    if hosted := _hosted(text):
        return hosted
    if text.startswith(("https://", "http://")):
        return Address(text)
    path = Path(text).expanduser()
    if text.startswith((".", "/", "~")) or text.lower().endswith(".gguf") or path.is_file():
        return LocalFile(path)
    if found := names.meaning(text):
        return Catalogued(found.name, found.quant, found.implied)
    raise unknown(text)


def unknown(text: str) -> SeventyError:
    """The error for a name that means nothing."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", text):
        return SeventyError(f"there is no file {text}; a repository on Hugging Face is written hf:{text}")
    near = names.close(text)
    like = f"did you mean {' or '.join(near)}? " if near else ""
    end = f"names are like {EXAMPLES}; seventy models --all lists them"
    return SeventyError(f"there is no model or file {text!r}; {like}{end}")


def _hosted(text: str) -> Hosted | None:
    kind, _, rest = text.partition(":")
    if kind in HUBS:
        return _parse(kind, rest.lstrip("/"), text)
    bare = re.sub(r"^https?://", "", text)
    host, _, rest = bare.partition("/")
    if host in _HF_HOSTS:
        return _parse("hf", _without_route(rest), text)
    if host in _MS_HOSTS:
        return _parse("ms", _without_route(rest.removeprefix("models/")), text)
    return None


def _without_route(rest: str) -> str:
    """OWNER/REPO/FILE of the path of a page or a file: what a browser's address has between is left out."""
    path = unquote(urlsplit(f"//x/{rest}").path.lstrip("/"))
    path = re.sub(r"^([^/]+/[^/]+)/(?:resolve|blob|file/view)/[^/]+/", r"\1/", path)
    return re.sub(r"^([^/]+/[^/]+)/(?:tree/.*|files|summary)$", r"\1", path)


def _parse(hub: str, rest: str, text: str) -> Hosted:
    match = _REPOSITORY.fullmatch(rest)
    if match is None:
        raise SeventyError(
            f"{text} is not like {hub}:OWNER/REPOSITORY, {hub}:OWNER/REPOSITORY:Q4_K_M or "
            f"{hub}:OWNER/REPOSITORY/FILE.gguf; copy the names from the model's page"
        )
    quant = match["quant"]
    if quant and quant.lower() == "latest":
        quant = None
    if quant and not known_quant(quant):
        raise SeventyError(f"{quant!r} in {text} is no quant; they are called like Q4_K_M, Q8_0, IQ4_XS, UD-Q4_K_XL")
    file = match["file"]
    if file and (".." in file.split("/") or "\\" in file or "\0" in file):
        raise SeventyError(f"{text} has a path that leads out of the repository")
    return Hosted(hub, match["repository"], known_quant(quant) if quant else None, file)
