"""What the page shows and hands out, in a headless Chromium: thoughts, progress, speeds, wide tables, exports."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium.webdriver")

from seventy.server.app import PageOptions
from seventy.server.guard import Rules
from seventy.server.history import History
from tests.engine.test_multi_token import Oracle, guess_always
from tests.server.conftest import Running, serving
from tests.server.test_page import (
    By,
    WebDriver,
    answers,
    bring,
    browser,
    is_done,
    page,
    pytestmark,
    selenium,
    send,
    settings,
    shoot,
    small_model,
    visit,
    wait,
)
from tests.server.test_page_store import is_user
from tests.support.families import qwen35

__all__ = ["page", "pytestmark", "small_model"]

TIMINGS = {
    "queued_ms": 0, "prompt_ms": 2000, "prompt_n": 10, "cache_n": 0, "predicted_n": 100, "predicted_per_second": 50.0,
    "draft_n_accepted": 60, "draft_gained_ms": 1200,
}  # fmt: skip


def test_thoughts_are_folded_with_their_time_and_drafts_with_their_gain(page: WebDriver, tmp_path: Path) -> None:
    question = {"id": "q", "parent": None, "role": "user", "content": "Why?", "at": 1, "rev": 1}
    answer: dict[str, Any] = {
        "id": "a", "parent": "q", "role": "assistant", "content": "Because.", "at": 2, "rev": 1,
        "thoughts": "Let me think about **this**.", "thoughtSeconds": 12, "end": {"reason": "stop", "timings": TIMINGS},
    }  # fmt: skip
    path = tmp_path / "thoughts.json"
    one = {"id": "thoughts", "title": "thoughts", "changed": 1, "leaf": "a", "nodes": {"q": question, "a": answer}}
    path.write_text(json.dumps([one]))
    page.find_element(By.ID, "import-picker").send_keys(str(path))
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, ".chat .title"))
    page.execute_script("document.querySelector('.chat .title').click()")
    wait(page, lambda p: answers(p) == ["Because."])
    folded = page.find_element(By.CSS_SELECTOR, ".thoughts")
    assert folded.text == "Thoughts, 12 s" and folded.get_attribute("open") is None
    folded.find_element(By.TAG_NAME, "summary").click()
    wait(page, lambda p: folded.find_element(By.TAG_NAME, "strong").text == "this")
    said = page.find_element(By.CSS_SELECTOR, "article.assistant > .note").text
    assert "100 tokens at 50 tok/s" in said and "60 % of them guessed ahead, 1.2 s saved" in said


def test_how_far_a_prompt_is_and_which_model_it_is(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PageOptions(expected=lambda path: 42.0)
    with serving(smollm2, context=4096, page=options) as server, browser(1200, 800) as page:
        server.wait()
        visit(page, server.url)
        wait(page, lambda p: p.find_element(By.ID, "about-model").text == "0.1 GB, about 42 tok/s")
        settings(page, max_tokens="5")
        model, step = server.backend.llm.model, server.backend.llm.model.step
        monkeypatch.setattr(model, "step", lambda *of: (time.sleep(0.5), step(*of))[1])
        text = "many words about the sea " * 500
        page.execute_script("document.getElementById('input').value = arguments[0]", text)
        send(page, "and now?")
        wait(page, lambda p: "Reading your text: " in p.find_element(By.ID, "messages").text)
        assert page.find_elements(By.CSS_SELECTOR, ".progress progress")
        shoot(page, "reading")
        monkeypatch.undo()
        wait(page, lambda p: is_done(p) and answers(p)[0])


def test_a_wide_table_scrolls_in_itself_and_images_are_refused(small_model: Running, tmp_path: Path) -> None:
    row = "|" + " a wide column of words |" * 12
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    with browser(390, 844) as page:
        visit(page, small_model.url)
        bring(page, tmp_path, ("user", "q"), ("assistant", f"{row}\n|{'---|' * 12}\n{row}\n"))
        wait(page, lambda p: p.find_elements(By.TAG_NAME, "td"))
        scrolls = """let one = document.querySelector('article table');
            while (one.tagName !== 'ARTICLE' && getComputedStyle(one).overflowX !== 'auto') one = one.parentElement;
            return one.tagName !== 'ARTICLE' && one.scrollWidth > one.clientWidth"""
        assert page.execute_script(scrolls)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        page.find_element(By.ID, "picker").send_keys(str(tmp_path / "a.png"))
        wait(page, lambda p: "This model reads no images: a.png" in p.find_element(By.ID, "messages").text)
        assert not page.find_elements(By.CSS_SELECTOR, ".chip")


# What the page hands the browser to keep, instead of a file.
CATCH = """
window.files = [];
URL.createObjectURL = blob => { blob.text().then(text => window.files.push(text)); return "#"; };
"""


def test_all_is_exported_and_comes_back(page: WebDriver, tmp_path: Path) -> None:
    bring(page, tmp_path, ("user", "What is $x$?"), ("assistant", "A **letter**."))
    wait(page, answers)
    page.execute_script(CATCH)
    page.find_element(By.ID, "export-one").click()
    wait(page, lambda p: len(p.execute_script("return window.files")) == 1)
    page.find_element(By.ID, "export").click()
    wait(page, lambda p: len(p.execute_script("return window.files")) == 2)
    markdown, everything = page.execute_script("return window.files")
    assert markdown == "# brought\n\n## You\n\nWhat is $x$?\n\n## Model\n\nA **letter**.\n"
    (tmp_path / "all.json").write_text(everything)
    page.execute_script("window.confirm = () => true; document.querySelector('.chat button[title]').click()")
    wait(page, lambda p: not p.find_elements(By.CSS_SELECTOR, ".chat"))
    page.find_element(By.ID, "import-picker").send_keys(str(tmp_path / "all.json"))
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, ".chat"))
    page.execute_script("document.querySelector('.chat .title').click()")
    wait(page, lambda p: answers(p) == ["A letter."])


def test_an_owner_of_conversations_deletes_them_all(smollm2: Path, tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    rules = Rules({"anna": "secret-anna"})
    with (
        serving(smollm2, context=512, rules=rules, page=PageOptions(history=history)) as server,
        browser(1200, 800) as page,
    ):
        server.wait()
        visit(page, server.url)
        settings(page, key="secret-anna", max_tokens="5")
        wait(page, is_user("anna"))
        send(page, "Keep this")
        wait(page, lambda p: history.export("anna"))
        wait(page, is_done)
        page.find_element(By.ID, "open-settings").click()
        said = page.find_element(By.ID, "history-note").text
        assert "for 365 days" in said and "the owner of the machine could read them" in said
        page.execute_script("window.confirm = () => true")
        page.find_element(By.ID, "forget-all").click()
        wait(page, lambda p: not history.export("anna"))
        page.find_element(By.CSS_SELECTOR, "#settings .primary").click()
        wait(page, lambda p: not p.find_elements(By.CSS_SELECTOR, ".chat"))
    history.close()


def test_plain_http_at_another_name(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Browsers take loopback for safe; at any other address of http they lack clipboard, randomUUID and more.
    arguments = selenium.ChromeOptions.add_argument

    class Options(selenium.ChromeOptions):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            arguments(self, "--host-resolver-rules=MAP seventy.test 127.0.0.1")

    monkeypatch.setattr(selenium, "ChromeOptions", Options)
    with serving(smollm2, context=512, rules=Rules(hosts=["seventy.test"])) as server, browser(390, 844) as page:
        server.wait()
        visit(page, server.url.replace("127.0.0.1", "seventy.test"))
        assert page.execute_script("return isSecureContext || Boolean(navigator.clipboard)") is False
        settings(page, max_tokens="5")
        send(page, "Hello")
        wait(page, lambda p: is_done(p) and answers(p) and answers(p)[0])
        said = answers(page)
        page.find_element(By.XPATH, "(//button[text()='Copy'])[1]").click()
        wait(page, lambda p: p.find_elements(By.XPATH, "//button[text()='Copied']"))
        page.refresh()
        wait(page, lambda p: answers(p) == said)
        assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_guesses_of_the_models_own_block_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts = qwen35.write(tmp_path / "block.gguf", layers=2, interval=2, nextn=1), list[list[int]]()
    with serving(path) as server, browser(1200, 800) as page:
        server.wait()
        llm = server.backend.llm
        guess_always(llm, monkeypatch)
        drafts, end = llm.scheduler.drafts, llm.scheduler.drafts.end
        monkeypatch.setattr(drafts, "end", lambda text: (texts.append(list(text.generation.tokens)), end(text)))
        visit(page, server.url)
        settings(page, max_tokens="40")
        said = []
        for _ in range(2):
            page.find_element(By.ID, "new").click()
            send(page, "Hello")
            wait(page, lambda p: is_done(p) and answers(p))
            said.append(page.find_element(By.CSS_SELECTOR, "article.assistant > .note").text)
            Oracle(monkeypatch, texts)
        assert "guessed ahead" not in said[0] and "% of them guessed ahead" in said[1], said
        assert "drafts by MTP" in drafts.lines()[0]
