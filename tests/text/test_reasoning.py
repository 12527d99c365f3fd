import random

import pytest

from seventy.text.reasoning import Reasoning, opens_reasoning


def split(text: str, sizes: random.Random | None, inside: bool) -> tuple[str, str]:
    reasoning = Reasoning(inside)
    thought, said, at = "", "", 0
    while at < len(text):
        n = sizes.randint(1, 4) if sizes else len(text)
        new = reasoning.push(text[at : at + n])
        thought, said, at = thought + new[0], said + new[1], at + n
    new = reasoning.flush()
    return thought + new[0], said + new[1]


@pytest.mark.parametrize(
    ("text", "inside", "thought", "said"),
    [
        ("<think>hm</think>\n\nyes", False, "hm", "yes"),
        ("\n<think>\nhm\n</think>yes </think>", False, "\nhm\n", "yes </think>"),
        ("yes <think>no</think>", False, "", "yes <think>no</think>"),
        ("hm</think>\nyes", True, "hm", "yes"),
        ("never ends </thin", True, "never ends </thin", ""),
        ("<thin", False, "", "<thin"),
        ("<thing>", False, "", "<thing>"),
        ("", False, "", ""),
    ],
)
def test_thinking_is_told_apart(text: str, inside: bool, thought: str, said: str) -> None:
    assert split(text, None, inside) == (thought, said)
    for seed in range(20):
        assert split(text, random.Random(seed), inside) == (thought, said)


def test_templates_may_open_it() -> None:
    assert opens_reasoning("<|assistant|><think>\n")
    assert not opens_reasoning("<think>x</think><|assistant|>")
