"""Which quant is taken for a machine: exact choices checked by hand, and the rule over many machines."""

from dataclasses import replace

import pytest

from seventy.catalog import names
from seventy.catalog.quants import nominal_bits
from seventy.formats import formats
from seventy.plan.choice import Candidate, Choice, candidates, choose
from seventy.plan.machine import Machine, machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.wanted import hosted_load

QUANTS = [
    "IQ1_S", "IQ2_XXS", "IQ2_M", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_S",
    "Q5_K_M", "Q6_K", "Q8_0", "F16",
]  # fmt: skip
# Of 16, 24, 32, 64, 128 and 256 GB: what a person has who has so much.
MACHINES = {
    16: ("i5-12400", "2x8@3200"),
    24: ("Ryzen 5 7600", "2x12@5600"),
    32: ("i5-12400", "2x16@3200"),
    64: ("Ryzen 7 7700", "2x32@5200"),
    128: ("E5-2680 v4", "4x32@2400"),
    256: ("EPYC 7702", "8x32@3200"),
}


def machine(gb: int) -> Machine:
    cpu, dimms = MACHINES[gb]
    return machine_from_parts(cpu, 1, parse_dimms(dimms))


def offered(name: str, where: Machine, quants: list[str], context: int = 4096) -> tuple[list[Candidate], str]:
    found = names.meaning(name)
    assert found
    model, architecture = names.shape(found.name), names.architecture(found.name)
    loads = [hosted_load(model, found.name.title, quant, round(1e9 * model.size(quant))) for quant in quants]
    return candidates(loads, architecture, bool(model.n_expert), where, context), architecture


def chosen(name: str, gb: int, quants: list[str] = QUANTS, context: int = 4096) -> Choice:
    return choose(*offered(name, machine(gb), quants, context))


@pytest.mark.parametrize(
    "name, gb, quant, why",
    [
        # 5.0 GB fit everywhere; 8.7 GB at 51 to 77 GB/s would be under 10 tok/s, at 205 GB/s they are not.
        ("qwen3-8b", 16, "Q4_K_M", "q_four"),
        ("qwen3-8b", 128, "Q4_K_M", "q_four"),
        ("qwen3-8b", 256, "Q8_0", "q_larger"),
        # 42.5 GB and a cache of 1.3 need 64 GB; 31.6 of Q3_K_S and the same do not go into 32.
        ("llama-3.3-70b", 16, None, "q_too_large"),
        ("llama-3.3-70b", 32, None, "q_two_bits"),
        ("llama-3.3-70b", 64, "Q4_K_M", "q_four"),
        ("llama-3.3-70b", 256, "Q4_K_M", "q_four"),
        # 3 of 30 billion parameters are read: speed is no limit, memory is.
        ("qwen3-30b-a3b", 16, "Q3_K_M", "q_smaller"),
        ("qwen3-30b-a3b", 24, "Q5_K_M", "q_larger"),
        ("qwen3-30b-a3b", 64, "Q8_0", "q_larger"),
        # 142 GB do not go into 128, 125 do.
        ("qwen3-235b-a22b", 128, "IQ4_XS", "q_smaller"),
    ],
)
def test_choices_by_hand(name: str, gb: int, quant: str | None, why: str) -> None:
    choice = chosen(name, gb)
    assert (choice.chosen and choice.chosen.quant, choice.why) == (quant, why)


@pytest.mark.parametrize("gb", MACHINES)
@pytest.mark.parametrize(
    "name",
    ["qwen3-8b", "qwen3-14b", "qwen3-32b", "llama-3.3-70b", "qwen2.5-72b", "qwen3-30b-a3b", "qwen3-235b-a22b",
     "llama-3.1-405b", "qwen3.6-35b-a3b", "deepseek-r1-0528", "mixtral-8x7b"],
)  # fmt: skip
def test_the_rule(name: str, gb: int) -> None:
    every, architecture = offered(name, machine(gb), QUANTS)
    choice = choose(every, architecture)
    usable = [each for each in every if each.problem is None] or every
    four = next(each for each in usable if each.quant == "Q4_K_M")
    fitting = [each for each in usable if each.fits]
    taken = choice.chosen
    if four.fits:
        assert taken is not None and taken.load.file_gb >= four.load.file_gb and taken.bits <= 8
        assert taken is four or taken.speed.mid >= 10
        for each in fitting:
            better = taken.bits < each.bits <= 8
            assert not better or each.speed.mid < 10, f"{each.quant} was better than {taken.quant}"
    elif good := [each for each in fitting if each.bits >= 3]:
        assert taken is max(good, key=lambda each: each.load.file_gb)
    else:
        assert taken is None and (choice.smaller is not None) == bool(fitting)


def test_both_neighbours_are_of_other_bits() -> None:
    choice = chosen("llama-3.3-70b", 64)
    assert choice.smaller and choice.larger
    assert (choice.smaller.quant, choice.larger.quant) == ("Q3_K_L", "Q5_K_S")


def test_gpt_oss_in_what_it_was_trained_in() -> None:
    quants = ["Q4_K_M", "MXFP4", "Q8_0", "F16"]
    assert all((taken := chosen("gpt-oss-20b", gb, quants).chosen) and taken.quant == "MXFP4" for gb in MACHINES)


@pytest.mark.parametrize(
    "quants, quant",
    [
        (["Q8_0", "UD-Q4_K_XL", "Q4_0"], "UD-Q4_K_XL"),
        (["Q4_0", "Q4_K_S", "IQ4_XS"], "Q4_K_S"),
        (["Q2_K", "Q5_K_M"], "Q5_K_M"),
        (["Q8_0", "F16"], "Q8_0"),
        (["F16"], "F16"),
        (["Q3_K_M", "F16"], "Q3_K_M"),
    ],
)
def test_the_nearest_where_there_is_no_q4_k_m(quants: list[str], quant: str) -> None:
    # A model that is slow here, so that nothing larger is taken for its own sake.
    sizes = [each.removeprefix("UD-").replace("XL", "M") for each in quants]
    every, architecture = offered("qwen3-14b", machine(64), sizes)
    named = [replace(each, load=replace(each.load, quant=quant)) for each, quant in zip(every, quants, strict=True)]
    taken = choose(named, architecture).chosen
    assert taken is not None and taken.quant == quant


def test_what_the_engine_cannot_multiply_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {id: entry for id, entry in formats().items() if entry.name != "IQ3_S"}
    monkeypatch.setattr("seventy.formats.formats", lambda: few)
    choice = chosen("qwen3-30b-a3b", 16, ["IQ3_M", "Q3_K_S", "Q4_K_M"])
    assert choice.chosen and choice.chosen.quant == "Q3_K_S" and nominal_bits("IQ3_M") == 3


def test_a_quant_that_is_asked_for_is_taken_as_it_is() -> None:
    every, architecture = offered("llama-3.3-70b", machine(16), QUANTS)
    choice = choose(every, architecture, "q6_k")
    assert choice.chosen and choice.chosen.quant == "Q6_K" and not choice.chosen.fits and choice.why == "q_asked"
    assert choose(every, architecture, "Q5_0").chosen is None


def test_a_longer_context_leaves_less_for_weights() -> None:
    assert chosen("qwen3-32b", 24).chosen
    longer = chosen("qwen3-32b", 24, context=32768)
    # 32768 tokens take 8.6 GB of cache beside the weights.
    assert longer.chosen and longer.chosen.bits == 3
