"""What ran by a result card, and what the prediction says of it."""

import hashlib
from collections.abc import Iterator

from seventy.bench import compare
from seventy.bench.card import Card, Result
from seventy.plan.recalibrate import Ran, expected


def runs(card: Card) -> Iterator[Ran]:
    """Return the runs in a card: seventy's, and the peer's if one ran beside it."""
    shape, machine = card.model, card.machine
    decode = min((result for result in card.results if result.what == "decode"), key=lambda r: r.depth, default=None)
    prefill = max((result for result in card.results if result.what == "prefill"), key=lambda r: r.n, default=None)
    params_b = compare.parameters(card) / 1e9
    active_b = params_b
    if shape.experts and decode:
        # Of a mixture what a token multiplies by, two operations each.
        active_b = min(params_b, decode.gops / decode.tokens_per_second.median / 2)
    name = hashlib.sha256(card.text().encode()).hexdigest()[:12]
    for engine in ("seventy", "llama.cpp"):
        speeds = [_speed(result, engine) for result in (decode, prefill)]
        if any(speeds):
            yield Ran(
                name, machine.cpu, machine.sockets, card.threads, card.isa, card.memory_limit_gbs, engine,
                compare.quant_words(card), params_b, active_b, card.weight_bytes / 1e9, shape.token_bytes / 1e9,
                shape.layers, *speeds,
            )  # fmt: skip


def _speed(result: Result | None, engine: str) -> float | None:
    """Tokens a second of seventy, or of the peer; None where it did not run."""
    if result is None:
        return None
    side = result if engine == "seventy" else result.versus
    return side.tokens_per_second.median if side else None


def expected_tok_s(card: Card) -> float | None:
    """Predict the decode of what ran of seventy; None for a card without one."""
    ran = next((each for each in runs(card) if each.engine == "seventy"), None)
    return None if ran is None or ran.decode_tok_s is None else expected(ran).decode.mid
