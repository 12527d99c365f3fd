"""The model a person wants to run: from the catalogue, from bare numbers, or from a GGUF file."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from seventy.catalog import names
from seventy.catalog.metadata import released_metadata
from seventy.catalog.models import BITS_PER_WEIGHT, Model, find_model
from seventy.catalog.names import OLLAMA_QUANT, Name
from seventy.catalog.quants import known_quant, nominal_bits, plain, quant_of, tensor_types
from seventy.errors import SeventyError
from seventy.hub.names import Catalogued, Hosted, LocalFile, Packaged, resolve
from seventy.plan.machine import Machine
from seventy.plan.roofline import Latent, Load, guess_layers
from seventy.plan.runs import ASSISTANT, ASSISTED, Reason, why_not
from seventy.plan.words import say
from seventy.runtime.memory import MAX_MIXTURE_ROWS, MAX_ROWS, Footprint, row_columns

if TYPE_CHECKING:
    from seventy.gguf.source import Source
    from seventy.hub.hubs import Offered

# Of a model whose shape nobody says: a context and a vocabulary as most have them.
_CONTEXT, _VOCABULARY = 131072, 150_000
# A tensor of which a token reads a row and nothing else.
LEFT_IN_FILE = "per_layer_token_embd.weight"
# Of a file whose quant neither its name nor its tensors tell.
UNKNOWN_QUANT = "unknown quant"
# Architectures whose files have a block of multi-token prediction, as converters write them today.
_WITH_BLOCKS = frozenset(("qwen35", "qwen35moe", "qwen3next", "glm4moe"))
# Of architectures that the engine lacks: how many positions most layers see, and every how many-th sees all. Llama 4's
# chunks of 8192 (attention_chunk_size, no_rope_layers of config.json) hold half of that on average; the most counts.
_NEAR_LAYERS = {"llama4": (8192, 4), "gemma2": (4096, 2)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model to plan for: its load, GGUF's name of its architecture, and the name to pull it by where it has one."""

    load: Load
    architecture: str
    experts: bool = False
    name: Name | None = None

    @property
    def command(self) -> str | None:
        """The command that downloads the model, or None if it has no name."""
        return None if self.name is None else f"seventy pull {self.name.name}:{self.load.quant}"

    def reason(self, machine: Machine | None = None) -> Reason | None:
        """Return why seventy cannot run it on the machine; None if it can, or only its size is known."""
        types = tensor_types(self.load.quant) if known_quant(self.load.quant) else ()
        return why_not("seventy", self.architecture, types, self.experts, machine) if self.architecture else None

    def check(self, engine: str, lang: str, machine: Machine | None = None) -> None:
        """Raise SeventyError if the engine cannot run it on the machine: no speed may be shown then."""
        if self.architecture == ASSISTANT:
            raise SeventyError("{name}: {reason}", name=self.load.name, reason=say("r_assistant", lang))
        reason = self.reason(machine) if engine == "seventy" else None
        if reason:
            values = {"model": self.load.name, "quant": self.load.quant, "reason": reason.into(lang)}
            raise SeventyError(say("no_seventy", lang, values))

    def endings(self, engine: str, lang: str, machine: Machine | None = None) -> list[str]:
        """Return an answer's last lines: whose figures they are if not seventy's, and the command for the model."""
        reason, command = self.reason(machine), self.command
        lines = [say("only_llama_cpp", lang, {"reason": reason.into(lang)})] if reason and engine != "seventy" else []
        return lines + ([say("get_it", lang, {"command": command})] if command else [])


def bare(params_b: float | None, active_params_b: float | None, weights_gb: float | None, quant: str | None) -> Wanted:
    """Make a Wanted of a model known only by its size."""
    return Wanted(bare_load(params_b, active_params_b, weights_gb, quant or OLLAMA_QUANT), "")


def wanted(text: str, quant: str | None) -> Wanted:
    """Look up a model by a name as pull and run take it (hub/names.py); a quant in the name overrides `quant`.

    Models trained in MXFP4 (gpt-oss) are planned for in that, not in Q4_K_M. For a repository missing from the
    catalogue, a file's header is fetched. Raises SeventyError for other unknown names, AmbiguousName for a name of two
    models.
    """
    try:
        meaning = resolve(text)
    except names.AmbiguousName:
        raise
    except SeventyError:
        # The catalogue's own spellings, and what it says of names that it does not know.
        model = find_model(text)
        return Wanted(catalogue_load(text, quant or OLLAMA_QUANT), model.arch, bool(model.n_expert),
                      names.of_title(model.name))  # fmt: skip
    if isinstance(meaning, LocalFile):
        from seventy.gguf.file import GGUF

        with GGUF(meaning.path) as file:
            return of_file(file)
    found = None
    if isinstance(meaning, Packaged):
        return Wanted(catalogue_load("smollm2-135m", "Q4_1"), "llama", False)
    if isinstance(meaning, Catalogued):
        found = meaning.name
    elif isinstance(meaning, Hosted):
        found = names.of_repository(meaning.repository)
        if found is None:
            return _of_hub(meaning, quant)
    if found is None:
        model = find_model(text)
        return Wanted(catalogue_load(text, quant or OLLAMA_QUANT), model.arch, bool(model.n_expert))
    model = find_model(found.model)
    asked = _quant_of(meaning, quant)
    load = catalogue_load(model.name, names.ollama_quant(found) if asked == OLLAMA_QUANT else asked)
    if found.model != found.title:
        load = replace(load, name=found.title)
    return Wanted(load, names.architecture(found), bool(model.n_expert), found)


def _of_hub(meaning: Hosted, quant: str | None) -> Wanted:
    """A model that the catalogue lacks, by the header of one of its repository's files: nothing else is fetched."""
    from seventy.hub.hubs import offered
    from seventy.hub.peek import peek

    try:
        found = offered(meaning, lambda _: None)
        header = peek(found.variants[len(found.variants) // 2].files[0])
    except SeventyError as error:
        numbers = "--params B --active-params B --weights-gb GB"
        raise SeventyError(
            "{error}; of a model that cannot be looked at, give numbers: {numbers}",
            error=error, numbers=numbers,
        ) from None
    title, loads = loads_by_header(header, found)
    asked = _quant_of(meaning, quant)
    same = [load for load in loads if load.quant.upper() == asked.upper()]
    if not same and len(loads) > 1:
        have = ", ".join(load.quant for load in loads)
        raise SeventyError(
            "{found} has no {asked} of {title}; name one that it has with --quant: {have}",
            found=found, asked=asked, title=title, have=have,
        )
    architecture = str(header.metadata.get("general.architecture", ""))
    experts = bool(header.metadata.get(f"{architecture}.expert_count", 0))
    return Wanted((same or loads)[0], architecture, experts)


def _quant_of(meaning: object, quant: str | None) -> str:
    """The quant in a name, else the one asked for; one that a name only implies gives way to one that was asked."""
    said: str | None = getattr(meaning, "quant", None)
    if said is None or (quant and getattr(meaning, "implied", False)):
        return quant or OLLAMA_QUANT
    return said


def of_file(file: "Source") -> Wanted:
    """Make a Wanted of an open GGUF file."""
    architecture = str(file.metadata.get("general.architecture", ""))
    experts = file.metadata.get(f"{architecture}.expert_count", 0)
    return Wanted(gguf_load(file), architecture, bool(experts))


def hosted_load(model: Model, title: str, quant: str, nbytes: int) -> Load:
    """Make the load of a file whose size is known, with the shapes of a model of the catalogue."""
    near = min(model.size_gb, key=lambda q: abs(model.size_gb[q] - nbytes / 1e9))
    share = min(1.0, model.read_per_token(near) / model.size(near))
    return _catalogue_load(model, title, quant, nbytes / 1e9, nbytes / 1e9 * share)


def loads_by_header(header: "Source", offered: "Offered") -> tuple[str, list[Load]]:
    """Make the loads of a model missing from the catalogue: one file's shapes, scaled to each file's size."""
    from seventy.gguf.file import main_type

    name = header.metadata.get("general.name") or offered.repository.rpartition("/")[2] or offered.model
    title = str(name or "a model without a name")
    if not header.tensors:
        raise SeventyError(
            "the first file of {repository} holds no tensors, so that its size in memory is not known; name a file "
            "of it: {offered}/FILE.gguf",
            repository=offered.repository, offered=offered,
        )
    load, quant = gguf_load(header), main_type(header.tensors) or UNKNOWN_QUANT
    scale = [variant.nbytes / 1e9 / load.file_gb for variant in offered.variants]
    return title, [
        replace(
            load,
            name=title,
            quant=variant.quant or quant,
            file_gb=variant.nbytes / 1e9,
            read_gb=load.read_gb * by,
            footprint=replace(load.footprint, weights=round(load.footprint.weights * by)),
        )
        for variant, by in zip(offered.variants, scale, strict=True)
    ]


def catalogue_load(name: str, quant: str) -> Load:
    """Return the load of a catalogue model at a quant such as Q4_K_M."""
    model = find_model(name)
    known = {q.upper(): q for q in (*model.size_gb, *BITS_PER_WEIGHT)}
    if quant.upper() not in known:
        raise SeventyError(
            "No quant {quant!r} is known; known are {values}.",
            quant=quant, values=", ".join(dict.fromkeys(known.values())),
        )
    quant = known[quant.upper()]
    return _catalogue_load(model, model.name, quant, model.size(quant), model.read_per_token(quant))


def _catalogue_load(model: Model, name: str, quant: str, file_gb: float, read_gb: float) -> Load:
    layers = model.layers or guess_layers(model.params_b, model.active_params_b)
    expert_gb, used = _experts(model, file_gb, read_gb) if model.mixture else (0.0, 1.0)
    metadata = released_metadata(model)
    held_gb = file_gb - _left_in_file_gb(metadata, quant)
    return Load(
        name, quant, model.params_b, model.active_params_b, file_gb, read_gb,
        _catalogue_footprint(model, held_gb, layers), layers, expert_gb, used,
        _pass_share(model, file_gb, read_gb, layers), latent_of(metadata), model.arch == ASSISTED,
    )  # fmt: skip


def _pass_share(model: Model, file_gb: float, read_gb: float, layers: int) -> float:
    """What a pass of the model's block of multi-token prediction reads of what a step does; 0 where files have none.

    The block is a layer, a matrix of 2 * hidden * hidden before it, and the head.
    """
    flash = model.arch == "deepseek2" and "flash" in model.name.lower()
    if not (model.arch in _WITH_BLOCKS or flash) or not model.hidden or not model.vocabulary:
        return 0.0
    per_parameter = file_gb / model.params_b / 1e9
    head = model.hidden * model.vocabulary * per_parameter
    return min(1.0, ((read_gb - head) / layers + head + 2 * model.hidden**2 * per_parameter) / read_gb)


def _left_in_file_gb(metadata: Mapping[str, Any], quant: str) -> float:
    """GB of the embeddings of layers (Gemma 4 E2B, E4B), of which a token reads a row: they stay on the disk.

    They have the type of the embedding, which is also the head: Q6_K but in files of more or of very few bits.
    """
    keys = ("embedding_length_per_layer_input", "block_count", "vocab_size")
    arch = metadata["general.architecture"]
    width, layers, vocabulary = (int(metadata.get(f"{arch}.{key}") or 0) for key in keys)
    few = plain(quant).startswith(("IQ1", "IQ2", "IQ3_XXS"))
    each = 5.5 if few else {8: 8.5, 16: 16.0, 32: 16.0}.get(nominal_bits(quant), 6.5625)
    return width * layers * vocabulary * each / 8 / 1e9


def latent_of(metadata: Mapping[str, Any]) -> Latent | None:
    """Return the sizes of latent attention, for the arithmetic per position; None for a model without it."""
    arch = metadata.get("general.architecture")

    def number(key: str) -> int:
        value: Any = metadata.get(f"{arch}.{key}", 0)
        value = max(value, default=0) if isinstance(value, list | tuple) else value
        return int(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0

    rank, heads, layers = number("attention.kv_lora_rank"), number("attention.head_count"), number("block_count")
    layers -= number("nextn_predict_layers")
    if not rank or layers < 1:
        return None
    key, key_mla, value_mla = (
        number(f"attention.{name}") for name in ("key_length", "key_length_mla", "value_length_mla")
    )
    each = 2 * heads * layers
    return Latent(each * (key + rank), each * (key_mla + value_mla), number("attention.indexer.top_k") or None)


def _experts(model: Model, file_gb: float, read_gb: float) -> tuple[float, float]:
    """GB of a mixture's experts, and which part of a layer's a token uses.

    All but the embedding table and the experts that it does not use is read for a token. Where nobody says how many
    experts there are, all of the file is taken for experts.
    """
    metadata = released_metadata(model)
    count, used = (metadata.get(f"{model.arch}.{key}") for key in ("expert_count", "expert_used_count"))
    if not count or not used:
        return file_gb, read_gb / file_gb
    table_gb = (model.hidden or 0) * (model.vocabulary or 0) / 1e9 / model.params_b * file_gb
    return max(0.0, file_gb - read_gb - table_gb) / (1 - used / count), used / count


def _catalogue_footprint(model: Model, file_gb: float, layers: int) -> Footprint:
    kv_bytes = round((model.kv_kib_per_token or 0) * 1024)
    guessed = guess_footprint(file_gb, model.active_params_b, layers, kv_bytes)
    context, vocabulary = model.context or guessed.context, model.vocabulary or guessed.vocabulary
    columns = guessed.columns
    if model.hidden and model.queries and model.keys and (model.feed_forward or model.expert_width):
        columns = row_columns(
            model.hidden, model.queries, model.keys, model.feed_forward or 0, model.n_expert or 0, model.experts_used,
            model.expert_width or 0,
        )  # fmt: skip
    found = Footprint(
        guessed.weights, guessed.position_bytes, columns, vocabulary, context,
        max_rows=MAX_MIXTURE_ROWS if model.n_expert else MAX_ROWS,
    )  # fmt: skip
    return _with_caches(found, model)


def _with_caches(footprint: Footprint, model: Model) -> Footprint:
    """The footprint with what layers with windows and recurrent ones remember, where the catalogue knows their shape.

    The catalogue's bytes for a token count every layer as one that sees all, and are not known of each of them.
    """
    if model.arch in _NEAR_LAYERS:
        positions, whole_every = _NEAR_LAYERS[model.arch]
        whole = footprint.position_bytes // whole_every
        return replace(
            footprint, position_bytes=whole, window=positions, window_bytes=footprint.position_bytes - whole
        )  # fmt: skip
    metadata = released_metadata(model)
    if not any(f"{model.arch}.{key}" in metadata for key in ("ssm.time_step_rank", "attention.sliding_window")):
        return footprint
    # Only such models need what the engine imports.
    from seventy import models
    from seventy.cache.pages import paged, shared_by
    from seventy.cache.spec import Recurrent

    architecture = models.find(model.arch)
    try:
        specs = architecture.caches(architecture.config(metadata))
    except SeventyError:
        # Of some models the catalogue knows a part of the numbers only.
        return footprint
    recurrent = [spec for spec in specs if isinstance(spec, Recurrent)]
    windows = [spec for spec in paged(specs).values() if spec.window is not None]
    return replace(
        footprint,
        position_bytes=sum(spec.position_bytes("f16") for spec in paged(specs).values() if spec.window is None),
        state_bytes=sum(spec.nbytes for spec in recurrent),
        state_log_bytes=sum(spec.log_bytes for spec in recurrent),
        window=max((spec.window or 0 for spec in windows), default=0),
        window_bytes=sum(spec.position_bytes("f16") for spec in windows),
        shared_bytes=sum(spec.position_bytes("f16") for spec in shared_by(specs) if spec.window is None),
        shared_window_bytes=sum(spec.position_bytes("f16") for spec in shared_by(specs) if spec.window is not None),
    )


def guess_footprint(file_gb: float, active_params_b: float, layers: int, kv_bytes_per_token: int = 0) -> Footprint:
    """Guess the memory of a model of unknown shape, with widths that dense models of its size have."""
    # Layers of 12.7 hidden^2 parameters, queries as wide as hidden, feed-forwards of 3.5 times that (Llama 3's).
    hidden = round(math.sqrt(active_params_b * 1e9 / layers / 12.7))
    columns = row_columns(hidden, hidden, hidden // 4, round(3.5 * hidden))
    return Footprint(round(file_gb * 1e9), kv_bytes_per_token, columns, _VOCABULARY, _CONTEXT)


def weights_gb(gb: float | None, gib: float | None) -> float | None:
    """Return the size given with --weights-gb, or with --weights-gib in units of 2^30 bytes."""
    return gib * 2**30 / 1e9 if gb is None and gib is not None else gb


def bare_load(params_b: float | None, active_params_b: float | None, weights_gb: float | None, quant: str) -> Load:
    """Make the load of a model known only by its parameters (in billions) and weights (GB of 10^9 bytes)."""
    if params_b is None or weights_gb is None:
        raise SeventyError("A bare model needs both --params (billions) and --weights-gb (size of the weights).")
    if params_b <= 0 or weights_gb <= 0:
        raise SeventyError(
            "--params {params_b:g} and --weights-gb {weights_gb:g} must both be more than zero.",
            params_b=params_b, weights_gb=weights_gb,
        )
    active = active_params_b if active_params_b is not None else params_b
    if not 0 < active <= params_b:
        raise SeventyError(
            "--active-params {active:g} must be more than zero and at most --params {params_b:g}.",
            active=active, params_b=params_b,
        )
    layers = guess_layers(params_b, active)
    return Load(
        f"{params_b:g}B model", quant, params_b, active, weights_gb, weights_gb * active / params_b,
        guess_footprint(weights_gb, active, layers), layers, weights_gb, active / params_b,
    )  # fmt: skip


def _pass_gb(file: "Source", layers: int, used_share: float) -> float:
    """GB that a pass of a file's block of multi-token prediction reads; 0 without one."""
    tensors = file.tensors
    if f"blk.{layers}.nextn.eh_proj.weight" not in tensors:
        return 0.0
    own = (tensor for name, tensor in tensors.items() if name.startswith(f"blk.{layers}."))
    read = sum(tensor.nbytes * (used_share if "_exps" in tensor.name else 1) for tensor in own)
    names = (f"blk.{layers}.nextn.shared_head_head.weight", "output.weight", "token_embd.weight")
    head = 0 if names[0] in tensors else next((tensors[name].nbytes for name in names[1:] if name in tensors), 0)
    return (read + head) / 1e9


def gguf_load(file: "Source") -> Load:
    """Make the load of an open GGUF file: sizes from its tensors, other memory as the engine counts it.

    For an architecture that the engine cannot run, the metadata are used.
    """
    if not file.tensors:
        raise SeventyError("{path} has no tensors, a vocabulary at most; get the whole model", path=file.path)
    meta, arch = file.metadata, str(file.metadata.get("general.architecture", ""))

    def number(key: str, otherwise: float) -> float:
        """What the file says, of a list (one figure per layer) the highest; `otherwise` where it is no number."""
        value: Any = meta.get(f"{arch}.{key}")
        if hasattr(value, "__len__") and not isinstance(value, str):
            value = max(value, default=None)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else otherwise

    experts, used = number("expert_count", 0), number("expert_used_count", 0)
    # An assistant calls all its blocks so.
    layers = int(number("block_count", 0) - number("nextn_predict_layers", 0) or number("block_count", 0))
    total = expert = table = elements = expert_elements = idle = idle_elements = 0.0
    for tensor in file.tensors.values():
        size, count = float(tensor.nbytes), 1.0
        for dimension in tensor.shape:
            count *= dimension
        total, elements = total + size, elements + count
        # Blocks after the layers are for multi-token prediction, and not run; nor is an indexer of keys.
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        if (block and int(block[1]) >= layers > 0) or ".indexer." in tensor.name:
            idle, idle_elements = idle + size, idle_elements + count
        elif "_exps" in tensor.name:
            expert, expert_elements = expert + size, expert_elements + count
        elif tensor.name == "token_embd.weight" and "output.weight" in file.tensors:
            table = size
        elif tensor.name == LEFT_IN_FILE:
            # A token reads a row of it.
            idle, idle_elements = idle + size, idle_elements + count
    share = min(1.0, used / experts) if experts else 1.0
    pass_gb = _pass_gb(file, layers, share)
    layers = layers if layers > 0 else guess_layers(elements / 1e9)
    heads = number("attention.head_count", 1)
    kv_heads = number("attention.head_count_kv", heads)
    head_width = number("attention.key_length", number("embedding_length", 0) / max(heads, 1))
    path = PurePath(file.path)
    active_b = (elements - idle_elements - expert_elements * (1 - share)) / 1e9
    footprint = _engine_footprint(file)
    if footprint is None:
        footprint = guess_footprint(total / 1e9, active_b, layers, round(layers * kv_heads * head_width * 2 * 2))
    read_gb = (total - idle - table - expert * (1 - share)) / 1e9
    return Load(
        str(meta.get("general.name", path.name)), quant_of(path.stem) or path.stem, elements / 1e9, active_b,
        total / 1e9, read_gb, footprint, layers, expert / 1e9, share, min(1.0, pass_gb / max(1e-9, read_gb)),
        latent_of(meta), arch == ASSISTED,
    )  # fmt: skip


def _engine_footprint(file: "Source") -> Footprint | None:
    """The engine's account; None where it cannot run the file."""
    # Only files need the engine; plan and predict do without what it imports.
    from seventy import models
    from seventy.engine.footprint import footprint

    try:
        architecture = models.find(file.metadata.get("general.architecture"))
        config = architecture.config(file.metadata)
        return footprint(file, config, architecture.caches(config))
    except SeventyError:
        return None
