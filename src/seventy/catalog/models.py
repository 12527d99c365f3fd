"""The models of the catalogue, by any of their names."""

from functools import cache

from seventy.catalog.names import all_names, close, key, meaning
from seventy.catalog.shapes import BITS_PER_WEIGHT, Model, all_models
from seventy.errors import SeventyError
from seventy.language import either, t

__all__ = ["BITS_PER_WEIGHT", "Model", "all_models", "find_model"]


@cache
def _by_key() -> dict[str, Model]:
    """The models by their own names and by all that names.csv calls them."""
    rows = {model.name: model for model in all_models()}
    found: dict[str, Model] = {key(name): model for name, model in rows.items()}
    for name in all_names():
        for text in (name.name, *name.other_names):
            found.setdefault(key(text), rows[name.model])
    return found


def find_model(name: str) -> Model:
    """Return the model of this name, in any usual spelling or Ollama's; 70b alone means Llama 3.3 70B."""
    models = _by_key()
    wanted = key(name)
    if wanted in models:
        return models[wanted]
    if at_ollama := meaning(name):
        return models[key(at_ollama.name.name)]
    starting = [text for text in models if text.startswith(wanted) or wanted in text]
    if len({models[text].name for text in starting}) == 1:
        return models[starting[0]]
    names = close(name)
    hint = t("did you mean {names}?", names=either(names)) if names else t("see `seventy plan --models`.")
    raise SeventyError(
        "The catalogue has no model {name!r}; {hint} A model it lacks: --params B --active-params B --weights-gb GB.",
        name=name, hint=hint,
    )
