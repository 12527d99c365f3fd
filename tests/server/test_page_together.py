"""The page in a headless Chromium: two users at once, two tabs of one user, a server that ends in between."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium.webdriver")

from seventy.server.app import PageOptions
from seventy.server.guard import Rules
from seventy.server.history import History
from tests.server.conftest import Running, serving
from tests.server.test_page import (
    By,
    WebDriver,
    answers,
    browser,
    click,
    is_done,
    pytestmark,
    send,
    settings,
    shoot,
    visit,
    wait,
    write_without_end,
)
from tests.server.test_page_store import is_user

__all__ = ["pytestmark"]

RULES = Rules({"anna": "secret-anna", "bo": "secret-bo"})


def slow(server: Running, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1) -> None:
    model, step = server.backend.llm.model, server.backend.llm.model.step
    monkeypatch.setattr(model, "step", lambda *of: (time.sleep(seconds), step(*of))[1])


def titles(page: WebDriver) -> list[str]:
    script = "return [...document.querySelectorAll('.chat .title')].map(one => one.textContent)"
    return list(page.execute_script(script))


def test_two_users_at_once(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path / "history.db")
    with (
        serving(smollm2, context=1024, rules=RULES, page=PageOptions(history=history)) as server,
        browser(1200, 800) as annas, browser(390, 844) as bos,
    ):  # fmt: skip
        server.wait()
        write_without_end(server)
        slow(server, monkeypatch)
        for page, name in ((annas, "anna"), (bos, "bo")):
            visit(page, server.url)
            settings(page, key=f"secret-{name}", max_tokens="60")
            wait(page, is_user(name))
            send(page, f"A secret of {name}: write a story about the sea.")
        for page in (annas, bos):
            wait(page, lambda p: answers(p) and answers(p)[0])
        # Both are being written now.
        assert server.backend.scheduler.statistics.running == 2
        for page, mine, other in ((annas, "anna", "bo"), (bos, "bo", "anna")):
            wait(page, is_done)
            wait(page, lambda p, mine=mine: f"A secret of {mine}" in json.dumps(history.export(mine)))
            page.refresh()
            wait(page, lambda p: answers(p) and answers(p)[0])
            assert len(titles(page)) == 1
            source = page.page_source
            assert f"A secret of {mine}" in source and f"secret of {other}" not in source
            assert f"secret of {other}" not in json.dumps(history.export(mine))
    history.close()


def test_two_tabs_write_into_one_conversation(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path / "history.db")
    with (
        serving(smollm2, context=1024, rules=RULES, page=PageOptions(history=history)) as server,
        browser(1200, 800) as page,
    ):
        server.wait()
        write_without_end(server)
        visit(page, server.url)
        settings(page, key="secret-anna", max_tokens="5")
        wait(page, is_user("anna"))
        send(page, "The first question")
        wait(page, lambda p: is_done(p) and answers(p) and answers(p)[0])
        slow(server, monkeypatch)
        first = page.current_window_handle
        page.switch_to.new_window("tab")
        visit(page, server.url)
        wait(page, lambda p: is_done(p) and answers(p) and answers(p)[0])
        send(page, "Asked in the second tab")
        second = page.current_window_handle
        page.switch_to.window(first)
        page.find_element(By.ID, "input").send_keys("half a thought of the first tab")
        page.switch_to.window(second)
        wait(page, lambda p: is_done(p) and len(answers(p)) == 2 and answers(p)[1])
        page.switch_to.window(first)
        # What the other asked is here, and what stood in the box, too; the next question goes on from both.
        wait(page, lambda p: len(answers(p)) == 2 and answers(p)[1])
        assert page.find_element(By.ID, "input").get_attribute("value") == "half a thought of the first tab"
        page.find_element(By.ID, "send").click()
        wait(page, lambda p: is_done(p) and len(answers(p)) == 3 and answers(p)[2])
        asked = ["The first question", "Asked in the second tab", "half a thought of the first tab"]

        def kept() -> list[str]:
            return [node["content"] for node in nodes(history) if node["role"] == "user"]

        wait(page, lambda p: sorted(kept()) == sorted(asked))
        assert len(history.export("anna")) == 1 and not any(node.get("pending") for node in nodes(history))
    history.close()


def nodes(history: History) -> list[dict[str, Any]]:
    return [node for one in history.export("anna") for node in one["nodes"].values()]


def test_a_server_that_ends_while_it_answers(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with browser(390, 844) as page:
        with serving(smollm2, context=1024) as server:
            server.wait()
            write_without_end(server)
            slow(server, monkeypatch, 0.3)
            visit(page, server.url)
            settings(page, max_tokens="100")
            send(page, "Write a long story about a lighthouse keeper and her cat.")
            wait(page, lambda p: answers(p) and len(answers(p)[0]) > 20)
            # As one that is killed.
            server.server.force_exit = True
        written = answers(page)[0]
        # Nobody is there: it says so, and what came stays, also when the page is reloaded from what it has.
        wait(page, lambda p: "The connection broke" in p.find_element(By.ID, "messages").text)
        shoot(page, "broken")
        with serving(smollm2, context=1024, port=int(server.url.rpartition(":")[2])) as again:
            again.wait()
            write_without_end(again)
            wait(page, lambda p: is_done(p) and "The server was restarted" in p.find_element(By.ID, "messages").text)
            assert answers(page)[0].startswith(written[:20])
            kept = answers(page)[0]
            shoot(page, "restarted")
            page.refresh()
            wait(page, lambda p: answers(p) == [kept])
            click(page, "Go on")
            wait(page, lambda p: is_done(p) and len(answers(p)[0]) > len(kept))
            assert answers(page)[0].startswith(kept)
