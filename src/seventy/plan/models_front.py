"""Which models a machine runs well: the front of published quality and predicted speed among those that fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from seventy.catalog import names
from seventy.catalog.names import Name, all_names
from seventy.catalog.quality import Quality, quality_of
from seventy.language import LANGUAGES
from seventy.plan.machine import Machine
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.runs import why_not_model
from seventy.plan.wanted import catalogue_load
from seventy.plan.words import say
from seventy.runtime.memory import USUAL_CONTEXT

QUANT = "Q4_K_M"
# Slower than this nobody reads along.
LEAST_TOK_S = 1.0
# About as fast as people read.
READING_TOK_S = 5.0
# A model that is within this much of another's score is not better by it.
SAME_SCORE = 1.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model for a machine; `seventy` says whether this project's own engine runs it."""

    name: Name
    load: Load
    prediction: Prediction
    quality: Quality
    seventy: bool

    @property
    def title(self) -> str:
        """Its name, with a mark where only llama.cpp runs it."""
        return self.name.title if self.seventy else f"{self.name.title} (llama.cpp)"

    @property
    def values(self) -> dict[str, object]:
        """The values for messages about it."""
        thinks = {lang: say("thinks", lang) for lang in LANGUAGES} if self.quality.mode == "thinking" else ""
        return {"model": self.title, "quant": self.load.quant, "metric": self.quality.metric,
                "score": self.quality.score, "thinks": thinks}  # fmt: skip


@cache
def _scored() -> tuple[tuple[Name, Quality, Load], ...]:
    """The models with a published score and a known size."""
    found = []
    for name in all_names():
        quality, model = quality_of(name.name), names.shape(name)
        if quality is not None and QUANT in model.size_gb:
            found.append((name, quality, catalogue_load(model.name, QUANT)))
    return tuple(found)


def suggestions(machine: Machine, engine: str, context: int = USUAL_CONTEXT, users: int = 1) -> list[Suggestion]:
    """List the models that fit and that no other beats in both score and speed, best score first.

    Models without a published score are not compared. Each is listed once.
    """
    found = []
    for name, quality, load in _scored():
        model = names.shape(name)
        if why_not_model(engine, model, QUANT) or not machine.holds(load.need(max(context, USUAL_CONTEXT), users)):
            continue
        prediction = predict(machine, load, context, engine, users=users)
        if prediction.decode.mid >= LEAST_TOK_S:
            runs = why_not_model("seventy", model, QUANT, machine=machine) is None
            found.append(Suggestion(name, load, prediction, quality, runs))
    front: list[Suggestion] = []
    for each in sorted(found, key=lambda each: (-each.quality.score, -each.prediction.decode.mid)):
        if front and each.prediction.decode.mid <= 1.05 * front[-1].prediction.decode.mid:
            continue
        if front and front[-1].quality.score - each.quality.score <= SAME_SCORE:
            front.pop()
        front.append(each)
    return front


def readable(found: Sequence[Suggestion]) -> Suggestion | None:
    """Return the model with the best score that writes at reading speed, else the fastest."""
    quick = [each for each in found if each.prediction.decode.mid >= READING_TOK_S]
    return quick[0] if quick else found[-1] if found else None
