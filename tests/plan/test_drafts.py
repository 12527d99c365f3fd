"""What drafts are predicted to gain: more with more cores, nothing on new prose, never less than without."""

import re

import pytest

from seventy.plan import drafts
from seventy.plan.machine import Machine, machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.roofline import Load, predict
from seventy.plan.wanted import catalogue_load


@pytest.fixture(scope="module")
def load() -> Load:
    return catalogue_load("llama-3.3-70b", "Q4_K_M")


def machine(cpu: str, memory: str) -> Machine:
    return machine_from_parts(cpu, 1, parse_dimms(memory))


@pytest.mark.parametrize("cpu", ["Xeon E5-2680 v4", "Xeon E5-2603 v4", "Ryzen 5 7600"])
def test_each_kind_of_text_has_its_range(cpu: str, load: Load) -> None:
    here = machine(cpu, "4x16@2400" if "Xeon" in cpu else "2x32@5200")
    predicted = predict(here, load, engine="seventy")
    plain, found = predicted.decode.mid, drafts.speeds(here, load)
    assert found["edit"].high >= found["edit"].low >= found["chat"].low >= found["prose"].low >= plain
    assert found["prose"].high < 1.05 * plain
    assert found["edit"].high < 16 * plain
    for lang, word in (("en", "new prose"), ("zh", "全新的文章")):
        shown = drafts.lines(predicted, lang)
        assert word in shown[0] and all(len(line) > 20 for line in shown)


def test_more_cores_gain_more_from_drafts_and_no_gain_is_said(load: Load) -> None:
    few, many = machine("Xeon E5-2603 v4", "4x16@2400"), machine("Xeon E5-2680 v4", "4x16@2400")
    gains = [drafts.gain(each, load, 0.9) for each in (few, many)]
    assert 1 <= gains[0] < gains[1]
    assert drafts.gain(many, load, 0.0) == 1
    assert drafts.gain(many, load, 0.8) > drafts.gain(many, load, 0.8, pass_share=0.1) > 1
    assert drafts.step_seconds(many, load, 4) < 4 * drafts.step_seconds(many, load, 1)
    assert "more cores is the better buy" in drafts.buyer(few, load)


def test_only_what_this_engine_writes_has_drafts(load: Load) -> None:
    other = predict(machine("Xeon E5-2680 v4", "4x16@2400"), load)
    assert not drafts.of(other) and not drafts.lines(other)
    small = predict(machine("Xeon E5-2680 v4", "1x16@2400"), load, engine="seventy")
    assert not small.fits and not drafts.of(small)


def test_of_several_who_write_at_once_each_gains_less(load: Load) -> None:
    here = machine("Xeon E5-2680 v4", "4x32@2400")
    found = [predict(here, load, engine="seventy", users=users) for users in (1, 3, 8)]
    gains = [drafts.of(each)["edit"].high / each.decode.mid for each in found]
    assert gains[0] > gains[1] > gains[2] > 1
    for lang, word in (("en", "for each of 3"), ("zh", "3 人同时")):
        (line,) = drafts.lines(found[1], lang)
        assert word in line
    # Few cores have no time left for guesses beside the rows of eight.
    slow = predict(machine("Xeon E5-2603 v4", "4x32@2400"), load, engine="seventy", users=8)
    assert [("gain nothing" in line, "没有收益" in drafts.lines(slow, "zh")[0]) for line in drafts.lines(slow)] == (
        [(True, True)])  # fmt: skip


def test_a_draft_model_gains_what_its_passes_leave(load: Load) -> None:
    found = predict(machine("Xeon E5-2680 v4", "4x16@2400"), load, engine="seventy")
    said = [drafts.with_model(found, catalogue_load(name, "Q4_K_M"), lang)
            for name, lang in (("llama-3.2-1b", "en"), ("llama-3.2-1b", "zh"), ("llama-3.1-8b", "en"))]  # fmt: skip
    numbers = [[float(each) for each in re.findall(r"[\d.]+(?=[-–]|\s*(?:tok/s|token))", text)] for text in said]
    assert numbers[0][:1] != numbers[2][:1] and max(numbers[0]) > max(numbers[2]) > found.decode.mid
    assert "60" in said[0] and "80" in said[1]


def test_a_models_own_block_is_said_where_its_files_have_one(load: Load) -> None:
    here = machine("Xeon E5-2680 v4", "4x16@2400")
    found = predict(here, catalogue_load("qwen3.6-35b-a3b", "Q4_K_M"), engine="seventy")
    # A layer of 40 and a head of 248,320 tokens, of 3 billion parameters.
    assert 0.15 < found.load.pass_share < 0.3
    for lang, word in (("en", "own block of multi-token prediction"), ("zh", "多 token 预测")):
        (said,) = [line for line in drafts.lines(found, lang) if word in line]
        numbers = [float(each) for each in re.findall(r"[\d.]+(?=[-–]|\s*(?:tok/s|token/秒))", said)]
        assert max(numbers) >= found.decode.mid
    assert load.pass_share == 0 and len(drafts.lines(predict(here, load, engine="seventy"))) == 2


def test_an_assistant_in_a_file_of_its_own_is_named(load: Load) -> None:
    here = machine("Xeon E5-2680 v4", "4x16@2400")
    found = predict(here, catalogue_load("gemma-4-26b-a4b", "Q4_K_M"), engine="seventy")
    for lang in ("en", "zh"):
        assert "assistant" in drafts.lines(found, lang)[-1] and "--draft" in drafts.lines(found, lang)[-1]
    assert not any("assistant" in line for line in drafts.lines(found, with_draft=True)) and not load.assisted
