"""The constants and the published errors are what the measurements give."""

from pathlib import Path
from statistics import median

import pytest

from seventy.catalog.measurements import all_measurements
from seventy.plan import fit
from seventy.plan.calibration import PREFILL_SCALE, PREFILL_SPREAD, SHARES

DOCS = Path(__file__).parents[2] / "docs" / "prediction.md"


def test_constants_are_fitted() -> None:
    fitted = fit.fit([*fit.known_cases(), *fit.assumed_cases()]).shares
    for kind, share in SHARES.items():
        assert share.share == pytest.approx(fitted[kind].share, abs=0.011), kind
        assert share.spread == pytest.approx(fitted[kind].spread, abs=0.011), kind
    assert fit.fit_prefill(fit.prefill_cases(all_measurements())) == (PREFILL_SCALE, PREFILL_SPREAD)


def test_decode_errors_by_group_cross_validation() -> None:
    tested = fit.cross_validate(fit.known_cases(), fit.assumed_cases())
    assert len(tested) >= 70 and len({test.row.group for test in tested}) >= 20
    assert median(test.error for test in tested) <= 0.15
    assert sum(test.held for test in tested) / len(tested) >= 0.85
    assert median(test.high / test.low for test in tested) <= 2.11


def test_prefill_errors_by_group_cross_validation() -> None:
    tested = fit.cross_validate_prefill(fit.prefill_cases(all_measurements()))
    servers = [test for test in tested if test.kind == "server"]
    assert len(tested) >= 40 and median(test.error for test in tested) <= 0.28
    assert sum(test.held for test in tested) / len(tested) >= 0.78
    assert median(test.high / test.low for test in tested) <= 2.6
    assert median(test.error for test in servers) <= 0.30


def test_published_errors_are_what_the_code_gives() -> None:
    text = DOCS.read_text(encoding="utf-8")
    published = text.split("<!-- tables: benchmarks/prediction_errors.py -->\n")[1].split("\n<!-- end -->")[0]
    assert published == fit.error_tables()


def test_every_row_left_out_has_a_rule() -> None:
    rules = fit.left_out()
    used = len(fit.known_cases()) + len(fit.assumed_cases())
    assert used + sum(rules.values()) == len(all_measurements())
    assert set(rules) <= {"settings", "contradicts itself", "quant", "other engine", "context", "model", "not standard",
                          "memory layout unknown", "CPU or model size unknown"}  # fmt: skip
