"""What the page keeps, in a headless Chromium: whose it is, what is sent to the server, what comes from elsewhere."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import NoAlertPresentException

from seventy.server.app import PageOptions
from seventy.server.guard import Rules
from seventy.server.history import History
from tests.server.conftest import Running, serving
from tests.server.test_page import (
    By,
    WebDriver,
    answers,
    browser,
    is_done,
    pytestmark,
    send,
    settings,
    visit,
    wait,
    write_without_end,
)

__all__ = ["pytestmark"]

ANNA, BO = ({"Authorization": f"Bearer secret-{name}"} for name in ("anna", "bo"))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


@pytest.fixture
def server(smollm2: Path, history: History) -> Iterator[Running]:
    rules = Rules({"anna": "secret-anna", "bo": "secret-bo"}, owners=["bo"])
    with serving(smollm2, context=1024, rules=rules, page=PageOptions(history=history)) as running:
        running.wait()
        write_without_end(running)
        yield running


@pytest.fixture
def page(server: Running) -> Iterator[WebDriver]:
    with browser(1200, 800) as driver:
        visit(driver, server.url)
        yield driver


def pair(page: WebDriver, server: Running, user: dict[str, str], agreed: bool = True) -> str:
    """Follows a link with a code of this user's; what the page asked before it took the key."""
    code = server.client.post("/pair/codes", json={}, headers=user).json()["code"]
    page.execute_script("location.hash = arguments[0]", f"pair={code}")
    asked = wait(page, alert)
    assert isinstance(asked, str)
    if agreed:
        page.switch_to.alert.accept()
    else:
        page.switch_to.alert.dismiss()
    return asked


def alert(page: WebDriver) -> str | None:
    try:
        return str(page.switch_to.alert.text)
    except NoAlertPresentException:
        return None


def stored(page: WebDriver) -> dict[str, Any]:
    return dict(json.loads(page.execute_script("return localStorage['seventy.settings'] || '{}'")))


def is_user(name: str) -> Any:
    return lambda page: stored(page).get("user") == name


def test_another_user_sees_and_gets_nothing_of_what_was_being_written(
    page: WebDriver, server: Running, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, step = server.backend.llm.model, server.backend.llm.model.step
    monkeypatch.setattr(model, "step", lambda *of: (time.sleep(0.1), step(*of))[1])
    settings(page, key="secret-anna", max_tokens="900")
    wait(page, is_user("anna"))
    send(page, "Anna's secret: count from 1 to 1000, each number on a line.")
    wait(page, lambda p: answers(p) and answers(p)[0])
    page.find_element(By.ID, "input").send_keys("half a secret")

    # A link does not bring another key in silence.
    assert "another key" in pair(page, server, BO, agreed=False)
    assert stored(page)["key"] == "secret-anna" and page.find_element(By.ID, "stop").is_displayed()

    pair(page, server, BO)
    wait(page, is_user("bo"))
    wait(page, is_done)
    assert not answers(page) and not page.find_elements(By.CSS_SELECTOR, ".chat")
    assert page.find_element(By.ID, "input").get_attribute("value") == ""
    send(page, "Bo's question")
    wait(page, lambda p: answers(p) and answers(p)[0])
    page.find_element(By.ID, "stop").click()
    wait(page, lambda p: "Bo's question" in json.dumps(history.export("bo")))
    assert "secret" not in json.dumps(history.export("bo"))
    titles = "return [...document.querySelectorAll('.chat .title')].map(one => one.textContent)"
    assert page.execute_script(titles) == ["Bo's question"]

    # It was written on meanwhile; with her key Anna has it again, and what stood in the box.
    pair(page, server, ANNA)
    wait(page, is_user("anna"))
    wait(page, lambda p: answers(p) and answers(p)[0])
    assert page.find_element(By.ID, "input").get_attribute("value") == "half a secret"
    assert [title[:13] for title in page.execute_script(titles)] == ["Anna's secret"]
    page.find_element(By.ID, "stop").click()
    wait(page, lambda p: "Anna's secret" in json.dumps(history.export("anna")))
    assert "Bo's" not in json.dumps(history.export("anna"))


# Lets requests to paths that match wait for, or be answered by, what the test says.
FETCH = """
const fetched = window.fetch;
window.matched = [];
window.fetch = async (path, options = {}) => {
  const method = options.method ?? "GET";
  if (!new RegExp(arguments[0]).test(`${method} ${path}`)) return fetched(path, options);
  window.matched.push(`${method} ${path}`);
  if (arguments[1]) return new Response("Bad Gateway", { status: arguments[1] });
  const answer = await fetched(path, options);
  await new Promise(go => { window.release = go; });
  return answer;
};
window.restore = () => { window.fetch = fetched; };
"""


def conversation(id: str, text: str) -> str:
    node = {"id": "a", "parent": None, "role": "user", "content": text, "at": 1, "rev": 1}
    return json.dumps({"id": id, "title": text, "changed": 1, "leaf": "a", "shown": {}, "nodes": {"a": node}})


def is_listed(title: str) -> Any:
    script = "return [...document.querySelectorAll('.chat .title')].some(one => one.textContent === arguments[0])"
    return lambda page: page.execute_script(script, title)


def test_what_comes_late_for_one_user_is_not_the_others(page: WebDriver, server: Running, history: History) -> None:
    settings(page, key="secret-anna")
    wait(page, is_user("anna"))
    page.execute_script(FETCH, "GET /history/late", 0)
    history.write("anna", "late", 0, conversation("late", "Anna's own"))
    wait(page, lambda p: p.execute_script("return Boolean(window.release)"))
    pair(page, server, BO)
    wait(page, is_user("bo"))
    page.execute_script("window.release(); window.restore()")
    history.write("bo", "other", 0, conversation("other", "Bo's own"))
    wait(page, is_listed("Bo's own"))
    assert not is_listed("Anna's own")(page)
    assert [one["title"] for one in history.export("bo")] == ["Bo's own"]
    # She has not had it yet.
    pair(page, server, ANNA)
    wait(page, is_listed("Anna's own"))


@pytest.mark.parametrize("status", [401, 502])
def test_what_could_not_be_sent_is_sent_later(page: WebDriver, server: Running, history: History, status: int) -> None:
    history.write("anna", "old", 0, conversation("old", "to be deleted"))
    settings(page, key="secret-anna", max_tokens="3")
    wait(page, is_listed("to be deleted"))
    page.execute_script(FETCH, "^(PUT|DELETE) /history", status)
    page.execute_script("window.confirm = () => true; document.querySelector('.chat button[title]').click()")
    wait(page, lambda p: p.execute_script("return window.matched.length"))
    assert history.read("anna", "old")
    page.execute_script("window.restore()")
    wait(page, lambda p: history.read("anna", "old") is None)


def test_what_the_server_refuses_is_not_sent_for_ever(page: WebDriver, server: Running, history: History) -> None:
    for status in (400, 409, 413, 507):
        history.write("anna", f"old{status}", 0, conversation(f"old{status}", str(status)))
    settings(page, key="secret-anna", max_tokens="3")
    wait(page, is_listed("507"))
    page.execute_script("window.confirm = () => true")
    for status in (400, 409, 413, 507):
        wait(page, is_listed(str(status)))
        page.execute_script(FETCH, "^(PUT|DELETE) /history", status)
        delete = """[...document.querySelectorAll('.chat')].find(
            one => one.querySelector('.title').textContent === arguments[0]).querySelector('button[title]').click()"""
        page.execute_script(delete, str(status))
        wait(page, lambda p: p.execute_script("return window.matched.length"))
        todo = "return localStorage['seventy.sync.anna']"
        wait(page, lambda p, todo=todo: json.loads(p.execute_script(todo))["todo"] == {})
        page.execute_script("window.restore()")


def test_conversations_from_elsewhere_are_put_in_order(page: WebDriver) -> None:
    timings = dict.fromkeys(("queued_ms", "prompt_ms", "prompt_n", "cache_n", "predicted_n"), 1)
    good = {
        "id": "good", "parent": None, "role": "assistant", "content": "x", "at": 1, "rev": 1, "thoughts": "t",
        "end": {"reason": "stop", "timings": {**timings, "predicted_per_second": 2.5}}, "answer": "a" * 24,
        "files": [{"name": "n", "text": "t"}], "error": {"code": "offline"}, "unknown": [1],
    }  # fmt: skip
    nodes = {
        "good": good,
        # A circle, one of itself, and parents that are none.
        "a": {"id": "a", "parent": "b", "role": "user", "content": 5},
        "b": {"id": "b", "parent": "c", "role": "assistant", "content": "b"},
        "c": {"id": "c", "parent": "a", "role": "user", "content": "c",
              "files": [{}, None, {"name": "n", "text": "t"}]},
        "self": {"id": "self", "parent": "self", "role": "user", "content": ""},
        "lost": {"id": "lost", "parent": "toString", "role": "user", "content": "", "files": "none"},
        "null": {"id": "null", "parent": None, "role": "user", "content": ""},
        "bad": {
            "id": "bad", "parent": "good", "role": "assistant", "content": "", "thoughts": {"x": 1}, "used": "1",
            "thoughtSeconds": "1", "end": {"reason": [], "timings": {**timings, "predicted_per_second": "2"}},
            "pending": "../history", "answer": "../history", "error": {"code": {}, "message": 5}, "rev": "1",
            "at": None, "state": {"total": "x"},
        },
    }  # fmt: skip
    found = page.execute_async_script(
        """const [data, done] = arguments; import('/page/tree.js').then(tree => {
            const one = tree.upgraded(data), paths = {};
            for (const id of Object.keys(one.nodes)) paths[id] = tree.path({ ...one, leaf: id }).map(node => node.id);
            for (const node of Object.values(one.nodes)) tree.choose(one, node);
            done(JSON.parse(JSON.stringify({ one, paths })));
        })""",
        {"id": "x", "title": 5, "changed": "1", "start": {}, "leaf": "toString", "shown": None, "nodes": nodes},
    )
    one, paths = found["one"], found["paths"]
    assert one["title"] == "" and one["changed"] == 1 and one["start"] is None and "null" not in paths
    assert one["nodes"]["good"] == good
    assert sorted(len(paths[name]) for name in "abc") == [1, 2, 3] and paths["self"] == ["self"]
    assert paths["lost"] == ["lost"] and paths["bad"] == ["good", "bad"]
    assert one["nodes"]["a"]["content"] == "" and one["nodes"]["c"]["files"] == [{"name": "n", "text": "t"}]
    assert "files" not in one["nodes"]["lost"]
    empty = {"end": {}, "error": {}, "at": 0, "content": "", "id": "bad", "parent": "good", "role": "assistant"}
    assert one["nodes"]["bad"] == empty


def test_two_of_a_conversation_make_no_circle(page: WebDriver) -> None:
    def node(id: str, parent: str | None, rev: int) -> dict[str, Any]:
        return {"id": id, "parent": parent, "role": "user", "content": id, "rev": rev, "at": 1}

    first, second = (
        {"id": "x", "title": "", "changed": 1, "leaf": "a", "nodes": {"a": a, "b": b}}
        for a, b in ((node("a", None, 1), node("b", "a", 2)), (node("a", "b", 2), node("b", None, 1)))
    )
    length = page.execute_async_script(
        """const [first, second, done] = arguments; import('/page/tree.js').then(({ merge, path, upgraded }) =>
            done(path(merge(upgraded(first), upgraded(second))).length))""",
        first, second,
    )  # fmt: skip
    assert length in (1, 2)


def test_an_import_that_is_broken_breaks_no_page(page: WebDriver, server: Running, tmp_path: Path) -> None:
    settings(page, key="secret-anna")
    bad = {
        "a": {"id": "a", "role": "user", "content": "q", "files": [{}], "parent": "b"},
        "b": {"id": "b", "role": "assistant", "content": "answered", "parent": "a", "end": {"timings": {}}},
    }
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([{"id": "x", "title": "shared", "changed": 1, "nodes": bad, "leaf": "b"}]))
    page.find_element(By.ID, "import-picker").send_keys(str(path))
    wait(page, is_listed("shared"))
    page.refresh()
    wait(page, is_listed("shared"))
    page.execute_script("document.querySelector('.chat .title').click()")
    wait(page, lambda p: answers(p) == ["answered"])
    wait(page, lambda p: p.find_element(By.ID, "numbers").text)


def test_drafts_are_their_users(page: WebDriver, server: Running) -> None:
    box = page.find_element(By.ID, "input")
    box.send_keys("before there was a key")
    page.execute_script("""import('/page/store.js').then(store => { store.saveDraft('edit.x', 'edited'); })""")
    settings(page, key="secret-anna")
    wait(page, is_user("anna"))
    # What stood in the box is Anna's now, and hers alone.
    wait(page, lambda p: p.find_element(By.ID, "input").get_attribute("value") == "before there was a key")
    pair(page, server, BO)
    wait(page, is_user("bo"))
    wait(page, lambda p: p.find_element(By.ID, "input").get_attribute("value") == "")
    draft = """const done = arguments[0]; import('/page/store.js').then(store => done(store.draft('edit.x')))"""
    assert page.execute_async_script(draft) == ""
    page.find_element(By.ID, "input").send_keys("Bo's")
    pair(page, server, ANNA)
    wait(page, is_user("anna"))
    wait(page, lambda p: p.find_element(By.ID, "input").get_attribute("value") == "before there was a key")
    assert page.execute_async_script(draft) == "edited"
