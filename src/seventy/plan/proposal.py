"""What pulling a model would bring: from which hub, in which quant and why, how large, how fast it should be here.

Nothing but lists and headers is fetched. What it says is English, as all of `pull`.
"""

from dataclasses import dataclass, replace

from seventy.catalog import names
from seventy.catalog.models import Model, find_model
from seventy.errors import SeventyError
from seventy.gguf.file import main_type
from seventy.hub import hubs
from seventy.hub.hubs import Offered
from seventy.hub.listing import Variant
from seventy.hub.names import Catalogued, Hosted
from seventy.hub.peek import peek
from seventy.hub.transfer import Say
from seventy.language import listed, t
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


def propose(wanted: Hosted | Catalogued, machine: Machine, context: int, say: Say) -> Proposal:
    """Choose which file of a named model to download for this machine. Raises SeventyError if none can be used."""
    return proposal_of(hubs.offered(wanted, say), wanted, machine, context)


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
        architecture = str(header.metadata.get("general.architecture", t("not said")))
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
        return SeventyError(
            "{offered} has no {quant} of {title}; it has: {have}",
            offered=offered, quant=quant, title=title, have=have,
        )
    if choice.smaller:
        least = choice.smaller
        loss = loss_text(least.quant, least.load.params_b)
        return TooFewBits(
            t(
                "{title} does not fit here with {least_bits} bits or more ({larger}); fewer bits write noticeably "
                "worse: if you want that, ask for it: {offered}:{quant} ({file_gb}). {loss}A smaller model is "
                "usually better",
                title=title, least_bits=LEAST_BITS, larger=_need(choice.larger, machine), offered=offered,
                quant=least.quant, file_gb=size(1e9 * least.load.file_gb), loss=loss + " " if loss else "",
            ),
            least.quant,
        )
    smallest = choice.larger
    return SeventyError(
        "no quant of {title} fits this machine with a context of {context} tokens ({smallest}); take a smaller model "
        "(seventy models --all), or name a quant to fetch it all the same: {offered}:{quant}",
        title=title, context=context, smallest=_need(smallest, machine), offered=offered,
        quant=smallest.quant if smallest else "Q4_K_M",
    )


def _need(candidate: Candidate | None, machine: Machine) -> str:
    assert candidate is not None
    return t(
        "{quant} needs {need_bytes}, {room}",
        quant=candidate.quant, need_bytes=size(candidate.need_bytes), room=_room(machine),
    )


def _room(machine: Machine) -> str:
    if machine.room_bytes is None or machine.memory_bytes is None:
        return t("memory is not known")
    return t(
        "{room_bytes} of {memory_bytes} are free for it",
        room_bytes=size(machine.room_bytes), memory_bytes=size(machine.memory_bytes),
    )


def _lines(
    title: str, offered: Offered, variant: Variant, choice: Choice, chosen: Candidate, problem: Reason | None,
    machine: Machine, context: int,
) -> list[str]:  # fmt: skip
    parts = t(" in {files_count} files", files_count=len(variant.files)) if len(variant.files) > 1 else ""
    lines = [t(
        "{title} {quant} from {offered}: {size}{parts}",
        title=title, quant=chosen.quant, offered=offered, size=size(variant.nbytes), parts=parts,
    )]
    if problem:
        lines.append(t("{problem}; speeds are llama.cpp's", problem=problem))
    known = t("measured") if machine.measured_gbs else t("guessed; seventy measure knows better")
    lines.append(
        t(
            "here: {chosen} (memory bandwidth {known}), needs {need_bytes} with a context of {context} tokens "
            "({room}{little})",
            chosen=_speed(chosen), known=known, need_bytes=size(chosen.need_bytes), context=context,
            room=_room(machine), little="" if chosen.fits else t(": too little"),
        )
    )
    lines.append(t("why: {why}", why=t(_WHY[choice.why], quant=chosen.quant, fast=FAST_ENOUGH)))
    if loss := loss_text(chosen.quant, chosen.load.params_b):
        lines.append(t("note: {loss}", loss=loss))
    for label, other in ((t("smaller"), choice.smaller), (t("larger"), choice.larger)):
        if other:
            lines.append(t("{label}: {other}", label=label, other=_other(other)))
    return lines


_WHY = {
    "q_asked": t("{quant} was asked for"),
    "q_four": t(
        "on a CPU bytes are seconds; {quant} is what is hardly worse than the whole model, and a larger one would not "
        "fit or fall below {fast:.0f} tok/s"
    ),
    "q_nearest": t("it is the nearest to Q4_K_M that is offered"),
    "q_larger": t("it fits, and stays at {fast:.0f} tok/s or more"),
    "q_smaller": t("it is the largest of 3 bits or more that fits"),
}


def _speed(candidate: Candidate) -> str:
    band = candidate.speed
    engine = "" if candidate.engine == "seventy" else t(" with {engine}", engine=candidate.engine)
    return t(
        "about {mid} tok/s{engine} ({low} to {high})",
        mid=number(band.mid), engine=engine, low=number(band.low), high=number(band.high),
    )


def _other(candidate: Candidate) -> str:
    needs = t("needs {bytes}", bytes=size(candidate.need_bytes))
    fits = _speed(candidate) if candidate.fits else t("too much")
    known = listed([candidate.quant, size(1e9 * candidate.load.file_gb), needs, fits])
    return t("{first}; {second}", first=known, second=candidate.problem) if candidate.problem else known
