import pytest

from seventy.catalog.book import PriceBook
from seventy.catalog.quants import nominal_bits
from seventy.plan import report, show
from seventy.plan.answers import plan_json
from seventy.plan.cost import Usage
from seventy.plan.low_bits import endings, fit_json, fitting, loss_text, lower
from seventy.plan.machine import Machine, machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.rank import Constraints
from seventy.plan.roofline import predict
from seventy.plan.shop import Plan, shop
from seventy.plan.wanted import bare, catalogue_load, wanted


def machine(memory: str) -> Machine:
    return machine_from_parts("E5-2680 v4", 1, parse_dimms(memory))


@pytest.mark.parametrize(
    ("name", "quant", "memory", "found"),
    [
        ("llama-3.3-70b", "Q4_K_M", "2x16@2400", "IQ3_XXS"),
        ("llama-3.3-70b", "Q4_K_M", "3x8@2400", "IQ2_XS"),
        ("llama-3.3-70b", "Q4_K_M", "1x16@2400", None),
        ("llama-3.3-70b", "Q4_K_M", "4x16@2400", None),
        ("qwen3-235b-a22b", "Q4_K_M", "4x32@2400", "IQ4_XS"),
        ("gpt-oss-120b", "MXFP4", "2x16@2400", None),
    ],
)
def test_the_largest_quant_that_fits(name: str, quant: str, memory: str, found: str | None) -> None:
    fit = fitting(wanted(name, quant), machine(memory), "llama.cpp", 1000)
    assert (fit and fit.quant) == found
    assert fit is None or fit.prediction.fits


def test_what_it_costs_is_said_with_its_source_in_both_languages() -> None:
    want = wanted("llama-3.3-70b", "Q4_K_M")
    for lang, word in ("en", "What fits here: IQ3_XXS"), ("zh", "本机装得下的是 IQ3_XXS"):
        fits, costs = endings(want, "llama.cpp", lang, machine("2x16@2400"), 1000)
        assert word in fits and "79.1" in costs and "80.8" in costs and "2024-05" in costs and "https://" in costs
    assert endings(want, "llama.cpp", "en", machine("4x16@2400"), 1000) == []
    fitted = fit_json(want, "llama.cpp", machine("2x16@2400"), 1000)["fitting_quant"]
    assert isinstance(fitted, dict) and fitted["quality_loss"]["mmlu"] == 79.1


def test_four_bits_are_not_warned_of_and_what_nobody_measured_is_said_to_be_unknown() -> None:
    assert loss_text("Q4_K_M", 8) is None and loss_text("not a quant", 8) is None
    few = loss_text("IQ2_M", 8) or ""
    assert "perplexity of 8.6 instead of 6.23" in few and "larger models lose less" in few
    assert "nobody is known to have published" in (loss_text("UD-IQ1_S", 671) or "")


def test_seventys_low_bits_cost_what_was_measured() -> None:
    """2 bits are bound by arithmetic on old cores, least so in seventy's types with lookups in registers."""
    slow, fast = machine("4x16@2400"), machine_from_parts("EPYC 9554", 1, parse_dimms("1x64@4800"))
    for where in slow, fast:
        load = catalogue_load("llama-3.3-70b", "IQ2_XXS")
        ours, theirs = (predict(where, load, engine=engine).compute_ms for engine in ("seventy", "llama.cpp"))
        assert ours == pytest.approx(theirs * (2.4 if where is slow else 1.2) / 2) or 0.0 in (ours, theirs)
    q2 = catalogue_load("llama-3.3-70b", "Q2_K")
    assert predict(slow, q2, engine="seventy").compute_ms < predict(slow, q2, engine="llama.cpp").compute_ms


def plan(model: str, quant: str, wishes: Constraints) -> Plan:
    want, book, usage = wanted(model, quant), PriceBook("CN", "2026-11"), Usage(6, 0.6, 3)
    return shop(want.load, 4096, "llama.cpp", book, wishes, usage, "speed", lower=lower(want, "llama.cpp"))


def test_a_budget_that_nothing_meets_is_met_by_the_largest_quant_that_does() -> None:
    found = plan("llama-3.3-70b", "Q4_K_M", Constraints(budget=1500, place="home"))
    assert not found.kept and found.lower is not None
    offer, load = found.lower
    assert offer.build.safe_price <= 1500 and not offer.breaks
    assert nominal_bits(load.quant) < 4 and load.name == found.load.name
    assert offer.build.dimms.room_bytes >= load.need(4096).total
    # No larger one meets it.
    order = [each.quant for each in lower(wanted("llama-3.3-70b", "Q4_K_M"), "llama.cpp")]
    larger = order[order.index(load.quant) - 1]
    assert not plan("llama-3.3-70b", larger, Constraints(budget=1500, place="home")).kept
    # The drive is one for this file, in a bill as if the quant had been asked for.
    asked = plan("llama-3.3-70b", load.quant, Constraints(budget=1500, place="home"))
    assert asked.lower is None and (asked.ranked[0].build.name, asked.ranked[0].build.price) == (
        offer.build.name, offer.build.price)  # fmt: skip
    for lang, words in ("en", "with fewer bits"), ("zh", "减少位数"):
        text = show.text(found, lang, 3)
        line = next(line for line in text.splitlines() if words in line)
        assert load.quant in line and offer.build.name in line
        assert "74.9" in text and "github.com/matt-c1/llama-3-quant-comparison" in text and "SSD" in text
        assert words in report.html(found, lang)
    said = plan_json(found, "en", 3)["lower_quant"]
    assert isinstance(said, dict) and said["quant"] == load.quant and said["quality_loss"]["mmlu"] == 74.9


@pytest.mark.parametrize(
    ("model", "wishes"),
    [
        ("deepseek-r1-0528", Constraints(budget=15000, place="home")),
        ("llama-3.3-70b", Constraints(budget=8000, min_tok_s=2, place="home")),
    ],
)
def test_files_too_large_and_too_slow_are_tried_lower(model: str, wishes: Constraints) -> None:
    found = plan(model, "Q8_0", wishes)
    assert not found.kept and found.lower is not None
    offer, load = found.lower
    assert load.file_gb < found.load.file_gb and offer.build.prediction.decode.mid >= (wishes.min_tok_s or 0)


def test_what_no_quant_meets_is_not_offered() -> None:
    found = plan("llama-3.3-70b", "Q4_K_M", Constraints(budget=300))
    assert found.lower is None and plan_json(found, "en", 3)["lower_quant"] is None


def test_lower_quants_are_those_that_the_engine_runs_and_that_are_files_of_their_own() -> None:
    assert [load.quant for load in lower(wanted("llama-3.3-70b", "IQ2_M"), "seventy")] == [
        "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"]  # fmt: skip
    assert lower(wanted("gpt-oss-120b", "MXFP4"), "seventy") == []
    assert lower(bare(70, None, 42.5, "Q4_K_M"), "llama.cpp") == []
