"""What runs a model: engine, architecture, tensor types, ISA. Every speed of seventy that is shown asks here first.

Memory is asked beside it (Machine.holds): what does not fit is still run by llama.cpp, slowly, from the disk.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seventy.catalog.models import Model
from seventy.catalog.quants import tensor_types
from seventy.errors import SeventyError
from seventy.gguf.source import Source
from seventy.gguf.tensors import GGML_TYPES
from seventy.plan.machine import Machine
from seventy.plan.words import say

ENGINES = ("llama.cpp", "seventy")
# ISA classes of the catalogue's CPUs for which there are kernels (jit/isa.py has x86-64 levels).
_ISAS = ("sse", "avx", "avx2", "avxvnni", "avx512", "avx512vnni", "amx")

# Files that only draft, and the architecture that they draft for.
ASSISTANT, ASSISTED = "gemma4-assistant", "gemma4"

# Tensors of a vision part that Ollama's own engine keeps in the same file.
_OF_IMAGES = ("v.", "mm.")


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why seventy cannot run something: a message key and its values."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)

    def into(self, lang: str) -> str:
        """Return the text in "en" or "zh"."""
        return say(self.key, lang, self.values)

    def __str__(self) -> str:
        return self.into("en")


def has_kernels(isa: str) -> bool:
    """Return whether seventy has kernels for CPUs of this ISA class."""
    return isa in _ISAS


def why_not(
    engine: str, architecture: str, types: Iterable[str] = (), experts: bool = False, machine: Machine | None = None
) -> Reason | None:
    """Return why `engine` cannot run a model of this architecture and these GGUF tensor types, or None if it can.

    llama.cpp is assumed to run everything: the published measurements are of it.
    """
    if architecture == ASSISTANT:
        return Reason("r_assistant")
    if engine != "seventy":
        return None
    from seventy import models
    from seventy.formats import formats

    if machine is not None and not has_kernels(machine.isa):
        return Reason("r_isa", {"isa": machine.isa})
    if architecture not in models.architectures():
        return Reason("r_architecture", {"architecture": architecture})
    if experts and _refuses_experts(architecture):
        return Reason("r_experts", {"architecture": architecture})
    known = {entry.name for entry in formats().values()}
    unknown = [name for name in dict.fromkeys(types) if name not in known]
    if unknown:
        return Reason("r_types", {"types": ", ".join(unknown)})
    return None


def why_not_model(
    engine: str, model: Model, quant: str | None, architecture: str | None = None, machine: Machine | None = None
) -> Reason | None:
    """Return why a model of the catalogue cannot be run, as `why_not`, without looking at a file."""
    types = tensor_types(quant) if quant else ()
    return why_not(engine, architecture or model.arch, types, bool(model.n_expert), machine)


def why_not_file(file: Source, machine: Machine | None = None) -> Reason | None:
    """Return why seventy cannot run an open file, or None if its header does not rule it out."""
    from seventy import models

    architecture = str(file.metadata.get("general.architecture", "not said"))
    types = (GGML_TYPES[tensor.type].name for tensor in file.tensors.values())
    if reason := why_not("seventy", architecture, types, machine=machine):
        return reason
    if any(name.startswith(_OF_IMAGES) for name in file.tensors):
        return Reason("r_images")
    try:
        models.find(architecture).config(file.metadata)
    except SeventyError as error:
        return Reason("r_file", {"error": error})
    return None


def _refuses_experts(architecture: str) -> bool:
    """Whether the module of an architecture refuses a file for having experts."""
    from seventy import models

    try:
        models.find(architecture).config({f"{architecture}.expert_count": 2})
    except SeventyError as error:
        return "does not do" in str(error)
    return False
