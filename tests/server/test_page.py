"""The page in a headless Chromium; the tests are skipped, and say so, where there is none."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.conftest import Running

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    # The driver's own.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def browser(width: int, height: int, language: str = "en-US") -> WebDriver:
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--no-first-run", f"--window-size={width},{height}", f"--lang={language}", f"--accept-lang={language}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    return driver


@pytest.fixture
def page(small_model: Running) -> Iterator[WebDriver]:
    driver = browser(1200, 800)
    try:
        driver.get(small_model.url)
        yield driver
        said = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        # The policy stops handlers and styles while DOMPurify looks at them: the second fence before the first.
        assert not [message for message in said if "Content Security Policy" not in message]
    finally:
        driver.quit()


def wait(page: WebDriver, condition: Callable[[WebDriver], object]) -> object:
    return WebDriverWait(page, 60, 0.05).until(condition)


def send(page: WebDriver, text: str) -> None:
    page.find_element(By.ID, "input").send_keys(text)
    page.find_element(By.ID, "send").click()


def answers(page: WebDriver) -> list[str]:
    # At once: while it is written an element does not live long.
    script = "return [...document.querySelectorAll('article.assistant > .text')].map(one => one.innerText)"
    return list(page.execute_script(script))


def is_done(page: WebDriver) -> bool:
    return page.find_element(By.ID, "send").is_displayed()


def shoot(page: WebDriver, name: str) -> None:
    """Keeps a screenshot where SEVENTY_SCREENSHOTS names a folder, to be looked at."""
    if folder := os.environ.get("SEVENTY_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_send_stream_stop_reload(page: WebDriver, small_model: Running) -> None:
    limit = "document.querySelector('#settings [name=max_tokens]').value = arguments[0]"

    def longest(tokens: int) -> None:
        page.find_element(By.ID, "open-settings").click()
        page.execute_script(limit, tokens)
        page.find_element(By.CSS_SELECTOR, "#settings .primary").click()

    assert "What would you like to know?" in page.find_element(By.ID, "messages").text
    longest(30)
    send(page, "Write a short poem about a small computer.")
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, "article.assistant"))
    wait(page, is_done)
    first = answers(page)
    assert len(first) == 1 and first[0]
    assert "tok/s" in page.find_element(By.CSS_SELECTOR, "article.assistant > .note").text
    shoot(page, "desktop")

    # Stop: the server is free at once, and what came stays.
    longest(1800)
    send(page, "Count from 1 to 1000, each number on a line.")
    wait(page, lambda p: len(answers(p)) == 2 and answers(p)[1])
    page.find_element(By.ID, "stop").click()
    wait(page, is_done)
    assert "Stopped." in page.find_elements(By.CSS_SELECTOR, "article.assistant")[1].text
    small_model.idle()
    kept = answers(page)
    page.refresh()
    wait(page, lambda p: answers(p) == kept)

    # Regenerate and edit.
    longest(5)
    page.find_elements(By.XPATH, "//button[text()='Regenerate']")[0].click()
    wait(page, lambda p: is_done(p) and len(answers(p)) == 2 and answers(p)[1] != kept[1])
    assert answers(page)[0] == kept[0]
    page.find_elements(By.XPATH, "//button[text()='Edit']")[0].click()
    area = page.find_element(By.CSS_SELECTOR, "article.user textarea")
    area.clear()
    area.send_keys("Say hello.")
    page.find_element(By.CSS_SELECTOR, "article.user .primary").click()
    wait(page, lambda p: is_done(p) and len(answers(p)) == 1 and answers(p)[0])
    assert page.find_element(By.CSS_SELECTOR, "article.user > .text").text == "Say hello."

    # A second conversation, and back.
    page.find_element(By.ID, "new").click()
    assert not answers(page)
    send(page, "And who are you?")
    wait(page, lambda p: is_done(p) and len(answers(p)) == 1 and answers(p)[0])
    assert len(page.find_elements(By.CSS_SELECTOR, ".chat")) == 2
    page.find_elements(By.CSS_SELECTOR, ".chat .title")[1].click()
    assert page.find_element(By.CSS_SELECTOR, "article.user > .text").text == "Say hello."


def test_both_languages_and_both_colours(page: WebDriver) -> None:
    assert page.find_element(By.ID, "send").text == "Send"
    page.find_element(By.ID, "language").click()
    assert page.find_element(By.ID, "send").text == "发送"
    assert page.find_element(By.ID, "input").get_attribute("placeholder") == "想问点什么？"
    page.refresh()
    assert page.find_element(By.ID, "send").text == "发送"
    light = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.find_element(By.ID, "open-settings").click()
    page.execute_script("document.querySelector('#settings [name=theme]').value = 'dark'")
    page.execute_script("document.querySelector('#settings [name=max_tokens]').value = 40")
    shoot(page, "settings-zh")
    page.find_element(By.CSS_SELECTOR, "#settings .primary").click()
    wait(page, lambda p: p.execute_script("return getComputedStyle(document.body).backgroundColor") != light)
    send(page, "你好，请介绍一下你自己。")
    wait(page, lambda p: is_done(p) and answers(p))
    shoot(page, "desktop-zh-dark")


def test_what_a_model_writes_can_do_nothing(page: WebDriver, small_model: Running) -> None:
    text = (
        "# Title\n\n**bold** `code` [link](https://example.org) [bad](javascript:alert(1))\n\n"
        "```python\nprint(1)\n```\n"
        "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">"
        "<a href='#' onclick='document.title=1' style='position:fixed'>x</a><form action=/x>y</form>\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    page.execute_script(
        "localStorage.setItem('seventy.chat.x', JSON.stringify({id: 'x', title: 't', changed: 1, messages:"
        "[{role: 'user', content: 'q'}, {role: 'assistant', content: arguments[0]}]}))",
        text,
    )
    page.refresh()
    answer = page.find_element(By.CSS_SELECTOR, "article.assistant > .text")
    assert answer.find_element(By.TAG_NAME, "strong").text == "bold"
    assert answer.find_element(By.CSS_SELECTOR, ".code pre").text == "print(1)"
    assert answer.find_elements(By.TAG_NAME, "td")[1].text == "2"
    html = answer.get_attribute("innerHTML") or ""
    for bad in ("<script", "<img", "onclick", "javascript:", "style=", "<form"):
        assert bad not in html
    assert page.title == "seventy"
    # Nothing was asked of any other machine.
    messages = [entry["message"] for entry in page.get_log("performance")]
    requests = [message for message in messages if '"Network.requestWillBeSent"' in message]
    assert requests and all(small_model.url in message for message in requests)
    shoot(page, "markdown")


def test_a_phone_and_files(small_model: Running, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The answer is 70.")
    (tmp_path / "gb.txt").write_bytes("中文".encode("gb18030"))
    (tmp_path / "bad.bin").write_bytes(b"\0\1\2")
    page = browser(390, 844, "zh-CN")
    try:
        page.get(small_model.url)
        page.execute_script("localStorage.setItem('seventy.settings', '{\"max_tokens\": \"20\"}')")
        page.refresh()
        assert page.find_element(By.ID, "send").text == "发送"
        assert not page.find_element(By.ID, "new").is_displayed() or page.find_element(By.ID, "side").rect["x"] < 0
        names = "\n".join(str(tmp_path / name) for name in ("note.txt", "gb.txt", "bad.bin"))
        page.find_element(By.ID, "picker").send_keys(names)
        wait(page, lambda p: len(p.find_elements(By.CSS_SELECTOR, ".chip")) == 2)
        assert "bad.bin 不是文本文件" in page.find_element(By.ID, "messages").text
        send(page, "What is in the file?")
        wait(page, lambda p: is_done(p) and answers(p))
        shown = page.find_element(By.CSS_SELECTOR, "article.user > .text").text
        assert shown == "note.txt\n```\nThe answer is 70.\n```\n\ngb.txt\n```\n中文\n```\n\nWhat is in the file?"
        width = page.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
        shoot(page, "phone-zh")
        page.find_element(By.ID, "menu").click()
        wait(page, lambda p: p.find_element(By.ID, "side").rect["x"] == 0)
        shoot(page, "phone-zh-side")
    finally:
        page.quit()
