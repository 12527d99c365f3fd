"""What cards say of a machine changes what is predicted there, of their engine, until it is forgotten."""

from dataclasses import replace

import pytest

from seventy.errors import SeventyError
from seventy.plan import local, recalibrate
from seventy.plan.answers import as_json, warnings
from seventy.plan.owned import machine_from_words
from seventy.plan.recalibrate import Ran
from seventy.plan.roofline import Prediction, predict
from seventy.plan.wanted import catalogue_load

# A 7B of 4 bits; decode predicted 13.5 tok/s and prompts 19.6 where 70 GB/s were measured.
RAN = Ran("a1", "Intel Xeon E5-2680 v4", 1, 14, "avx2", 70.0, "llama.cpp", "Q4_0", 7.0, 7.0, 4.0, 4.0, 32, 10.0, 40.0)


def speed(cpu: str, engine: str = "llama.cpp") -> Prediction:
    return predict(machine_from_words(cpu, 1, "4x16@2400", 3.0), catalogue_load("qwen2.5-7b", "Q4_K_M"), engine=engine)


def test_import_moves_the_predictions_of_its_cpu_and_engine() -> None:
    before, other, ours = speed("E5-2680 v4"), speed("E5-2697 v4"), speed("E5-2680 v4", "seventy")
    new, every = recalibrate.add([RAN])
    assert (len(new), len(every)) == (1, 1)
    run, after = new[0], speed("E5-2680 v4")
    assert run.decode is not None and run.prefill is not None
    assert after.memory_ms * run.decode == pytest.approx(before.memory_ms, rel=1e-6)
    assert after.prefill.mid / before.prefill.mid == pytest.approx(run.prefill, rel=0.02)
    assert speed("E5-2697 v4") == other and speed("E5-2680 v4", "seventy") == ours
    assert any("seventy cards import" in line for line in warnings(after, "en"))
    assert as_json(after)["basis"] == "result cards"
    # The same card counts once.
    assert recalibrate.add([RAN]) == ([], every)
    assert recalibrate.forget() == 1 and speed("E5-2680 v4") == before


def test_two_cpus_speak_for_their_class() -> None:
    before = speed("E5-2690 v4")
    recalibrate.add([RAN])
    assert speed("E5-2690 v4") == before
    recalibrate.add([replace(RAN, card="b2", cpu="Intel Xeon E5-2697 v4", threads=18)])
    assert speed("E5-2690 v4").decode.mid < before.decode.mid


def test_what_cannot_be_is_no_calibration() -> None:
    with pytest.raises(SeventyError, match="times as fast as Intel Xeon E5-2680 v4 should"):
        recalibrate.add([replace(RAN, decode_tok_s=200.0)])
    assert local.runs() == ()


def test_a_broken_file_is_a_sentence() -> None:
    local.path().parent.mkdir(parents=True, exist_ok=True)
    local.path().write_text("{")
    with pytest.raises(SeventyError, match="import the cards again"):
        speed("E5-2680 v4")
