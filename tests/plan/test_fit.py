"""The constants and the published errors are what the measurements give."""

import re
from pathlib import Path
from statistics import median

import pytest

from seventy.catalog.measurements import all_measurements
from seventy.plan import fit
from seventy.plan.calibration import PREFILL_SCALE, PREFILL_SPREAD, SHARES
from seventy.plan.owned import machine_from_words
from seventy.plan.roofline import Band, predict
from seventy.plan.wanted import catalogue_load
from seventy.plan.words import number

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


def test_classes_that_miss_the_aims_are_named() -> None:
    aims = re.search(r"\nThe aims: .*?\n\n", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert aims is not None
    for line in fit.error_tables().splitlines():
        row = re.match(r"\| ([a-z A-Z]+) \| (\d+) \| \d+ \| (\d+) % \| (\d+) %", line)
        if row and int(row[2]) >= 5 and (int(row[3]) > 25 or int(row[4]) < 75):
            assert f"({row[3]} %" in aims[0] and (int(row[4]) >= 75 or f"{row[4]} %" in aims[0]), line


def test_what_is_left_out_is_counted_in_the_docs() -> None:
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    assert f"{len(all_measurements())} measurements are in" in text
    assert ", ".join(f"{rule} {count}" for rule, count in sorted(fit.left_out().items(), key=str)) in text


@pytest.mark.parametrize("cpu, memory", [("E5-2680 v4", "8x64@2400"), ("Platinum 8175M", "8x64@2666")])
def test_r1_on_two_sockets_is_what_the_docs_say(cpu: str, memory: str) -> None:
    machine, load = machine_from_words(cpu, 2, memory, 3.0), catalogue_load("deepseek-r1-671b", "Q4_K_M")
    llama, seventy = (predict(machine, load, 1000, engine) for engine in ("llama.cpp", "seventy"))
    assert llama.tuned is not None

    def band(found: Band) -> str:
        return f"{number(found.mid)} ({number(found.low)} - {number(found.high)})"

    row = next(line for line in DOCS.read_text(encoding="utf-8").splitlines() if f"{cpu}, {memory} |" in line)
    assert row.split(" | ")[1:] == [
        f"{band(llama.decode)} tok/s", band(llama.tuned), band(seventy.decode), band(llama.prefill),
        f"{number(seventy.prefill.mid)} |",
    ]  # fmt: skip
