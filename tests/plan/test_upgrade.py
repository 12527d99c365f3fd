"""Steps for a machine one has: the fastest first, and of those that are about as fast the cheapest."""

from dataclasses import replace

from seventy.plan.machine import machine_from_parts
from seventy.plan.memory import parse_dimms
from seventy.plan.roofline import Band, predict
from seventy.plan.upgrade import Step, by_gain
from seventy.plan.wanted import catalogue_load


def test_of_steps_that_are_about_as_fast_the_cheaper_comes_first() -> None:
    here = machine_from_parts("Xeon E5-2680 v4", 1, parse_dimms("1x64@2400"))
    now = predict(here, catalogue_load("llama-3.1-8b", "Q4_K_M"))

    def step(key: str, speed: float, price: tuple[float, float] | None) -> Step:
        return Step(key, {}, replace(now, decode=Band(speed, speed, speed)), price)

    found = [
        step("slow", 5.0, (0.0, 0.0)), step("dear", 10.0, (900.0, 1100.0)), step("unpriced", 10.1, None),
        step("cheap", 9.9, (100.0, 300.0)), step("slower", 9.7, (1.0, 1.0)),
    ]  # fmt: skip
    # 9.7 is more than 3 % below 10.1.
    assert [each.key for each in by_gain(found)] == ["cheap", "dear", "unpriced", "slower", "slow"]
