"""What drafted tokens gain on a machine: a range for each kind of text, and the sentence a buyer needs.

A step carries guessed tokens as further rows and keeps those that were right. A row costs what the cores take for it;
while they wait for memory anyway that is nearly nothing. So the gain is how often guesses are right, which depends on
the text, against what a step of more rows takes, which depends on the machine. The engine measures both while it runs
and guesses nothing where that does not pay: guesses that are all wrong cost 2 % of a text's time at most, those of a
draft model that was right before four steps more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seventy.language import listed, said, t
from seventy.plan.machine import Machine
from seventy.plan.roofline import Band, Load, Prediction, predict
from seventy.plan.words import number, say

# The most tokens guessed of a text at once, as of engine/governor.py.
_MOST = 15
# What a row takes of a step even where cores wait for memory: norms, attention, choosing its token. 70B shapes of
# four layers, 2 cores of Zen 4: 4 rows take 1.0 to 1.1 times one.
_ROW_SHARE = 0.02
# CPUs of so many cores and memory so much faster are what the buyer's sentence compares.
_MORE_CORES, _FASTER_MEMORY = 2.0, 1.25


@dataclass(frozen=True, slots=True)
class Guessing:
    """How predictable a kind of text is, from low to high.

    `repeated` is the share of tokens that occurred before, `right` how often a guess of those is right.
    """

    repeated: tuple[float, float]
    right: tuple[float, float]


# By lookup: a file copied with a few lines changed; chats and answers about a text; new prose, which repeats next to
# nothing. Chosen around what benchmarks/drafts.py saw with two small models (docs/lab.md): of guesses 93 to 100 %, 58 %
# and 50 to 62 % were right, and guesses that were right were 83 to 89 %, 8 % and 1 to 5 % of the tokens.
KINDS: Mapping[str, Guessing] = {
    "edit": Guessing((0.8, 0.93), (0.9, 0.98)),
    "chat": Guessing((0.03, 0.2), (0.5, 0.7)),
    "prose": Guessing((0.0, 0.05), (0.3, 0.6)),
}

# How many guesses of a draft model, or of a model's own block, the sentence about it takes to be right: an assumption,
# which it says.
RIGHT_BY_MODEL = (0.6, 0.8)


def step_seconds(machine: Machine, load: Load, rows: int, context: int = 1000, users: int = 1) -> float:
    """Return the seconds of a step with so many tokens of each user's text of `context` tokens."""
    # Rows of one text share its cache: that of each of as many users with texts as much shorter.
    seconds = 1 / predict(machine, load, max(1, context // rows), "seventy", users=users * rows).decode.mid
    return seconds * (1 + _ROW_SHARE * users * (rows - 1))


def gain(
    machine: Machine, load: Load, right: float, context: int = 1000, pass_share: float = 0.0, users: int = 1
) -> float:
    """Return how many times as fast texts are written whose next token is guessed right so often.

    The best number of guesses is taken, none where that is best. `pass_share` is what a pass of a draft model takes of
    a step of one token; guesses by lookup take nothing.
    """
    one, best = step_seconds(machine, load, 1, context, users), 1.0
    expected = 1.0
    for n in range(1, _MOST + 1):
        expected += right**n
        best = max(best, expected * one / (step_seconds(machine, load, 1 + n, context, users) + n * pass_share * one))
    return best


def speeds(machine: Machine, load: Load, context: int = 1000, users: int = 1) -> dict[str, Band]:
    """Return tokens a second with drafts by lookup for each kind of text, of each of `users` who write at once."""
    plain = predict(machine, load, context, "seventy", users=users).decode.mid
    found = {}
    for kind, guessing in KINDS.items():
        low, high = (
            plain / (1 - repeated + repeated / gain(machine, load, right, context, users=users))
            for repeated, right in zip(guessing.repeated, guessing.right, strict=True)
        )
        found[kind] = Band(low, (low + high) / 2, high)
    return found


def of(found: Prediction) -> dict[str, Band]:
    """Return the speeds with drafts where something is predicted of this engine; else nothing."""
    has = found.engine == "seventy" and found.fits
    return speeds(found.machine, found.load, found.context, found.users) if has else {}


def lines(found: Prediction, lang: str = "en", with_draft: bool = False) -> list[str]:
    """Say what drafts gain here, by kind of text; of one user, whether cores or memory would gain more, too.

    `with_draft` says that a draft model was named, of which `with_model` speaks.
    """
    kinds, bands = [], of(found)
    if found.users > 1 and bands and max(band.high for band in bands.values()) < 1.05 * found.decode.mid:
        return [say("draft_users_nothing", lang, {"users": found.users})]
    for kind, band in bands.items():
        figures = f"{number(band.low)}-{number(band.high)}"
        if band.high < 1.05 * found.decode.mid:
            nothing = say("draft_nothing", lang)
            figures = said(t("{figure} ({about})", figure=number(found.decode.mid), about=nothing), lang)
        kinds.append(f"{say(f'draft_{kind}', lang)} {figures}")
    if not kinds:
        return []
    if found.users > 1:
        return [say("draft_users", lang, {"users": found.users, "kinds": listed(kinds)})]
    answer = [say("draft_line", lang, {"kinds": listed(kinds)}), buyer(found.machine, found.load, found.context, lang)]
    if found.load.pass_share:
        answer.append(_passes("draft_block", found, found.load.pass_share, lang))
    elif found.load.assisted and not with_draft:
        answer.append(say("draft_assistant", lang, {"name": "…-assistant"}))
    return answer


def with_model(found: Prediction, draft: Load, lang: str = "en") -> str:
    """Say what a draft model gives where `RIGHT_BY_MODEL` of its guesses are right."""
    one = step_seconds(found.machine, found.load, 1, found.context)
    share = step_seconds(found.machine, draft, 1, found.context) / one
    return _passes("draft_model", found, share, lang, draft=draft.name)


def _passes(message: str, found: Prediction, share: float, lang: str, **values: object) -> str:
    """Say what guesses give that take a pass each, of this share of a step."""
    one = step_seconds(found.machine, found.load, 1, found.context)
    low, high = (gain(found.machine, found.load, right, found.context, share) / one for right in RIGHT_BY_MODEL)
    few, many = (round(100 * right) for right in RIGHT_BY_MODEL)
    values |= {"few": few, "many": many, "low": low, "high": high, "share": f"{100 * share:.0f}"}
    return say(message, lang, values)


def buyer(machine: Machine, load: Load, context: int = 1000, lang: str = "en") -> str:
    """Say whether twice the cores or memory a quarter faster would write more of a text that drafts guess well."""
    four = step_seconds(machine, load, 4, context) / step_seconds(machine, load, 1, context)
    now = speeds(machine, load, context)["edit"].mid
    faster = None if machine.measured_gbs is None else machine.measured_gbs * _FASTER_MEMORY
    gops = None if machine.measured_int8_gops is None else machine.measured_int8_gops * _MORE_CORES
    more = replace(machine, cores=round(machine.cores * _MORE_CORES), measured_int8_gops=gops)
    quick = replace(machine, peak_gbs=machine.peak_gbs * _FASTER_MEMORY, measured_gbs=faster)
    cores, memory = (speeds(each, load, context)["edit"].mid for each in (more, quick))
    best = "none" if max(cores, memory) < 1.1 * now else "cores" if cores > memory else "memory"
    values = {"four": f"{four:.2f}", "cores": cores, "memory": memory, "best": say(f"draft_best_{best}", lang)}
    return say("draft_rows", lang, values)
