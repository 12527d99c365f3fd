"""What models are called, and where their GGUF files are: one table for pull, run, serve, predict and plan.

A row of names.csv is one thing to download: its own name, other names, its names at Ollama, and the repositories
that have it, the first to be asked first. `model` is the row of models.csv whose shapes it has.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from seventy.catalog.quants import known_quant
from seventy.catalog.rows import load
from seventy.catalog.shapes import Model, all_models
from seventy.errors import SeventyError
from seventy.language import either, t

# What one gets where nobody names a quant, by architecture where it is not Q4_K_M.
OLLAMA_QUANT = "Q4_K_M"
OLLAMA_QUANTS = {"gpt-oss": "MXFP4"}
# Ollama's tags of families older than its choice of Q4_K_M (github.com/ollama/ollama issues 643 and 4626, pull 5485).
OLLAMA_OLD_FAMILIES, OLLAMA_OLD_QUANT = ("llama2", "llama3", "gemma2"), "Q4_0"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(";") if part)


@dataclass(frozen=True, slots=True)
class Name:
    """A model one can ask for by name.

    `hf` and `ms` are repositories on Hugging Face and ModelScope, `ollama` and `aliases` names, each separated by
    semicolons; `arch` is the architecture of the files where it is not that of `model`.
    """

    name: str
    title: str
    model: str
    arch: str
    hf: str
    ms: str
    ollama: str
    aliases: str
    date: str
    source: str
    unsure: str

    def __post_init__(self) -> None:
        for repository in (*self.hf_repositories, *self.ms_repositories):
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
                raise ValueError(t("{repository!r} is not like owner/repository", repository=repository))
        if not self.hf and not self.ms:
            raise ValueError(t("{name} has no repository", name=self.name))

    @property
    def hf_repositories(self) -> tuple[str, ...]:
        return _parts(self.hf)

    @property
    def ms_repositories(self) -> tuple[str, ...]:
        return _parts(self.ms)

    @property
    def ollama_names(self) -> tuple[str, ...]:
        return _parts(self.ollama)

    @property
    def other_names(self) -> tuple[str, ...]:
        return (self.title, *_parts(self.aliases))


@dataclass(frozen=True, slots=True)
class Meaning:
    """The model that a name means, and its quant; `implied` if the name does not state the quant itself."""

    name: Name
    quant: str | None
    implied: bool = False


class AmbiguousName(SeventyError):
    """A name that means one model here and another at Ollama; `choices` are both."""

    def __init__(self, text: str, choices: tuple[Name, ...]) -> None:
        self.choices = choices
        both = either(f"{name.name} ({size_text(name)})" for name in choices)
        super().__init__(
            t("{text!r} is one model here and another one at Ollama; say which: {both}", text=text, both=both)
        )


@cache
def all_names() -> tuple[Name, ...]:
    return load("names.csv", Name)


def key(name: str) -> str:
    """Normalize a name: ignore case, separators, and endings such as -Instruct."""
    text = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    text = re.sub(r"-(instruct|it|chat|0324|2411|2506)(?=-|$)", "", text)
    # llama3.3 and llama-3.3, qwen3 and qwen-3.
    return re.sub(r"(?<=[a-z])-(?=\d)", "", text)


@cache
def _own() -> dict[str, Name]:
    """Our names, by key."""
    found: dict[str, Name] = {}
    for name in all_names():
        for text in (name.name, *name.other_names):
            found.setdefault(key(text), name)
    return found


@cache
def _ollama() -> dict[str, Name]:
    return {text: name for name in all_names() for text in name.ollama_names}


def meaning(text: str) -> Meaning | None:
    """Resolve a name in any usual spelling, with or without `:QUANT`; return None for an unknown name.

    A name with a tag in Ollama's form means Ollama's quant. Raises AmbiguousName for a bare name that means another
    model at Ollama.
    """
    stem, _, tag = text.strip().removeprefix("ollama:").removeprefix("library/").rpartition(":")
    forced = text.strip().startswith("ollama:")
    if stem and (quant := known_quant(tag)):
        found = meaning(f"ollama:{stem}" if forced else stem)
        return found and Meaning(found.name, quant)
    ollama = _ollama_meaning(stem or tag, tag if stem else "")
    own = None if stem or forced else _own().get(key(tag))
    if own and ollama and own is not ollama.name:
        raise AmbiguousName(text, (own, ollama.name))
    return Meaning(own, None) if own else ollama


def _ollama_meaning(family: str, tag: str) -> Meaning | None:
    family, tag, quant = family.lower(), tag.lower(), None
    # 8b-instruct-q8_0, and what stands before the quant is a tag of its own or one with a word more.
    if match := re.fullmatch(r"(?P<size>.+?)-(?P<quant>(?:i?q\d|fp16|bf16|f16|mxfp4).*)", tag):
        quant = known_quant(match["quant"].replace("fp16", "f16"))
        tag = match["size"] if quant else tag
    names = _ollama()
    bare = family if tag in ("", "latest") else f"{family}:{tag}"
    found = names.get(bare) or names.get(re.sub(r"-(instruct|it|text|chat)$", "", bare)) or names.get(key(bare))
    if found is None:
        return None
    usual = OLLAMA_OLD_QUANT if found.ollama_names[0].partition(":")[0] in OLLAMA_OLD_FAMILIES else ollama_quant(found)
    return Meaning(found, quant or usual, implied=quant is None)


def ollama_quant(name: Name) -> str:
    return OLLAMA_QUANTS.get(architecture(name), OLLAMA_QUANT)


def shape(name: Name) -> Model:
    """Return the row of models.csv that has the shapes of this model."""
    return _shapes()[name.model]


@cache
def _shapes() -> dict[str, Model]:
    return {model.name: model for model in all_models()}


def architecture(name: Name) -> str:
    """Return the name of the model's architecture in GGUF."""
    return name.arch or shape(name).arch


def size_text(name: Name) -> str:
    """Describe the size of a model: "671 B parameters, 404 GB as Q4_K_M"."""
    model, quant = shape(name), ollama_quant(name)
    return f"{model.params_b:.3g} B parameters, {model.size(quant):.3g} GB as {quant}"


def of_repository(repository: str) -> Name | None:
    """Return the model that a repository holds: by the table, or by the repository's name."""
    wanted = repository.lower()
    for name in all_names():
        if wanted in (each.lower() for each in (*name.hf_repositories, *name.ms_repositories)):
            return name
    return of_title(repository.rpartition("/")[2])


def of_title(title: str) -> Name | None:
    """Return the model named by a repository's or file's title, such as google_gemma-3-4b-it-GGUF."""
    text = re.sub(r"[-._]gguf$", "", title, flags=re.IGNORECASE)
    for candidate in (text, text.partition("_")[2]):
        if candidate and (found := _own().get(key(candidate))):
            return found
    return None


def close(text: str) -> list[str]:
    """List known names similar to this one, for a message."""
    wanted = key(text.partition(":")[0])
    own = _own()
    starting = [each for each in own if wanted and each.startswith(wanted)]
    starting += [each for each in own if wanted and wanted in each and each not in starting]
    near = starting or difflib.get_close_matches(wanted, list(own), n=4, cutoff=0.5)
    return list(_unique(own[each].name for each in near))[:5]


def _unique(names: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(names)
