"""The prediction says what the article's facts say."""

from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench.card import read
from seventy.catalog.cpus import all_cpus, find_cpu
from seventy.errors import SeventyError
from seventy.plan import answers
from seventy.plan.machine import machine_from_cpu, machine_from_parts
from seventy.plan.memory import channels_filled, parse_dimms
from seventy.plan.owned import machine_from_words
from seventy.plan.roofline import Prediction, predict
from seventy.plan.wanted import bare_load, catalogue_load, weights_gb
from seventy.runtime.memory import room, visible


def speed(cpu: str, memory: str | None, model: str = "llama-3.3-70b", quant: str = "Q4_K_M", sockets: int = 1,
          context: int = 1000) -> Prediction:  # fmt: skip
    machine = machine_from_parts(cpu, sockets, parse_dimms(memory) if memory else None)
    return predict(machine, catalogue_load(model, quant), context)


def test_one_dimm_gives_a_quarter_of_four() -> None:
    one, four = speed("E5-2680 v4", "1x64@2400"), speed("E5-2680 v4", "4x64@2400")
    assert 0.22 <= one.decode.mid / four.decode.mid <= 0.28
    assert "channels_empty" in {key for key, _ in one.machine.notes}


def test_z440_with_four_dimms_on_a_70b() -> None:
    found = speed("E5-2680 v4", "4x64@2400")
    assert 1.0 <= found.decode.mid <= 1.6
    assert found.decode.low > 0.61, "the owner's 0.52-0.61 lies below what the hardware allows"
    assert found.bound == "memory" and found.fits


def test_2000_dollar_epyc_on_r1() -> None:
    assert 3.5 <= speed("EPYC 7702", "8x64@2400", "deepseek-r1").decode.mid <= 4.35


def test_6000_dollar_epyc_on_r1() -> None:
    """6 to 8 tok/s were published: between what most reach and what an owner does who placed the pages."""
    for cpu in ("EPYC 9115", "EPYC 9334"):
        found = speed(cpu, "24x32@4800", "deepseek-r1", "Q8_0", sockets=2)
        assert found.tuned is not None and found.decode.mid <= 8 <= 8 * found.tuned.mid / 6
        assert round(found.decode.high) >= 6


def test_fewer_threads_do_not_make_two_sockets_faster() -> None:
    machine = machine_from_parts("E5-2680 v4", 2, parse_dimms("8x16@2400"))
    load = catalogue_load("llama-3.3-70b", "Q4_K_M")
    every = predict(machine, load).decode.mid
    assert all(predict(machine, load, threads=threads).decode.mid <= every for threads in (1, 8, 14, 27))


def test_mixture_reads_its_active_experts_only() -> None:
    dense, mixture = speed("EPYC 7702", "8x64@2400", "qwen3-32b"), speed("EPYC 7702", "8x64@2400", "qwen3-30b-a3b")
    assert mixture.decode.mid > 4 * dense.decode.mid
    assert mixture.read_gb_per_step < dense.read_gb_per_step / 8


def test_experts_of_several_users_are_read_once() -> None:
    """Of 128 experts one text uses 8, four that choose by chance 29.1, very many all."""
    load = catalogue_load("qwen3-30b-a3b", "Q4_K_M")
    assert load.used_share == 8 / 128 and load.step_gb(1) == pytest.approx(load.read_gb)
    # 48 layers of 128 experts, three matrices of 768 x 2048, at the file's bits.
    experts_gb = 48 * 128 * 3 * 768 * 2048 / 1e9 * load.file_gb / load.params_b
    assert load.expert_gb == pytest.approx(experts_gb, rel=0.01)
    different = 128 * (1 - (120 / 128) ** 4)
    assert load.step_gb(4) - load.read_gb == pytest.approx(load.expert_gb * (different - 8) / 128)
    assert load.step_gb(10_000) == pytest.approx(load.read_gb + load.expert_gb * 120 / 128)


def test_several_users_of_a_dense_model_read_it_once() -> None:
    load, machine = catalogue_load("llama-3.3-70b", "Q4_K_M"), machine_from_parts("EPYC 7702", 1, parse_dimms("8x64"))
    one, four = (predict(machine, load, 1000, users=users) for users in (1, 4))
    kv_gb = 1000 * load.footprint.position_bytes / 1e9
    assert four.read_gb_per_step - one.read_gb_per_step == pytest.approx(3 * kv_gb)
    assert four.decode.mid < one.decode.mid and four.together.mid == pytest.approx(4 * four.decode.mid)
    assert four.together.mid > 3 * one.together.mid
    assert four.need.cache == 4 * one.need.cache and four.prefill == one.prefill


def test_several_users_of_a_mixture_gain_less() -> None:
    machine = machine_from_parts("EPYC 7702", 1, parse_dimms("8x64"))
    loads = catalogue_load("qwen3-30b-a3b", "Q4_K_M"), bare_load(30.5, 3.3, 18.56, "Q4_K_M")
    for load in loads:
        one, four = (predict(machine, load, 100, users=users) for users in (1, 4))
        assert 1.5 < four.memory_ms / one.memory_ms < 4
        assert one.together.mid < four.together.mid < 4 * one.together.mid


def test_more_context_is_slower_and_needs_more_memory() -> None:
    short, long = speed("E5-2680 v4", "4x16@2400"), speed("E5-2680 v4", "4x16@2400", context=32000)
    assert long.decode.mid < short.decode.mid and long.need.total > short.need.total + 9e9
    assert short.fits


def test_too_little_memory_runs_from_ssd() -> None:
    found = speed("Ryzen 9 7950X", "2x16@5200")
    assert not found.fits and found.bound == "ssd" and found.decode.mid < 0.3


def test_server_keeps_to_its_rated_speed() -> None:
    found = speed("E5-2680 v4", "4x16@3200")
    assert found.machine.mts == 2400 and "memory_slowed" in {key for key, _ in found.machine.notes}


def test_four_ddr5_modules_to_buy_run_slower_than_printed() -> None:
    four = parse_dimms("4x16@6000")
    cpu = machine_from_parts("Ryzen 9 7950X", 1, four).cpu
    assert cpu is not None
    assert machine_from_cpu(cpu, 1, four).mts == 3600, "more than any board lists for four"
    assert machine_from_cpu(cpu, 1, parse_dimms("4x16@4800")).mts == 4800, "an owner says what he sees"
    assert machine_from_cpu(cpu, 1, four, printed=True).mts == 3600
    assert machine_from_cpu(cpu, 1, parse_dimms("2x32@6000"), printed=True).mts == 6000


def test_unknown_cpu_is_predicted_with_a_wider_band() -> None:
    known, unknown = speed("E5-2680 v4", "4x16@2400"), speed("Mystery 9000", "4x16@2400")
    assert "cpu_unknown" in {key for key, _ in unknown.machine.notes}
    assert unknown.decode.high / unknown.decode.low > known.decode.high / known.decode.low


@pytest.mark.parametrize("int8, unknown", [(900.0, False), (None, True)])
def test_prompts_of_an_unknown_cpu_are_known_where_it_was_measured(int8: float | None, unknown: bool) -> None:
    machine = replace(machine_from_words("no such CPU 1", 1, "4x16@2400", 3.0), measured_gbs=70.0,
                      measured_int8_gops=int8)  # fmt: skip
    found = predict(machine, catalogue_load("llama-3.1-8b", "Q4_K_M"))
    assert ("prefill: unknown" in answers.as_text(found, "en")) is unknown
    assert (answers.as_json(found)["prefill_tok_s"] is None) is unknown


def test_sockets_a_cpu_is_not_listed_for_are_predicted_with_a_word() -> None:
    assert "too_many_sockets" in {key for key, _ in speed("EPYC 7702P", "16x32@3200", sockets=2).machine.notes}


def test_bare_model() -> None:
    load = bare_load(69, 69, 36.83, "Q3_K_M")
    assert load.file_gb == 36.83 and load.layers > 60
    # What Llama 3.3 70B's known shape takes beside its weights and cache.
    known = catalogue_load("llama-3.3-70b", "Q4_K_M").need(0)
    assert load.need(0).total - 36.83e9 == pytest.approx(known.total - known.weights, rel=0.1)
    assert weights_gb(None, 34.3) == pytest.approx(36.83, abs=0.01) and weights_gb(36.8, None) == 36.8
    with pytest.raises(SeventyError, match="--active-params 70"):
        bare_load(69, 70, 36.83, "Q4_K_M")
    for params, size in (69, None), (None, 36.83):
        with pytest.raises(SeventyError, match=r"both --params .* and --weights-gb"):
            bare_load(params, None, size, "Q4_K_M")


@pytest.mark.parametrize(("memory", "gb"), [("1x64@2400", 68.7), ("4x16@2400", 68.7), ("2x24@2400", 51.5)])
def test_what_modules_hold_is_exact(memory: str, gb: float) -> None:
    found = speed("E5-2680 v4", memory).machine
    assert found.memory_bytes == 2**30 * parse_dimms(memory).total_gb == pytest.approx(gb * 1e9, rel=1e-3)
    assert found.room_bytes == room(visible(found.memory_bytes))


@pytest.mark.parametrize(("memory", "fits"), [("2x16@2400", False), ("3x16@2400", True), ("4x16@2400", True)])
def test_a_70b_fits_48_gb_and_more(memory: str, fits: bool) -> None:
    found = speed("E5-2680 v4", memory, context=4096)
    assert found.fits is fits and found.need == catalogue_load("llama-3.3-70b", "Q4_K_M").need(4096)
    # What a short text needs is named at what is usual, as everywhere.
    assert speed("E5-2680 v4", memory).need == found.need


def test_no_context_is_longer_than_the_models_own() -> None:
    load = catalogue_load("qwen2.5-7b", "Q4_K_M")
    assert load.need(10**6) == load.need(32768)


@pytest.mark.parametrize("text", ["4x16@2400", "4 x 16 GB @ 2400", "4X16@2400", "4×16@2400"])
def test_memory_as_people_write_it(text: str) -> None:
    assert str(parse_dimms(text)) == "4x16@2400"


@pytest.mark.parametrize("text", ["", "four", "0x16", "4x16@1", "4x16x2"])
def test_bad_memory_is_one_sentence(text: str) -> None:
    with pytest.raises(SeventyError, match="--memory"):
        parse_dimms(text)


def test_channels_follow_from_dimms_cpu_and_sockets() -> None:
    assert channels_filled(4, 2, 4) == 4
    assert channels_filled(4, 1, 4) == 4
    assert channels_filled(12, 2, 4) == 8
    assert channels_filled(3, 2, 6) == 3


def test_avx2_multiplies_a_prompt_no_faster_than_its_products() -> None:
    def prompt(cpu: str, quant: str, engine: str = "seventy") -> float:
        machine = machine_from_parts(cpu, 1, parse_dimms("4x64@2400"))
        return predict(machine, catalogue_load("llama-3.3-70b", quant), 1000, engine).prefill.mid

    assert prompt("E5-2680 v4", "Q8_0") < 0.65 * prompt("E5-2680 v4", "Q4_K_M")
    # Of llama.cpp, of Naples and of other instructions nothing of the kind is known.
    for cpu, engine in (("E5-2680 v4", "llama.cpp"), ("EPYC 7551", "seventy"), ("EPYC 9554", "seventy")):
        assert prompt(cpu, "Q8_0", engine) > 0.9 * prompt(cpu, "Q4_K_M", engine)


@pytest.mark.parametrize("cpu, card", [("EPYC 9654", "zen4"), ("EPYC 7763", "zen3")])
def test_a_small_model_is_within_the_band_of_both_cards(cpu: str, card: str) -> None:
    found = read(Path(__file__).parents[2] / "results" / f"epyc-{card}-2cores-smollm2-135m.json")
    known, _ = find_cpu(cpu, all_cpus())
    assert known is not None
    machine = replace(machine_from_cpu(known, 1, None), cores=2, measured_gbs=found.machine.read_bandwidth_gbs)
    for result in found.results:
        if result.what == "decode":
            band = predict(machine, catalogue_load("smollm2-135m", "Q4_1"), result.depth, "seventy").decode
            assert band.low < result.tokens_per_second.median < band.high
