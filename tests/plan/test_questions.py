"""Questions as people ask them (docs/questions.md has thirty), and what an expert would want of the answers."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from seventy.cli import main


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Ask":
    return Ask(monkeypatch, capsys)


class Ask:
    """Runs `seventy plan` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "140")
        monkeypatch.setenv("LC_ALL", "C.UTF-8")

    def __call__(self, *arguments: str) -> str:
        self.monkeypatch.setattr(sys, "argv", ["seventy", "plan", *arguments])
        with pytest.raises(SystemExit):
            main()
        return self.capsys.readouterr().out

    def json(self, *arguments: str) -> dict:  # type: ignore[type-arg]
        return json.loads(self(*arguments, "--json"))


NOW = ("--date", "2026-11")


def test_one_stick_in_a_z440(ask: Ask) -> None:
    said = ask("--from", "Z440 + E5-2680 v4 一条64G", "--lang", "zh", *NOW)
    assert "插满所有通道：4x64" in said and "4x16（旧条卖掉）" in said and "第二颗" not in said
    assert "Qwen3.5-35B-A3B" in said


def test_two_sockets_are_tuned_before_anything_is_bought(ask: Ask) -> None:
    steps = ask.json("--from", "R730 2x E5-2697 v4 8x32 2400", "--model", "qwen3-235b-a22b", *NOW)["steps"]
    assert steps[0]["kind"] == "tune" and steps[0]["price"] == 0 and steps[0]["gain"] > 1.5


def test_three_machines_in_one_answer(ask: Ask) -> None:
    found = ask.json("--from", "R730 2x E5-2697 v4 8x32; Z440 2680v4 4x64; 7950X 2x32", *NOW)["machines"]
    assert [each["platform"] for each in found] == ["Dell PowerEdge R730", "HP Z440", None]


def test_r1_in_128_gb_is_no_good_and_says_what_is(ask: Ask) -> None:
    found = ask.json("--from", "5950X 128G", "--model", "deepseek-r1:671b", *NOW)
    assert found["now"]["fits"] is False and found["now"]["bound"] == "ssd"
    assert any("Qwen3.5-122B-A10B" in step["step"] for step in found["steps"])


def test_300_dollars_buy_no_70b_but_a_model_worth_having(ask: Ask) -> None:
    said = ask("--budget", "300", "--currency", "USD", *NOW)
    assert "Nothing meets all of this" in said and "Within the same limits: Qwen3.5-35B-A3B" in said


def test_5000_yuan_buy_no_r1(ask: Ask) -> None:
    said = ask("--budget", "5000", "--model", "deepseek-r1:671b", "--lang", "zh", *NOW)
    assert "没有完全符合的" in said and "同样的条件可以跑：Qwen3.5-122B-A10B" in said


def test_20000_yuan_for_r1_fill_eight_channels(ask: Ask) -> None:
    best = ask.json("--budget", "20000", "--model", "deepseek-r1:671b", *NOW)["builds"][0]
    assert (best["sockets"], best["channels"]) == (1, 8) and best["price_high"] > best["price"] > best["price_low"]


def test_a_new_month_bills_no_old_stick_at_its_old_price(ask: Ask) -> None:
    found = ask.json("--budget", "3500", *NOW)
    memory = next(part for part in found["builds"][0]["parts"] if part["part"].startswith("DDR4"))
    assert memory["factor"] > 2 or memory["inferred"]
    assert found["prices_of"]["oldest"] == "2025-02"


def test_nobody_without_a_budget_is_sent_to_a_mac_for_20000(ask: Ask) -> None:
    best = ask.json(*NOW)["builds"][0]
    assert best["price"] < 8000 and best["noise"] in ("quiet", "silent", "office", None)


def test_users_count_for_what_one_has_too(ask: Ask) -> None:
    have = ("--from", "Z440 + E5-2680 v4 + 4x32", "--model", "gpt-oss-120b", *NOW)
    one, three = (ask.json(*have, "--users", users)["now"] for users in ("1", "3"))
    assert (one["users"], three["users"]) == (1, 3)
    assert three["decode_tok_s"]["mid"] < 0.7 * one["decode_tok_s"]["mid"]
    assert "3 人同时用：每人" in ask(*have, "--users", "3", "--lang", "zh")


def test_models_that_think_first_are_called_so(ask: Ask) -> None:
    have = ("--from", "Z440 + E5-2680 v4 + 4x64", *NOW)
    assert "thinks first: many more tokens an answer" in ask(*have)
    assert "先思考，输出 token 多得多" in ask(*have, "--lang", "zh")


def test_with_a_drive_no_machine_sold_whole_is_billed_one(ask: Ask) -> None:
    wish = ("--budget", "300", "--currency", "USD", "--model", "qwen3-30b-a3b", *NOW)
    with_drive, without = (ask.json(*wish, *more)["builds"][0]["parts"] for more in ((), ("--own-drive",)))
    assert any("NVMe SSD" in part["part"] for part in with_drive)
    assert not any("NVMe SSD" in part["part"] or part["part"].startswith("SSD") for part in without)


def test_a_household_sees_each_users_speed_and_first_token(ask: Ask) -> None:
    said = ask("--budget", "8000", "--model", "gpt-oss-120b", "--users", "3", "--lang", "zh", *NOW)
    assert "3 人同时用：每人" in said and "所有人同时提问时" in said and "偏紧" in said


def rows() -> list[list[str]]:
    text = (Path(__file__).parents[2] / "docs" / "questions.md").read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in text.splitlines() if line.startswith("| `")]  # fmt: skip


def test_thirty_questions_are_in_the_docs() -> None:
    assert len(rows()) >= 30


@pytest.mark.parametrize("question, answer", [row[:2] for row in rows()])
def test_the_figures_of_an_answer_are_the_programs(ask: Ask, question: str, answer: str) -> None:
    words = shlex.split(question.strip("`"))
    said = ask(*words, *(() if "--date" in words else NOW))
    figure = r"\d+(?:,\d{3})*(?:\.\d+)?"
    missing = set(re.findall(figure, answer)) - set(re.findall(figure, said))
    assert not missing, f"{sorted(missing)} of {answer!r} not in:\n{said}"


def test_no_core_i7_is_sold_with_registered_modules(ask: Ask) -> None:
    wish = ("--budget", "1500", "--currency", "USD", "--model", "qwen3.5-122b-a10b", "--place", "any", "--top", "60")
    builds = ask.json(*wish, *NOW)["builds"]
    for build in builds:
        registered = any("RDIMM" in part["part"] for part in build["parts"])
        assert not (registered and build["cpu"].startswith("Intel Core")), build["name"]


def test_slower_modules_stand_in_for_a_speed_that_has_no_price(ask: Ask) -> None:
    steps = ask.json("--from", "R740 2x Gold 6248 8x32@2933", *NOW)["steps"]
    fill = next(step for step in steps if step["kind"] == "fill")
    assert 0 < fill["price_low"] < fill["price_high"]


def test_fewer_cores_on_the_same_memory_are_no_upgrade(ask: Ask) -> None:
    steps = ask.json("--from", "epyc 7532 8x32 3200", "--model", "qwen3-235b-a22b", *NOW)["steps"]
    assert steps and "cpu" not in {step["kind"] for step in steps}


def test_a_family_is_meant_as_ollama_means_it(ask: Ask) -> None:
    assert ask("--from", "z440 e5 2680v4 4x16", "--model", "llama3", *NOW).startswith("Llama-3-8B-Instruct Q4_0")


def test_who_names_no_machine_is_told_what_to_write(capsys: pytest.CaptureFixture[str], ask: Ask) -> None:
    for said, reason in (("a 64 GB PC", "names no CPU or platform"), ("two old xeons", "no machine is named"),
                         ("thinkpad t480 16gb", "its CPU must be said too")):  # fmt: skip
        ask.monkeypatch.setattr(sys, "argv", ["seventy", "plan", "--from", said, *NOW])
        with pytest.raises(SystemExit):
            main()
        assert reason in capsys.readouterr().err, said


def test_months_beyond_what_is_known_and_before_it_are_said(ask: Ask) -> None:
    late = ask("--budget", "5000", "--date", "2028-01")
    assert "No price after 2026-09 is known" in late and "2028" not in late.splitlines()[0]
    assert "most begin in 2025-02" in ask("--budget", "5000", "--date", "2024-01")


def test_a_formula_is_in_the_language_of_the_answer(ask: Ask) -> None:
    said = ask("--budget", "2100", "--lang", "zh", *NOW)
    assert "每 GB" in said and "（2023-02，已折算）" in said and " a GB of " not in said
