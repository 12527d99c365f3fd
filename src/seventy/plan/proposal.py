"""What pulling a model would bring: from which hub, in which quant and why, how large, how fast it should be here.

Nothing but lists and headers is fetched. What it says is English, as all of `pull`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seventy.catalog import names
from seventy.catalog.models import Model, find_model
from seventy.errors import SeventyError
from seventy.gguf.file import main_type
from seventy.hub import hubs
from seventy.hub.hubs import Offered
from seventy.hub.listing import Hub, Variant
from seventy.hub.names import Catalogued, Hosted
from seventy.hub.peek import peek
from seventy.hub.transfer import Say
from seventy.plan.choice import FAST_ENOUGH, LEAST_BITS, Candidate, Choice, candidates, choose
from seventy.plan.low_bits import loss_text
from seventy.plan.machine import Machine
from seventy.plan.roofline import Load
from seventy.plan.runs import Reason, why_not_file
from seventy.plan.wanted import UNKNOWN_QUANT, hosted_load, loads_by_header
from seventy.plan.words import number
from seventy.sizes import size

# A file smaller than this is fetched without a look at its header: that would take as long.
_WORTH_A_LOOK_BYTES = 200_000_000


class TooFewBits(SeventyError):
    """Only quants below 3 bits fit; `quant` is the largest of them."""

    def __init__(self, message: str, quant: str) -> None:
        self.quant = quant
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model to fetch. `problem` is why seventy cannot run it, `lines` what a person should know before."""

    title: str
    offered: Offered
    variant: Variant
    candidate: Candidate
    choice: Choice
    problem: Reason | None
    lines: tuple[str, ...]


def propose(
    wanted: Hosted | Catalogued, machine: Machine, context: int, say: Say, available: Sequence[Hub] | None = None
) -> Proposal:
    """Choose which file of a named model to download for this machine. Raises SeventyError if none can be used."""
    return proposal_of(hubs.offered(wanted, say, available), wanted, machine, context)


def proposal_of(offered: Offered, wanted: Hosted | Catalogued, machine: Machine, context: int) -> Proposal:
    """Choose which of the offered files to download; as `propose`."""
    name = wanted.name if isinstance(wanted, Catalogued) else names.of_repository(wanted.repository)
    header = None
    if name:
        model, title, architecture = find_model(name.model), name.title, names.architecture(name)
        loads = [_catalogued(model, title, variant) for variant in offered.variants]
        experts = bool(model.n_expert)
    else:
        header = peek(offered.variants[len(offered.variants) // 2].files[0])
        title, loads = loads_by_header(header, offered)
        architecture = str(header.metadata.get("general.architecture", "not said"))
        experts = bool(header.metadata.get(f"{architecture}.expert_count", 0))
    found = candidates(loads, architecture, experts, machine, context)
    only = found[0].quant if isinstance(wanted, Hosted) and wanted.file else None
    choice = choose(found, architecture, wanted.quant or only)
    chosen = choice.chosen
    if chosen is None and isinstance(wanted, Catalogued) and wanted.implied:
        # Ollama's quant, where the repository calls it otherwise.
        choice = choose([each for each in found if each.bits == 4], architecture)
        chosen = choice.chosen
    if chosen is None:
        raise _nothing(title, offered, choice, wanted.quant, machine, context)
    variant = offered.variants[chosen.index]
    problem = chosen.problem
    if problem is None and variant.nbytes > _WORTH_A_LOOK_BYTES:
        problem = why_not_file(peek(variant.files[0]))
        if problem:
            chosen = replace(candidates([chosen.load], "", False, machine, context)[0], index=chosen.index)
            choice = replace(choice, chosen=chosen)
    lines = _lines(title, offered, variant, choice, chosen, problem, machine, context)
    return Proposal(title, offered, variant, chosen, choice, problem, tuple(lines))


def _catalogued(model: Model, title: str, variant: Variant) -> Load:
    # Where no name tells the quant, its header does.
    quant = variant.quant or main_type(peek(variant.files[0]).tensors) or UNKNOWN_QUANT
    return hosted_load(model, title, quant, variant.nbytes)


def _nothing(
    title: str, offered: Offered, choice: Choice, quant: str | None, machine: Machine, context: int
) -> SeventyError:
    if quant:
        have = ", ".join(variant.quant or variant.name for variant in offered.variants)
        return SeventyError(f"{offered} has no {quant} of {title}; it has: {have}")
    if choice.smaller:
        least = choice.smaller
        loss = loss_text(least.quant, least.load.params_b)
        return TooFewBits(
            f"{title} does not fit here with {LEAST_BITS} bits or more ({_need(choice.larger, machine)}); fewer bits "
            f"write noticeably worse: if you want that, ask for it: {offered}:{least.quant} "
            f"({size(1e9 * least.load.file_gb)}). {loss + ' ' if loss else ''}A smaller model is usually better",
            least.quant,
        )
    smallest = choice.larger
    return SeventyError(
        f"no quant of {title} fits this machine with a context of {context} tokens ({_need(smallest, machine)}); take "
        f"a smaller model (seventy models --all), or name a quant to fetch it all the same: {offered}:"
        f"{smallest.quant if smallest else 'Q4_K_M'}"
    )


def _need(candidate: Candidate | None, machine: Machine) -> str:
    assert candidate is not None
    return f"{candidate.quant} needs {size(candidate.need_bytes)}, {_room(machine)}"


def _room(machine: Machine) -> str:
    if machine.room_bytes is None or machine.memory_bytes is None:
        return "memory is not known"
    return f"{size(machine.room_bytes)} of {size(machine.memory_bytes)} are free for it"


def _lines(
    title: str, offered: Offered, variant: Variant, choice: Choice, chosen: Candidate, problem: Reason | None,
    machine: Machine, context: int,
) -> list[str]:  # fmt: skip
    parts = f" in {len(variant.files)} files" if len(variant.files) > 1 else ""
    lines = [f"{title} {chosen.quant} from {offered}: {size(variant.nbytes)}{parts}"]
    if problem:
        lines.append(f"{problem}; speeds are llama.cpp's")
    known = "measured" if machine.measured_gbs else "guessed; seventy measure knows better"
    lines.append(
        f"here: {_speed(chosen)} (memory bandwidth {known}), needs {size(chosen.need_bytes)} with a "
        f"context of {context} tokens ({_room(machine)}{'' if chosen.fits else ': too little'})"
    )
    lines.append(f"why: {_WHY[choice.why].format(quant=chosen.quant)}")
    if loss := loss_text(chosen.quant, chosen.load.params_b):
        lines.append(f"note: {loss}")
    for label, other in (("smaller", choice.smaller), ("larger", choice.larger)):
        if other:
            lines.append(f"{label}: {_other(other)}")
    return lines


_WHY = {
    "q_asked": "{quant} was asked for",
    "q_four": "on a CPU bytes are seconds; {quant} is what is hardly worse than the whole model, and a larger one "
    f"would not fit or fall below {FAST_ENOUGH:.0f} tok/s",
    "q_nearest": "it is the nearest to Q4_K_M that is offered",
    "q_larger": f"it fits, and stays at {FAST_ENOUGH:.0f} tok/s or more",
    "q_smaller": "it is the largest of 3 bits or more that fits",
}


def _speed(candidate: Candidate) -> str:
    band = candidate.speed
    engine = "" if candidate.engine == "seventy" else f" with {candidate.engine}"
    return f"about {number(band.mid)} tok/s{engine} ({number(band.low)} to {number(band.high)})"


def _other(candidate: Candidate) -> str:
    fits = f"needs {size(candidate.need_bytes)}{'' if candidate.fits else ', too much'}"
    speed = f", {_speed(candidate)}" if candidate.fits else ""
    problem = f"; {candidate.problem}" if candidate.problem else ""
    return f"{candidate.quant}, {size(1e9 * candidate.load.file_gb)}, {fits}{speed}{problem}"
