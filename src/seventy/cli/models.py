from collections import Counter
from collections.abc import Iterable
from math import prod

import typer

from seventy.errors import SeventyError
from seventy.gguf.arrays import GGUFArray
from seventy.gguf.file import GGUF
from seventy.gguf.tensors import GGML_TYPES
from seventy.hub import store
from seventy.sizes import size

app = typer.Typer(help="The models on this machine, and what is in one.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the models that are here or can be pulled by name; `seventy models info FILE` shows one."""
    if context.invoked_subcommand is not None:
        return
    rows = []
    known = {store.folder() / model.file: model for model in store.MODELS.values()}
    for path, model in known.items():
        where = str(path) if path.exists() else f"not here yet; seventy pull {model.name}"
        rows.append((model.name, size(model.nbytes), model.license, where))
    for path in store.present():
        if path not in known:
            rows.append((path.name, size(path.stat().st_size), "", str(path)))
    print_rows(rows)


@app.command()
def info(
    model: str = typer.Argument(..., help="A .gguf file, the first of a split model, or a name of `seventy models`."),
    template: bool = typer.Option(False, help="Show the chat template and nothing else."),
) -> None:
    """What a model file holds; nothing of it is loaded."""
    with GGUF(store.find(model)) as gguf:
        if template:
            print(gguf.metadata.get("tokenizer.chat_template", ""))
        else:
            print_rows([*facts(gguf), *prospects(gguf)])


def facts(gguf: GGUF) -> list[tuple[str, str]]:
    """What the metadata and the tensor list say, as rows of name and value."""
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
        ("experts", meta.get(f"{architecture}.expert_count")),
        ("vocabulary", f"{len(tokens)} tokens" if isinstance(tokens, GGUFArray) else None),
        ("tokenizer", " ".join(str(meta[key]) for key in _TOKENIZER if key in meta) or None),
        ("chat template", f"{len(template)} characters (--template shows it)" if isinstance(template, str) else "none"),
        ("license", meta.get("general.license")),
    ]
    rows += [(f"{name} tensors", f"{counts[name]}, {size(nbytes[name])}") for name, _ in nbytes.most_common()]
    return [(name, _line(value)) for name, value in rows if value is not None]


def prospects(gguf: GGUF) -> list[tuple[str, str]]:
    """What running the model here would need and how fast it should be, or why it cannot be run."""
    from seventy import models as architectures
    from seventy.engine.footprint import footprint
    from seventy.plan.here import this_machine
    from seventy.plan.roofline import predict
    from seventy.plan.wanted import gguf_load
    from seventy.runtime.memory import USUAL_CONTEXT
    from seventy.runtime.reservations import ledger

    try:
        architecture = architectures.find(gguf.metadata.get("general.architecture"))
        config = architecture.config(gguf.metadata)
        sizes = footprint(gguf, config, architecture.caches(config))
        load = gguf_load(gguf)
    except SeventyError as error:
        return [("runs here", _line(f"no: {error}"))]
    context = min(USUAL_CONTEXT, config.context)
    need, most = sizes.need(context).total, sizes.need(config.context).total
    with ledger() as memory:
        free = f"{size(memory.room)} of {size(memory.total)} are free for it"
        fits = "" if need <= memory.room else ", too little"
    rows = [("needs", f"{size(need)} with a context of {context} ({free}{fits})")]
    if config.context > context:
        rows.append(("at its limit", f"{size(most)} with a context of {config.context}"))
    machine = this_machine()
    band = predict(machine, load, engine="seventy").decode
    known = "measured" if machine.measured_gbs else "guessed; seventy measure knows better"
    rows.append(("speed here", f"about {band.mid:.3g} tok/s ({band.low:.3g} to {band.high:.3g}; bandwidth {known})"))
    return rows


_TOKENIZER = ("tokenizer.ggml.model", "tokenizer.ggml.pre")


def _heads(gguf: GGUF, architecture: str) -> str | None:
    heads = gguf.metadata.get(f"{architecture}.attention.head_count")
    kv_heads = gguf.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    return None if heads is None else f"{heads}, {kv_heads} of keys and values"


def _line(value: object) -> str:
    """What a file says of itself may hold anything: one line of it, without control characters."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= 200 else f"{text[:200]} ..."


def print_rows(rows: Iterable[tuple[str, ...]]) -> None:
    """Columns as wide as their widest entry."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([f"{text:<{width}}" for text, width in zip(row, widths, strict=False)] + [row[-1]]))
