"""A roofline: what memory and arithmetic allow over operations per byte of weights, and where a run's points lie.

Williams, Waterman, Patterson 2009, https://doi.org/10.1145/1498765.1498785. SVG is written here, PNG by matplotlib.
"""

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from seventy.bench.card import Card
from seventy.errors import SeventyError

_WIDTH, _HEIGHT = 900, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 64, 64
_INK, _FAINT, _OURS, _THEIRS = "#222", "#ddd", "#0b62c4", "#c2410c"
_LIMIT = "#555"


@dataclass(frozen=True, slots=True)
class Point:
    """Operations per byte, GOPS, what it is and whose."""

    x: float
    y: float
    label: str
    ours: bool


def points(card: Card) -> list[Point]:
    found = []
    for result in card.results:
        found.append(Point(result.operations_per_byte, result.gops, result.label, True))
        if result.versus:
            gops = result.gops * result.versus.tokens_per_second.median / result.tokens_per_second.median
            found.append(Point(result.operations_per_byte, gops, result.label, False))
    return found


def write(card: Card, path: Path, title: str) -> None:
    """Write the plot in the format of the file's suffix. Raises SeventyError if that is not possible."""
    check(path)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(svg(card, title), encoding="utf-8")
        else:
            _png(card, path, title)
    except OSError as error:
        raise SeventyError(
            "cannot write {path}: {reason}; take another place for --plot",
            path=path, reason=error.strerror,
        ) from None


def check(path: Path) -> None:
    """Raise SeventyError if `write` could not write such a file. Called before anything is measured."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise SeventyError("--plot {path} is neither .svg nor .png; name the file accordingly", path=path)
    if path.suffix.lower() == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise SeventyError("--plot {path} needs matplotlib (pip install matplotlib); .svg needs nothing", path=path)


@dataclass(frozen=True, slots=True)
class _Axes:
    """Both axes are logarithmic."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, card: Card, found: list[Point]) -> "_Axes":
        bandwidth, peak = card.memory_limit_gbs, card.int8_limit_gops
        x_low, x_high = min(p.x for p in found) / 2, max(p.x for p in found) * 3
        y_low = min(*(p.y for p in found), bandwidth * x_low) / 1.5
        y_high = max(*(p.y for p in found), peak or bandwidth * min(p.x for p in found) * 2) * 2
        return cls(x_low, x_high, y_low, y_high)

    def x(self, value: float) -> float:
        share = math.log(value / self.x_low) / math.log(self.x_high / self.x_low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = math.log(value / self.y_low) / math.log(self.y_high / self.y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> Iterator[float]:
    for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for step in (1, 2, 5):
            if low <= step * 10**exponent <= high:
                yield step * 10.0**exponent


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = _INK, size: int = 13) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.0, dashes: str = "") -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width}" stroke-dasharray="{dashes or "none"}"/>'


def svg(card: Card, title: str) -> str:
    found = points(card)
    axes = _Axes.around(card, found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _text(_LEFT, 26, title, size=16),
        *_grid(axes),
        *_limits(card, axes),
        *_points(found, axes),
        *_legend(card),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(axes: _Axes) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in _ticks(axes.x_low, axes.x_high):
        yield _line(axes.x(value), _TOP, axes.x(value), bottom, _FAINT)
        yield _text(axes.x(value), bottom + 20, f"{value:g}", "middle")
    for value in _ticks(axes.y_low, axes.y_high):
        yield _line(_LEFT, axes.y(value), right, axes.y(value), _FAINT)
        yield _text(_LEFT - 8, axes.y(value) + 4, f"{value:g}", "end")
    yield _text((_LEFT + right) / 2, _HEIGHT - 16, "operations per byte of weights read", "middle")
    middle = (_TOP + bottom) / 2
    yield f'<g transform="rotate(-90 24 {middle})">{_text(24, middle, "GOPS", "middle")}</g>'


def _limits(card: Card, axes: _Axes) -> Iterator[str]:
    bandwidth, peak = card.memory_limit_gbs, card.int8_limit_gops
    top = min(peak or axes.y_high, axes.y_high)
    knee = min(top / bandwidth, axes.x_high)
    start = max(axes.x_low, axes.y_low / bandwidth)
    x1, y1, x2, y2 = axes.x(start), axes.y(bandwidth * start), axes.x(knee), axes.y(bandwidth * knee)
    yield _line(x1, y1, x2, y2, _LIMIT, 2)
    angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
    x, y = x1 + 0.35 * (x2 - x1), y1 + 0.35 * (y2 - y1) - 10
    slope = _text(x, y, f"memory {bandwidth:.1f} GB/s", color=_LIMIT)
    yield f'<g transform="rotate({angle:.1f} {x:.1f} {y:.1f})">{slope}</g>'
    if peak:
        yield _line(axes.x(knee), axes.y(peak), _WIDTH - _RIGHT, axes.y(peak), _LIMIT, 2)
        note = f"int8 peak {peak:.0f} GOPS ({card.isa})"
        yield _text(_WIDTH - _RIGHT - 4, axes.y(peak) - 8, note, "end", _LIMIT)


def _points(found: list[Point], axes: _Axes) -> Iterator[str]:
    taken: list[tuple[float, float]] = []
    for point in found:
        x, y = axes.x(point.x), axes.y(point.y)
        color = _OURS if point.ours else _THEIRS
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color if point.ours else "#fff"}" stroke="{color}" '
            f'stroke-width="2"/>'
        )
        if not point.ours:
            continue
        # Labels of points that lie together stand below each other.
        right = x < _WIDTH - 150
        at = y + 18
        while any(abs(at - other) < 14 and abs(x - across) < 110 for across, other in taken):
            at += 14
        taken.append((x, at))
        yield _text(x + (9 if right else -9), at, point.label, "start" if right else "end", color, 12)


def _legend(card: Card) -> Iterator[str]:
    yield f'<circle cx="{_LEFT + 6}" cy="44" r="5" fill="{_OURS}"/>'
    yield _text(_LEFT + 18, 48, f"seventy {card.seventy}, {card.threads} threads, {card.isa}", color=_OURS)
    if card.peer:
        yield f'<circle cx="486" cy="44" r="5" fill="#fff" stroke="{_THEIRS}" stroke-width="2"/>'
        yield _text(498, 48, f"{card.peer.name} {card.peer.version}", color=_THEIRS)


def _png(card: Card, path: Path, title: str) -> None:
    figure_class: Any = importlib.import_module("matplotlib.figure").Figure
    found = points(card)
    axes = _Axes.around(card, found)
    bandwidth, peak = card.memory_limit_gbs, card.int8_limit_gops
    figure = figure_class(figsize=(9, 5.6), layout="constrained")
    plot = figure.subplots()
    knee = min((peak or axes.y_high) / bandwidth, axes.x_high)
    limits = [(axes.x_low, bandwidth * axes.x_low), (knee, bandwidth * knee)]
    limits += [(axes.x_high, peak)] if peak else []
    plot.loglog([x for x, _ in limits], [y for _, y in limits], color=_LIMIT, label="limit of this machine")
    for name, ours, color in (("seventy", True, _OURS), ("llama.cpp", False, _THEIRS)):
        mine = [point for point in found if point.ours == ours]
        if mine:
            style = {"color": color, "linestyle": "none", "marker": "o", "fillstyle": "full" if ours else "none"}
            plot.loglog([p.x for p in mine], [p.y for p in mine], label=name, **style)
    for point in found:
        if point.ours:
            plot.annotate(point.label, (point.x, point.y), (5, -11), textcoords="offset points", fontsize=8)
    plot.set(xlabel="operations per byte of weights read", ylabel="GOPS", title=title)
    plot.set(xlim=(axes.x_low, axes.x_high), ylim=(axes.y_low, axes.y_high))
    plot.legend()
    figure.savefig(path)
