"""`seventy models`: what is on this disk, what runs and how fast; what is in a file; files added and removed."""

import sys
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seventy.errors import SeventyError
from seventy.gguf.arrays import GGUFArray
from seventy.gguf.file import GGUF
from seventy.gguf.tensors import GGML_TYPES
from seventy.hub import local, store
from seventy.hub.package import PACKAGED
from seventy.sizes import size

if TYPE_CHECKING:
    from seventy.plan.machine import Machine

app = typer.Typer(help="The models on this machine, and what is in one.")


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="The names that pull knows, here or not.")] = False,
) -> None:
    """List the models that are here, whoever fetched them; `seventy models info FILE` shows one."""
    if context.invoked_subcommand is not None:
        if every:
            raise SeventyError(f"--all is for the list of models, not for models {context.invoked_subcommand}")
        return
    if every:
        print_rows(_known())
        return
    found = local.inventory()
    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "QUANT", "ARCHITECTURE", "HERE", "IN", "FILE")]
    for name, packaged in PACKAGED.items():
        if not (store.folder() / packaged.file).exists():
            pull = f"not here yet; seventy pull {name}"
            rows.append((name, size(packaged.nbytes), packaged.title.split()[-1], "llama", pull, "", ""))
    rows += [_row(model) for model in found.models]
    print_rows(rows)
    for note in dict.fromkeys(found.notes):
        print(note, file=sys.stderr)
    if left := store.unfinished():
        left_over = size(sum(_used(path) for path in left))
        end = "pull goes on with them, seventy models rm --unfinished deletes them"
        print(f"unfinished downloads: {left_over}; {end}", file=sys.stderr)


@app.command()
def info(
    model: str = typer.Argument(..., help="A .gguf file, the first of a split model, or a name of `seventy models`."),
    template: bool = typer.Option(False, help="Show the chat template and nothing else."),
) -> None:
    """What a model file holds; nothing of it is loaded."""
    with GGUF(local.find(model)) as gguf:
        if template:
            print(gguf.metadata.get("tokenizer.chat_template", ""))
        else:
            print_rows([*facts(gguf), *prospects(gguf)])


@app.command()
def add(file: Annotated[Path, typer.Argument(help="A .gguf file, or one of a split model, from elsewhere.")]) -> None:
    """Take a file into our folder: linked where the disk is the same, copied where not."""
    from seventy.cli.pull import with_bar

    linked = False

    def take(progress: store.Progress) -> Path:
        nonlocal linked
        path, linked = store.add(file.expanduser(), progress)
        return path

    print(with_bar(file.name, take))
    print("linked: both names are the same bytes" if linked else "copied", file=sys.stderr)


@app.command()
def rm(
    model: Annotated[str | None, typer.Argument(help="A name of `seventy models`.")] = None,
    unfinished: Annotated[bool, typer.Option(help="Delete what downloads left that broke off.")] = False,
) -> None:
    """Delete a model of ours; what other programs keep is left alone."""
    if unfinished:
        left = store.unfinished()
        freed = sum(_used(path) for path in left)
        store.remove(left)
        print(f"freed {size(freed)}")
    if model is None:
        if not unfinished:
            raise SeventyError("name a model to delete; seventy models lists them")
        return
    here, _ = local.look(model)
    if here is None:
        raise SeventyError(f"model {model} is not here; seventy models lists what is")
    if not store.is_ours(here.path):
        raise SeventyError(
            f"{here.path} is not ours but in {here.store}; delete it there, seventy only deletes what it fetched"
        )
    freed = store.remove(here.files)
    same = "" if freed else "; another link to the same bytes remains"
    print(f"deleted {here.path.name}, freed {size(freed)}{same}")


def _row(model: local.Local) -> tuple[str, ...]:
    """What is shown of a model; its header is read."""
    from seventy.plan.here import this_machine

    quant, architecture, here = model.quant, "-", f"no: {model.problem}"
    if model.problem is None:
        try:
            with GGUF(model.path) as gguf:
                architecture = str(gguf.metadata.get("general.architecture", "-"))
                here = _here(gguf, this_machine())
                quant = quant or gguf.main_type
        except SeventyError as error:
            here = f"no: {error}"
    cells = (model.label, size(model.nbytes), quant or "-", architecture, here, model.store, str(model.path))
    return tuple(_line(cell) for cell in cells)


def _here(gguf: GGUF, machine: "Machine") -> str:
    """How fast it should be here, or why it does not run."""
    from seventy.plan.roofline import predict
    from seventy.plan.runs import why_not_file
    from seventy.plan.wanted import gguf_load
    from seventy.plan.words import number
    from seventy.runtime.memory import USUAL_CONTEXT

    if problem := why_not_file(gguf, machine):
        return f"no: {problem}"
    load = gguf_load(gguf)
    need = load.need(USUAL_CONTEXT)
    if not machine.holds(need):
        return f"no: needs {size(need.total)} of memory, {size(machine.room_bytes or 0)} are free for it"
    return f"about {number(predict(machine, load, engine='seventy').decode.mid)} tok/s"


def _known() -> list[tuple[str, ...]]:
    """The names that pull knows, with size and speed as Q4_K_M (or what a model was trained in) on this machine."""
    from seventy.catalog.models import find_model
    from seventy.catalog.names import all_names, architecture, ollama_quant
    from seventy.plan.here import this_machine
    from seventy.plan.roofline import predict
    from seventy.plan.runs import why_not_model
    from seventy.plan.wanted import catalogue_load
    from seventy.plan.words import number
    from seventy.runtime.memory import USUAL_CONTEXT

    machine = this_machine()
    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "QUANT", "HERE", "AT OLLAMA", "FROM")]
    for name in all_names():
        model, quant = find_model(name.model), ollama_quant(name)
        load = catalogue_load(name.model, quant)
        if reason := why_not_model("seventy", model, quant, architecture(name), machine):
            speed = f"no: {reason}"
        elif not machine.holds(need := load.need(USUAL_CONTEXT)):
            speed = f"no: needs {size(need.total)} of memory"
        else:
            speed = f"about {number(predict(machine, load, engine='seventy').decode.mid)} tok/s"
        where = f"hf:{name.hf_repositories[0]}" if name.hf else f"ms:{name.ms_repositories[0]}"
        at_ollama = (name.ollama_names or ("-",))[-1]
        rows.append((name.name, size(load.file_gb * 1e9), quant, speed, at_ollama, where))
    return rows


def _used(path: Path) -> int:
    """Bytes a file takes on the disk; one on its way has holes."""
    status = path.stat()
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def facts(gguf: GGUF) -> list[tuple[str, str]]:
    """Return the metadata and a summary of the tensors as rows of name and value."""
    meta = gguf.metadata
    architecture = str(meta.get("general.architecture", "not said"))
    tokens = meta.get("tokenizer.ggml.tokens")
    template = meta.get("tokenizer.chat_template")
    nbytes, counts = Counter[str](), Counter[str]()
    for tensor in gguf.tensors.values():
        name = GGML_TYPES[tensor.type].name
        nbytes[name] += tensor.nbytes
        counts[name] += 1
    rows = [
        ("name", meta.get("general.name")),
        ("architecture", architecture),
        ("file", f"{gguf.paths[0]}" + (f" and {len(gguf.paths) - 1} more" if len(gguf.paths) > 1 else "")),
        ("size", size(sum(path.stat().st_size for path in gguf.paths))),
        ("parameters", f"{sum(prod(tensor.shape) for tensor in gguf.tensors.values()) / 1e9:.3g} billion"),
        ("layers", meta.get(f"{architecture}.block_count")),
        ("context", meta.get(f"{architecture}.context_length")),
        ("width", meta.get(f"{architecture}.embedding_length")),
        ("heads", _heads(gguf, architecture)),
        ("experts", _experts(gguf, architecture)),
        ("vocabulary", f"{len(tokens)} tokens" if isinstance(tokens, GGUFArray) else None),
        ("tokenizer", " ".join(str(meta[key]) for key in _TOKENIZER if key in meta) or None),
        ("made for", _PURPOSES.get(meta.get(f"{architecture}.pooling_type", 0))),
        ("chat template", f"{len(template)} characters (--template shows it)" if isinstance(template, str) else "none"),
        ("license", meta.get("general.license")),
    ]
    rows += [(f"{name} tensors", f"{counts[name]}, {size(nbytes[name])}") for name, _ in nbytes.most_common()]
    return [(name, _line(value)) for name, value in rows if value is not None]


def prospects(gguf: GGUF) -> list[tuple[str, str]]:
    """Return the memory and speed to expect of the model here, or why it cannot be run."""
    from seventy import models as architectures
    from seventy.engine.footprint import footprint
    from seventy.plan.here import this_machine
    from seventy.plan.roofline import predict
    from seventy.plan.runs import why_not_file
    from seventy.plan.wanted import gguf_load
    from seventy.runtime.memory import USUAL_CONTEXT
    from seventy.runtime.reservations import ledger

    machine = this_machine()
    if not gguf.tensors:
        return [("runs here", "no: it has no tensors, a vocabulary at most")]
    load = gguf_load(gguf)
    reads = f"{size(1e9 * load.read_gb)} of the weights"
    if load.mixture:
        reads += f"; four texts at once, a token of each, about {size(1e9 * load.step_gb(4))}"
    rows = [("a token reads", reads)]
    if problem := why_not_file(gguf, machine):
        return [*rows, ("runs here", _line(f"no: {problem}"))]
    try:
        architecture = architectures.find(gguf.metadata.get("general.architecture"))
        config = architecture.config(gguf.metadata)
        sizes = footprint(gguf, config, architecture.caches(config))
    except SeventyError as error:
        return [*rows, ("runs here", _line(f"no: {error}"))]
    context = min(USUAL_CONTEXT, config.context)
    need, most = sizes.need(context).total, sizes.need(config.context).total
    with ledger() as memory:
        free = f"{size(memory.room)} of {size(memory.total)} are free for it"
        fits = "" if need <= memory.room else ", too little"
    rows += [("needs", f"{size(need)} with a context of {context} ({free}{fits})")]
    if config.context > context:
        rows.append(("at its limit", f"{size(most)} with a context of {config.context}"))
    band = predict(machine, load, engine="seventy").decode
    known = "measured" if machine.measured_gbs else "guessed; seventy measure knows better"
    rows.append(("speed here", f"about {band.mid:.3g} tok/s ({band.low:.3g} to {band.high:.3g}; bandwidth {known})"))
    return rows


# By how the states of a text become one.
_PURPOSES = {1: "embeddings (/v1/embeddings)", 3: "embeddings (/v1/embeddings)", 4: "ranking documents (/v1/rerank)"}
_TOKENIZER = ("tokenizer.ggml.model", "tokenizer.ggml.pre")


def _heads(gguf: GGUF, architecture: str) -> str | None:
    heads = gguf.metadata.get(f"{architecture}.attention.head_count")
    kv_heads = gguf.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    return None if heads is None else f"{heads}, {kv_heads} of keys and values"


def _experts(gguf: GGUF, architecture: str) -> str | None:
    """How many there are in a layer, and how many of them a token uses."""
    keys = ("expert_count", "expert_used_count", "expert_shared_count")
    count, used, shared = (gguf.metadata.get(f"{architecture}.{key}") for key in keys)
    if not count:
        return None
    return f"{count}, a token uses {used}" + (f" and {shared} that all tokens share" if shared else "")


def _line(value: object) -> str:
    """What a file says of itself may hold anything: one line of it, without control characters."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= 200 else f"{text[:200]} ..."


def print_rows(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their widest entry."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([f"{text:<{width}}" for text, width in zip(row, widths, strict=False)] + [row[-1]]))
