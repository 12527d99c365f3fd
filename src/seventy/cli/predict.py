"""`seventy predict`: how fast a model would run on a machine one may not own."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seventy.errors import SeventyError
from seventy.language import either

if TYPE_CHECKING:
    from seventy.plan import wanted

ENGINES = ("llama.cpp", "seventy")


def predict(
    file: Annotated[
        str | None, typer.Argument(help="A GGUF file or a model's name, instead of --model or --params.")
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(help="CPU, as the box says it; or a machine: HP Z440 + E5-2680 v4 + 4x16@2400.")
    ] = None,
    sockets: Annotated[int, typer.Option(min=1, max=8, help="CPUs of this name.")] = 1,
    memory: Annotated[str | None, typer.Option(help="Modules x GB @ MT/s: 4x16@2400.")] = None,
    here: Annotated[bool, typer.Option("--here", help="This machine, as measured.")] = False,
    model: Annotated[str | None, typer.Option(help="A model's name, as pull takes it.")] = None,
    quant: Annotated[str | None, typer.Option(help="Q8_0, ...; Q4_K_M when neither this nor the name says.")] = None,
    params: Annotated[
        float | None, typer.Option(help="Parameters in billions, for a model that is not in the catalogue.")
    ] = None,
    active_params: Annotated[float | None, typer.Option(help="Active parameters in billions (MoE).")] = None,
    weights_gb: Annotated[float | None, typer.Option(help="Size of the weights in GB.")] = None,
    weights_gib: Annotated[float | None, typer.Option(hidden=True)] = None,
    engine: Annotated[str, typer.Option(help="llama.cpp or seventy.")] = "llama.cpp",
    draft: Annotated[str | None, typer.Option(help="A draft model's name, as pull takes it, or its file.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens already in the KV cache.")] = 1000,
    users: Annotated[int, typer.Option(min=1, help="Users whose answers are written at once.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads (default: every core).")] = None,
    ssd_gbs: Annotated[float, typer.Option(help="What the SSD reads, GB/s, where the model does not fit.")] = 3.0,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    lang: Annotated[str | None, typer.Option(help="en or zh (default: the locale's).")] = None,
) -> None:
    """Predict decode and prefill speed of a model on a CPU machine: low, mid, high, and why."""
    from seventy.language import language
    from seventy.plan import answers, drafts, low_bits, runs, wanted
    from seventy.plan import here as this
    from seventy.plan.owned import machine_from_words
    from seventy.plan.roofline import predict as roofline

    if engine not in ENGINES:
        raise SeventyError(
            "--engine {engine!r} is not known; it is {engines}.",
            engine=engine, engines=either(ENGINES),
        )
    size = wanted.weights_gb(weights_gb, weights_gib)
    want = _wanted(file, model or "llama-3.3-70b", quant, params, active_params, size)
    if here:
        machine = this.this_machine()
    elif cpu is not None or memory is not None:
        machine = machine_from_words(cpu or "unknown CPU", sockets, memory, ssd_gbs)
    else:
        raise SeventyError("Which machine? Give --cpu NAME --memory 4x16@2400, or --here for this one.")
    speak = language(lang)
    want.check(engine, speak, machine)
    small = wanted.wanted(draft, quant) if draft is not None else None
    if small is not None and (engine != "seventy" or users > 1):
        raise SeventyError("--draft is predicted for --engine seventy and one user.")
    if small is not None and small.architecture == runs.ASSISTANT and want.architecture != runs.ASSISTED:
        raise SeventyError(
            "--draft {draft} drafts for Gemma 4 only, and {name} is another model.",
            draft=draft, name=want.load.name,
        )
    found = roofline(machine, want.load, context, engine, threads, users=users)
    if json_out:
        reason = want.reason(machine)
        about = low_bits.fit_json(want, engine, machine, context, users)
        about |= {"seventy_cannot": reason and reason.into(speak), "get": want.command}
        about |= answers.drafts_json(found)
        print(json.dumps(answers.as_json(found, speak) | about, ensure_ascii=False, indent=2))
        return
    said = drafts.lines(found, speak, small is not None)
    if small is not None and said:
        said.append(drafts.with_model(found, small.load, speak))
    said += low_bits.endings(want, engine, speak, machine, context, users)
    print("\n".join([answers.as_text(found, speak), *said, *want.endings(engine, speak, machine)]))
    for warning in answers.warnings(found, speak):
        print(warning, file=sys.stderr)


def _wanted(
    file: str | None, model: str, quant: str | None,
    params: float | None, active_params: float | None, size: float | None,
) -> "wanted.Wanted":
    """The model of a GGUF file, of a size in figures, or of a name that `pull` takes."""
    from seventy.gguf.file import GGUF
    from seventy.plan import wanted

    if file is not None and Path(file).exists():
        with GGUF(file) as gguf:
            return wanted.of_file(gguf)
    if params is not None or size is not None:
        return wanted.bare(params, active_params, size, quant)
    return wanted.wanted(file or model, quant)
