"""Which draft model there is for a model, if any: the one that was named, or one on this disk that should pay."""

import contextlib
import logging
import os
from pathlib import Path

from seventy import models
from seventy.engine.assistant import is_assistant
from seventy.engine.draft_model import compare
from seventy.engine.drafts import CHOICES
from seventy.engine.footprint import least_and_full
from seventy.engine.outline import check
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub import local
from seventy.language import t
from seventy.models.blocks.multi_token import has_block, refuse_alone
from seventy.runtime import reservations

_log = logging.getLogger("seventy.engine")

# Without being named, a draft model is taken for models of so many bytes at least, whose steps take long enough to gain
# something; and it has at most this share of their bytes. Of several the one nearest to the best share is taken: a pass
# costs little, and more of its guesses are right than of a smaller one.
_LEAST_BYTES, _MOST_SHARE, _BEST_SHARE = 4_000_000_000, 1 / 10, 1 / 30


def named(draft: str) -> Path | None:
    """Return the file of a draft model by its path or by a name of a model on this disk; None for one of CHOICES.

    Raises SeventyError where there is no such model.
    """
    if draft in CHOICES:
        return None
    path = Path(draft).expanduser()
    if path.suffix == ".gguf" or path.exists():
        return path
    try:
        return local.find(draft)
    except SeventyError as error:
        known = t("one of {choices}, or a model's name or file", choices=", ".join(CHOICES))
        raise SeventyError(
            "draft must be {known}, not {draft!r}: {error}",
            known=known, draft=draft, error=error,
        ) from None


def multi_token(
    path: str | os.PathLike[str], draft: str, context: int | None, sequences: int, kv: str, memory: int | None
) -> bool:
    """Return whether the model's block of multi-token prediction should draft.

    Raises SeventyError with the reason if it was requested and cannot; if it was not, the reason goes to the log.
    """
    if draft not in ("auto", "mtp"):
        return False
    with GGUF(path) as source:
        config = models.find(source.metadata.get("general.architecture")).config(source.metadata)
        refuse_alone(config, source.tensors, os.fspath(path))
        there = has_block(config, source.tensors)
    if not there:
        declared = t(
            "names {further_blocks} and lacks its tensors",
            further_blocks=config.further_blocks,
        ) if config.further_blocks else t("has none")
        if draft == "mtp":
            raise SeventyError(
                "{path} cannot draft with a block of multi-token prediction (--draft mtp): the file {declared}; take "
                "one with it, or --draft auto",
                path=os.fspath(path), declared=declared,
            )
        if config.further_blocks:
            _log.warning("%s %s, of multi-token prediction: it does not draft", os.fspath(path), declared)
        return False
    if draft == "mtp":
        return True
    try:
        check(path, kv, mtp=True)
    except SeventyError as error:
        _log.warning("going on without the block of multi-token prediction: %s", error)
        return False
    least, without = (least_and_full(path, context, sequences, kv, mtp)[0] for mtp in (True, False))
    # What fits without it only is loaded without it.
    return least <= _room(memory) or without > _room(memory)


def found(
    path: str | os.PathLike[str], context: int | None, sequences: int, kv: str, memory: int | None
) -> Path | None:
    """Return the file of a model on this disk that may draft for the one at `path`; None where there is none.

    One that was made for that model is taken before any other (engine/assistant.py). Both must fit into the memory that
    is free now, or into `memory` bytes of it, with a cache for a whole text.
    """
    nbytes = local.Local(Path(path), "a file").nbytes
    if nbytes < _LEAST_BYTES:
        return None
    room = _room(memory) - least_and_full(path, context, sequences, kv)[1]
    able = []
    for model in local.inventory().models:
        share = model.nbytes / nbytes
        if model.problem or share > _MOST_SHARE:
            continue
        # What cannot be read or run, or has other tokens, does not draft.
        with contextlib.suppress(SeventyError, OSError):
            if is_assistant(model.path):
                if least_and_full(path, context, sequences, kv, assistant=model.path)[0] <= _room(memory):
                    check(path, kv, assistant=model.path)
                    return Path(model.path)
                continue
            compare(path, model.path)
            if least_and_full(model.path, context, 1, kv)[1] <= room:
                check(model.path, kv)
                able.append((abs(share - _BEST_SHARE), str(model.path)))
    return Path(min(able)[1]) if able else None


def room_beside(
    path: str | os.PathLike[str], small: Path, context: int | None, sequences: int, kv: str, memory: int | None
) -> tuple[int, int]:
    """Share out the memory that is free, or `memory` bytes of it, between the model at `path` and its draft model.

    The draft model has room for one whole text, or for the shortest where the other would have too little.
    """
    room = _room(memory)
    least, full = least_and_full(small, context, 1, kv)
    taken = full if room - full >= least_and_full(path, context, sequences, kv)[0] else least
    return room - taken, taken


def _room(memory: int | None) -> int:
    """The bytes that are free, `memory` of them at most."""
    with reservations.ledger() as ledger:
        return ledger.room if memory is None else min(ledger.room, memory)
