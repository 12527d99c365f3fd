"""The page for people who hear it or read it enlarged: what axe-core finds in all its states.

SEVENTY_AXE names axe.min.js of npm's axe-core (4.14.1 was used); skipped without it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium.webdriver")

from seventy.server.app import PageOptions
from seventy.server.guard import Rules
from seventy.server.history import History
from tests.server.conftest import Running, serving
from tests.server.test_page import By, WebDriver, bring, browser, pytestmark, settings, shoot, visit, wait
from tests.server.test_page_store import is_user

AXE = os.environ.get("SEVENTY_AXE")
pytestmark = [*pytestmark, pytest.mark.skipif(not AXE, reason="SEVENTY_AXE names no axe.min.js")]

TEXT = (
    "Euler: $e^{i\\pi} = -1$.\n\n\\[\n\\int_0^1 x^2\n= \\frac13\n\\]\n\n- [x] done\n- [ ] open\n\n```python\n"
    "def f(x):\n    return 'text'  # why\n```\n\n"
    "| a | b | a long column of a table | another long column | and one more |\n"
    "|---|---|---|---|---|\n| $x$ | 2 | 3 | 4 | 5 |\n\n> quote [link](https://example.org)"
)
RUN = """const done = arguments[0]; axe.run(document).then(found => done({
    passed: found.passes.length,
    wrong: found.violations.map(one => [one.id, one.impact, one.nodes.map(node =>
        `${node.html.slice(0, 120)} ${node.any[0]?.message ?? ''}`)])}))"""


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    history = History(tmp_path_factory.mktemp("history") / "history.db")
    rules = Rules({"anna": "secret-anna", "bo": "secret-bo"}, owners=["bo"])
    with serving(smollm2, context=1024, rules=rules, page=PageOptions(history=history)) as running:
        running.wait()
        yield running
    history.close()


def look(page: WebDriver, name: str, wrong: dict[str, Any]) -> None:
    if not page.execute_script("return Boolean(window.axe)"):
        page.execute_script(Path(AXE or "").read_text())
    found = page.execute_async_script(RUN)
    assert found["passed"] > 5
    if found["wrong"]:
        wrong[name] = found["wrong"]
    assert page.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    shoot(page, name)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("size", [(1200, 800), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_found(server: Running, tmp_path: Path, language: str, size: tuple[int, int], theme: str) -> None:
    wrong: dict[str, Any] = {}
    name = f"{size[0]}-{language[:2]}-{theme}"
    with browser(*size, language) as page:
        visit(page, server.url)
        settings(page, key="secret-bo", max_tokens="30", theme=theme)
        wait(page, is_user("bo"))
        look(page, f"{name}-empty", wrong)
        bring(page, tmp_path, ("user", "How is this?"), ("assistant", TEXT))
        wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, ".hljs-keyword"))
        wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, ".math math"))
        look(page, f"{name}-chat", wrong)
        if size[0] < 600:
            page.find_element(By.ID, "menu").click()
            wait(page, lambda p: p.find_element(By.ID, "side").rect["x"] == 0)
            look(page, f"{name}-side", wrong)
        page.execute_script("document.getElementById('open-settings').click()")
        look(page, f"{name}-settings", wrong)
        page.execute_script("document.getElementById('open-devices').click()")
        wait(page, lambda p: p.find_element(By.CSS_SELECTOR, "#device-code output").text)
        look(page, f"{name}-devices", wrong)
        for before, dialog in (("devices", "key-dialog"), ("key-dialog", "library")):
            page.execute_script(
                "document.getElementById(arguments[0]).close(); document.getElementById(arguments[1]).showModal()",
                before, dialog,
            )  # fmt: skip
            look(page, f"{name}-{dialog}", wrong)
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)
