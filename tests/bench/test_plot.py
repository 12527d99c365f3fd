"""The roofline is well-formed, and its points lie where their figures say."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from seventy.bench import plot
from seventy.bench.card import Card
from seventy.errors import SeventyError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("peak", [True, False])
def test_svg(card: Card, peak: bool) -> None:
    if not peak:
        card = replace(card, machine=replace(card.machine, int8_gops={}))
    root = ElementTree.fromstring(plot.svg(card, "a <model> & more"))
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "a <model> & more" in texts and "operations per byte of weights read" in texts
    for result in card.results:
        assert result.label in texts
    assert any("int8 peak" in text for text in texts) == peak
    assert any(re.match(r"memory [\d.]+ GB/s", text) for text in texts)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    circles = list(root.iter(f"{SVG}circle"))
    # Of the legend, of ours and of the peer's, who has no batches.
    assert len(circles) == 2 + 5 + 3
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width and 0 < float(circle.attrib["cy"]) < height


def test_points(card: Card) -> None:
    ours = [point for point in plot.points(card) if point.ours]
    assert [(p.x, p.y) for p in ours] == [(r.operations_per_byte, r.gops) for r in card.results]
    theirs = [point for point in plot.points(card) if not point.ours]
    assert len(theirs) == 3 and all(point.y > 0 for point in theirs)


def test_kinds_of_file(card: Card, tmp_path: Path) -> None:
    plot.write(card, tmp_path / "roof.svg", "title")
    assert (tmp_path / "roof.svg").read_text().startswith("<svg")
    with pytest.raises(SeventyError, match="neither"):
        plot.check(tmp_path / "roof.jpg")
    with pytest.raises(SeventyError, match="cannot write"):
        plot.write(card, tmp_path / "absent" / "roof.svg", "title")


def test_png_needs_matplotlib(card: Card, tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib"):
        plot.write(card, tmp_path / "roof.png", "title")
        assert (tmp_path / "roof.png").read_bytes()[:4] == b"\x89PNG"
    else:
        with pytest.raises(SeventyError, match="pip install matplotlib"):
            plot.write(card, tmp_path / "roof.png", "title")
