import pytest

from seventy.plan.low_bits import endings, fit_json, fitting, loss_text
from seventy.plan.machine import Machine, machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.roofline import predict
from seventy.plan.wanted import catalogue_load, wanted


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
