"""The models on this disk: our own folder, and what other programs keep, found and used in place, never changed.

| store | where | how a model is found |
|---|---|---|
| Hugging Face | HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub | models--OWNER--REPO/snapshots/*/FILE.gguf |
| Ollama | OLLAMA_MODELS, ~/.ollama/models, the service's folders | a manifest names the blob of the weights |
| LM Studio | its home's models, or downloadsFolder of its settings | OWNER/REPO/FILE.gguf |
| Jan | its data folder's llamacpp/models | model.yml says model_path |
| llama.cpp | LLAMA_CACHE, ~/.cache/llama.cpp | FILE.gguf |
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seventy.catalog import names
from seventy.catalog.names import Name
from seventy.catalog.quants import nominal_bits, quant_of
from seventy.errors import SeventyError
from seventy.hub.listing import SHARD, is_model
from seventy.hub.names import Catalogued, Hosted, LocalFile, Packaged, Reference, resolve
from seventy.hub.package import PACKAGED
from seventy.hub.store import folder
from seventy.language import t

OURS = "seventy"
_OLLAMA_SERVICE = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models", "/var/lib/ollama/models")
_OLLAMA_LAYER = "application/vnd.ollama.image."
# A manifest, a configuration or a settings file is smaller than this.
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Local:
    """A model on this disk; `path` is its file, the first of a split one.

    `store` is whose it is, `labels` are names it can be asked for by, `repository` where it came from, `quant` what
    its name or manifest says, `problem` why it cannot be used where that is known without reading the file.
    """

    path: Path
    store: str
    labels: tuple[str, ...] = ()
    repository: str | None = None
    quant: str | None = None
    problem: str | None = None

    @property
    def ours(self) -> bool:
        return self.store == OURS

    @property
    def files(self) -> list[Path]:
        """The files of the model: all its parts."""
        shard = SHARD.fullmatch(self.path.name)
        if shard is None:
            return [self.path]
        count = int(shard["count"])
        tail = f"of-{shard['count']}{self.path.suffix}"
        every = [f"{shard['prefix']}-{number:05}-{tail}" for number in range(1, count + 1)]
        return [path for name in every if (path := self.path.with_name(name)).exists()]

    @property
    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    @property
    def name(self) -> Name | None:
        """The model of the catalogue's names that this is, by where it came from or what it is called."""
        for label in self.labels:
            if label in _ollama_names():
                return _ollama_names()[label]
        if self.repository and (found := names.of_repository(self.repository)):
            return found
        stem = SHARD.sub(r"\g<prefix>", self.path.name).removesuffix(".gguf")
        if self.quant:
            stem = re.sub(rf"[-_.]*{re.escape(self.quant)}$", "", stem, flags=re.IGNORECASE)
        return names.of_title(stem)

    @property
    def label(self) -> str:
        """The name to type to run it."""
        for model in PACKAGED.values():
            if self.path == folder() / model.file:
                return model.name
        if self.quant and (found := self.name):
            return f"{found.name}:{self.quant}"
        if self.labels:
            return self.labels[0]
        if self.repository and self.quant:
            return f"hf:{self.repository}:{self.quant}"
        return str(self.path)


@dataclass(slots=True)
class Inventory:
    """The models on this disk, ours first, and notes about stores that could not be read."""

    models: list[Local] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, text: str, wanted: Reference | None, any_quant: bool = True) -> Local | None:
        """Find a model by its name as text, or by the reference that the name resolves to.

        A quant that the name only implies may be another one, unless `any_quant` is false. Usable models come first,
        then those nearest to 4 bits, then ours.
        """
        if any_quant and isinstance(wanted, Catalogued) and wanted.implied:
            wanted = Catalogued(wanted.name, None)
        matches = [model for model in self.models if _called(model, text) or (wanted and _is(model, wanted))]
        return min(matches, key=_preference, default=None)


def _ollama_names() -> dict[str, Name]:
    return {text: name for name in names.all_names() for text in name.ollama_names}


def _called(model: Local, text: str) -> bool:
    bare = text.removeprefix("ollama:")
    called = {*model.labels, model.path.name}
    if model.path.suffix == ".gguf":
        called.add(model.path.stem)
    return bare in called or f"{bare}:latest" in called


def _is(model: Local, wanted: Reference) -> bool:
    if isinstance(wanted, Packaged):
        return model.path == folder() / PACKAGED[wanted.name].file
    if isinstance(wanted, Hosted):
        if model.repository is None or model.repository.lower() != wanted.repository.lower():
            return False
        if wanted.file:
            return model.path.as_posix().endswith(f"/{wanted.file}")
        return wanted.quant in (None, model.quant)
    if isinstance(wanted, Catalogued):
        return model.name is wanted.name and wanted.quant in (None, model.quant)
    return False


def _preference(model: Local) -> tuple[bool, int, bool]:
    bits = nominal_bits(model.quant) if model.quant else 16
    return model.problem is not None, abs(bits - 4), not model.ours


def inventory() -> Inventory:
    """Return every model file on this disk, each once."""
    found, seen = Inventory(), set[tuple[int, int]]()
    for model in (
        *_ours(found.notes), *_hugging_face(found.notes), *_ollama(found.notes), *_lm_studio(found.notes),
        *_jan(found.notes), *_llama_cpp(found.notes),
    ):  # fmt: skip
        try:
            status = model.path.stat()
        except PermissionError:
            found.notes.append(t(
                "{path} ({labels}) may not be read",
                path=model.path, labels=model.labels[0] if model.labels else model.store,
            ))
            continue
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            found.models.append(model)
    return found


def look(text: str, any_quant: bool = True) -> tuple[Local | None, Reference]:
    """Resolve a name, and find the model on this disk if it is here (`any_quant` as in Inventory.find).

    Raises SeventyError for an unknown name, and AmbiguousName for a name of two models of which neither is here.
    """
    try:
        wanted = resolve(text)
    except SeventyError:
        if here := inventory().find(text, None):
            return here, LocalFile(here.path)
        raise
    if isinstance(wanted, Packaged) and (path := folder() / PACKAGED[wanted.name].file).exists():
        # The first model anyone runs: nothing else needs to be looked through.
        return Local(path, OURS), wanted
    if not isinstance(wanted, LocalFile):
        return inventory().find(text, wanted, any_quant), wanted
    if wanted.path.exists():
        return Local(wanted.path, "a file"), wanted
    if here := inventory().find(text, None):
        return here, wanted
    raise SeventyError("there is no model or file {text!r}; seventy models lists what is here", text=text)


def find(text: str) -> Path:
    """Return the file of a model on this disk, by name or path. Raises SeventyError that says how to get it."""
    here, _ = look(text)
    if here is None:
        raise SeventyError("model {text} is not on this machine yet; get it with: seventy pull {text}", text=text)
    return usable(here)


def usable(model: Local) -> Path:
    """Return the model's file. Raises SeventyError if its store keeps it in a form that cannot be used."""
    if model.problem:
        raise SeventyError(
            "{label} in {store} cannot be used: {problem}",
            label=model.label, store=model.store, problem=model.problem,
        )
    return model.path


def _ours(notes: list[str]) -> Iterator[Local]:
    root = folder()
    for path in _ggufs(root, notes):
        parts = path.relative_to(root).parts
        yield _file(path, OURS, "/".join(parts[:2]) if len(parts) > 2 else None)


def hugging_face_cache() -> Path:
    """Return the folder in which huggingface_hub keeps files, from the variables that the library reads."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(chosen)).expanduser()
    home = os.environ.get("HF_HOME") or str(_cache_home() / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _hugging_face(notes: list[str]) -> Iterator[Local]:
    for snapshots in _listed(hugging_face_cache(), notes):
        match = re.fullmatch(r"models--([\w.-]+?)--([\w.-]+)", snapshots.name)
        if match is None:
            continue
        for revision in sorted(_listed(snapshots / "snapshots", notes), key=_mtime, reverse=True):
            for path in _ggufs(revision, notes):
                yield _file(path, "Hugging Face cache", f"{match[1]}/{match[2]}")


def _ollama(notes: list[str]) -> Iterator[Local]:
    chosen = os.environ.get("OLLAMA_MODELS")
    roots = [chosen] if chosen else [str(Path.home() / ".ollama/models"), *_OLLAMA_SERVICE]
    for root in map(Path, roots):
        for path in _walk(root / "manifests", notes):
            parts = path.relative_to(root / "manifests").parts
            if len(parts) >= 4 and not path.name.startswith("."):
                yield from _of_manifest(root, path, parts)


def _of_manifest(root: Path, path: Path, parts: tuple[str, ...]) -> Iterator[Local]:
    """The model of one manifest: registry/namespace/model/tag."""
    registry, owner, model, tag = parts[0], "/".join(parts[1:-2]), parts[-2], parts[-1]
    if registry == "registry.ollama.ai":
        label = f"{model}:{tag}" if owner == "library" else f"{owner}/{model}:{tag}"
    else:
        label = f"{registry}/{owner}/{model}:{tag}"
    manifest = _json(path)
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        return
    kinds: dict[str, list[str]] = {}
    for layer in layers:
        if isinstance(layer, dict) and isinstance(layer.get("digest"), str):
            kind = str(layer.get("mediaType", "")).removeprefix(_OLLAMA_LAYER)
            kinds.setdefault(kind, []).append(layer["digest"])
    config = manifest.get("config")
    details = _json(_blob(root, str(config.get("digest")))) if isinstance(config, dict) else None
    details = details if isinstance(details, dict) else {}
    blobs, problem = kinds.get("model", []), None
    if not blobs and (tensors := kinds.get("tensor")):
        blobs, problem = tensors[:1], t("Ollama keeps each of its tensors in a file; pull the model by its name")
    elif not blobs and details.get("remote_host"):
        blobs, problem = [str(config["digest"])], t("it runs on {details}, not here", details=details["remote_host"])
    elif not blobs:
        return
    elif len(blobs) > 1:
        problem = t(
            "Ollama keeps it in {blobs_count} files of its own; pull the model by its name",
            blobs_count=len(blobs),
        )
    elif "adapter" in kinds:
        problem = t("it has an adapter (LoRA), which seventy does not apply")
    quant = details.get("file_type")
    repository = f"{owner}/{model}" if registry in ("hf.co", "huggingface.co") else None
    blob = _blob(root, blobs[0])
    yield Local(blob, "Ollama", (label,), repository, str(quant).upper() if quant else None, problem)


def _blob(root: Path, digest: str) -> Path:
    kind, _, value = digest.replace(":", "-").partition("-")
    kind, value = (re.sub(r"[^0-9a-z]", "", part) for part in (kind, value))
    # Ollama wrote a colon before 2024.
    old = root / "blobs" / f"{kind}:{value}"
    there = os.path.exists(old)  # noqa: PTH110 (Path.exists raises on EACCES)
    return old if there else root / "blobs" / f"{kind}-{value}"


def _lm_studio(notes: list[str]) -> Iterator[Local]:
    home, pointer = Path.home(), Path.home() / ".lmstudio-home-pointer"
    homes = [home / ".lmstudio", _cache_home() / "lm-studio"]
    if pointer.is_file():
        homes.insert(0, Path(pointer.read_text(encoding="utf-8", errors="replace").strip()))
    roots = []
    for each in homes:
        settings = _json(each / "settings.json")
        chosen = settings.get("downloadsFolder") if isinstance(settings, dict) else None
        roots += [Path(chosen)] if isinstance(chosen, str) and chosen else []
        roots.append(each / "models")
    for root in dict.fromkeys(roots):
        for path in _ggufs(root, notes):
            parts = path.relative_to(root).parts
            yield _file(path, "LM Studio", "/".join(parts[:2]) if len(parts) > 2 else None)


def _jan(notes: list[str]) -> Iterator[Local]:
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    support = home / "Library/Application Support"
    for root in (data / "Jan/data", home / ".config/Jan/data", support / "Jan/data", home / "jan"):
        for path in _walk(root / "llamacpp/models", notes):
            if path.name == "model.yml":
                match = re.search(r"^model_path:\s*(.+?)\s*$", _text(path), re.MULTILINE)
                if match:
                    file = root / match[1].strip("'\"")
                    # Its folder is called after the model, its file often only model.gguf.
                    label = path.parent.relative_to(root / "llamacpp/models").as_posix()
                    yield Local(file, "Jan", (label,), None, quant_of(file.name) or quant_of(label))


def _llama_cpp(notes: list[str]) -> Iterator[Local]:
    root = Path(os.environ.get("LLAMA_CACHE") or _cache_home() / "llama.cpp")
    for path in _ggufs(root, notes):
        yield _file(path, "llama.cpp")


def of_path(path: Path) -> Local:
    """Return the model at a path: as its store knows it, else named after the file."""
    stored = (model for model in inventory().models if model.path.absolute() == path.absolute())
    return next(stored, None) or _file(path, "a file")


def _file(path: Path, store: str, repository: str | None = None) -> Local:
    return Local(path, store, (), repository, quant_of(path.name) or quant_of(path.parent.name))


def _ggufs(root: Path, notes: list[str]) -> Iterator[Path]:
    """The model files below a folder; of a split model the first."""
    for path in _walk(root, notes):
        shard = SHARD.fullmatch(path.name)
        if is_model(path.relative_to(root).as_posix()) and not (shard and int(shard["number"]) != 1):
            yield path


def _walk(root: Path, notes: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        if isinstance(error, PermissionError):
            notes.append(t(
                "{filename} may not be read by this user; models in it are not shown",
                filename=error.filename,
            ))

    for where, folders, files in os.walk(root, onerror=unreadable):
        # Unfinished downloads, .git, .locks and the like.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # A link whose file is gone, or not fetched yet, is no model; nor is a pipe.
            if os.path.isfile(os.path.join(where, name)):  # noqa: PTH113, PTH118 (Path.is_file raises on EACCES)
                yield Path(where, name)


def _listed(root: Path, notes: list[str]) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except PermissionError:
        notes.append(t("{root} may not be read by this user; models in it are not shown", root=root))
    except OSError:
        pass
    return []


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_JSON_BYTES)
    except OSError:
        return ""


def _json(path: Path) -> Any:
    """What a JSON file holds, or None where there is none that can be read."""
    try:
        return json.loads(_text(path))
    except ValueError:
        return None


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

