"""Which hub to ask for a model that several have, and what it offers.

With HF_ENDPOINT set Hugging Face (that mirror) is asked first. With neither HF_ENDPOINT nor MODELSCOPE_ENDPOINT set
both hubs are tried for three seconds with a range of the model itself, and the faster one is taken.
"""

import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from seventy.errors import SeventyError
from seventy.hub.huggingface import MIRROR, HuggingFace
from seventy.hub.listing import Hub, Interrupted, NotThere, RemoteFile, Unreachable, Variant, of_file, variants
from seventy.hub.modelscope import ModelScope
from seventy.hub.names import Catalogued, Hosted
from seventy.hub.transfer import Say
from seventy.language import beginning, sentences, t

PROBE_SECONDS = 3.0
_PROBE_BYTES = 64 << 20
# Less of a difference is chance; then Hugging Face, whose list comes first.
_FASTER = 1.2


@dataclass(frozen=True, slots=True)
class Offered:
    """A repository on a hub and its models by quant, smallest first; or a `model` of another seventy."""

    hub: Hub
    repository: str
    variants: tuple[Variant, ...]
    model: str | None = None

    def __str__(self) -> str:
        return self.hub.name(self.repository)

    def command(self, quant: str) -> str:
        """Return the command that downloads a quant of it."""
        end = f"{self.model} --from {self.hub.endpoint}" if self.model else f"{self}:{quant}"
        return f"seventy pull {end}"


def offered(wanted: Hosted | Catalogued, say: Say, hubs: Sequence[Hub] | None = None) -> Offered:
    """Find a model on the hubs and return what the chosen hub offers. Raises SeventyError if none has it."""
    at = wanted.endpoint if isinstance(wanted, Hosted) else None
    hubs = hubs or (HuggingFace(mirror=at), ModelScope(mirror=at))
    if isinstance(wanted, Hosted):
        return _hosted(wanted, next(hub for hub in hubs if hub.kind == wanted.hub))
    repositories = {"hf": wanted.name.hf_repositories, "ms": wanted.name.ms_repositories}
    having = [hub for hub in _in_order(hubs) if repositories[hub.kind]]
    said: list[SeventyError] = []
    if len(having) > 1 and not os.environ.get("HF_ENDPOINT") and not os.environ.get("MODELSCOPE_ENDPOINT"):
        found = _fastest([(hub, repositories[hub.kind]) for hub in having], said, say)
        if found:
            return found
    else:
        for hub in having:
            try:
                return _first(hub, repositories[hub.kind])
            except SeventyError as error:
                said.append(error)
    raise _nothing(wanted, said)


def elsewhere(wanted: Catalogued, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Find the same files, by sha256, on another hub; return an empty list if no other hub has them all."""
    repositories = {"hf": wanted.name.hf_repositories, "ms": wanted.name.ms_repositories}
    for hub in (HuggingFace(), ModelScope()):
        if hub.kind == files[0].hub.kind:
            continue
        for repository in repositories[hub.kind]:
            try:
                there = {file.sha256: file for file in hub.files(repository)}
            except SeventyError:
                continue
            if all(file.sha256 in there for file in files):
                return [there[file.sha256] for file in files]
    return []


def _fastest(asked: Sequence[tuple[Hub, Sequence[str]]], said: list[SeventyError], say: Say) -> Offered | None:
    """The one whose hub sends most bytes in some seconds; the first where there is little between them.

    A hub that has not answered twice so many seconds after the other one is left out.
    """
    answers: queue.SimpleQueue[tuple[int, Offered | SeventyError, float]] = queue.SimpleQueue()

    def ask(index: int) -> None:
        try:
            found = _first(*asked[index])
        except SeventyError as error:
            answers.put((index, error, 0.0))
        else:
            answers.put((index, found, _rate(found.variants[-1].files[0], PROBE_SECONDS)))

    for index in range(len(asked)):
        threading.Thread(target=ask, args=(index,), daemon=True).start()
    found: dict[int, tuple[Offered, float]] = {}
    for _ in asked:
        try:
            index, answer, rate = answers.get(timeout=2 * PROBE_SECONDS if found else None)
        except queue.Empty:
            break
        if isinstance(answer, SeventyError):
            said.append(answer)
        else:
            found[index] = answer, rate
    if not found:
        return None
    rates = [found[index][1] if index in found else 0.0 for index in range(len(asked))]
    best = max(found, key=lambda index: rates[index])
    if 0 in found and rates[best] < _FASTER * rates[0]:
        best = 0
    told = ", ".join(f"{hub.title} {rate / 1e6:.1f} MB/s" for (hub, _), rate in zip(asked, rates, strict=True))
    say(t(
        "a try of {probe_seconds:.0f} s: {told}; taken: {title}",
        probe_seconds=PROBE_SECONDS, told=told, title=asked[best][0].title,
    ))
    return found[best][0]


def _rate(file: RemoteFile, seconds: float) -> float:
    """Bytes a second over some seconds, the time to the first byte included."""
    began, got = time.monotonic(), 0
    try:
        with file.open(0, min(file.nbytes, _PROBE_BYTES)) as body:
            for chunk in body.chunks:
                got += len(chunk)
                if time.monotonic() - began > seconds:
                    break
    except (Interrupted, SeventyError):
        # What was sent before it broke off counts.
        pass
    return got / max(time.monotonic() - began, 1e-3)


def _in_order(hubs: Sequence[Hub]) -> list[Hub]:
    """Hugging Face first, unless only ModelScope's endpoint is set."""
    first = "ms" if os.environ.get("MODELSCOPE_ENDPOINT") and not os.environ.get("HF_ENDPOINT") else "hf"
    return sorted(hubs, key=lambda hub: hub.kind != first)


def _first(hub: Hub, repositories: Sequence[str]) -> Offered:
    """The first of these repositories that the hub has with a model in it."""
    said: SeventyError | None = None
    for repository in repositories:
        try:
            found = variants(hub.files(repository))
        except Unreachable:
            raise
        except SeventyError as error:
            said = said or error
            continue
        if found:
            return Offered(hub, repository, tuple(found))
        said = said or NotThere("{kind}:{repository} has no .gguf model", kind=hub.kind, repository=repository)
    assert said is not None
    raise said


def _hosted(wanted: Hosted, hub: Hub) -> Offered:
    files = hub.files(wanted.repository)
    if wanted.file:
        one = of_file(files, wanted.file)
        if one is None:
            names = ", ".join(file.path for file in files[:20]) or t("none")
            raise NotThere(
                "{kind}:{repository} has no file {file}; its .gguf files: {names}",
                kind=hub.kind, repository=wanted.repository, file=wanted.file, names=names,
            )
        return Offered(hub, wanted.repository, (one,))
    found = variants(files)
    if not found:
        raise NotThere(
            "{kind}:{repository} has no .gguf model; its maker may have one in a repository of its own, often called "
            "{name}-GGUF",
            kind=hub.kind, repository=wanted.repository, name=wanted.repository.rpartition("/")[2],
        )
    return Offered(hub, wanted.repository, tuple(found))


def _nothing(wanted: Catalogued, said: Sequence[SeventyError]) -> SeventyError:
    reasons = sentences(beginning(error.text) for error in said)
    ms = f"ms:{wanted.name.ms_repositories[0]}" if wanted.name.ms_repositories else "ms:OWNER/REPOSITORY"
    return SeventyError(
        "no hub gives {name} ({reasons}); try a mirror (HF_ENDPOINT={mirror} seventy pull {name}), or ModelScope by "
        "name (seventy pull {ms})",
        name=wanted.name.name, reasons=reasons, mirror=MIRROR, ms=ms,
    )
