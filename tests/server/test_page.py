"""The page in a headless Chromium; the tests are skipped, and say so, where there is none."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seventy.server.app import PageOptions
from seventy.server.guard import Rules
from seventy.server.history import History
from tests.server.conftest import Running, serving

selenium = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import TimeoutException  # noqa: E402
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


def write_without_end(server: Running) -> None:
    """Let answers go on to their limit, so that there is time to stop them, and nothing depends on luck."""
    server.backend.llm.tokenizer.end_ids = frozenset()


@pytest.fixture(scope="module")
def small_model(small_model: Running) -> Running:
    write_without_end(small_model)
    return small_model


@pytest.fixture
def page(small_model: Running) -> Iterator[WebDriver]:
    with browser(1200, 800) as driver:
        visit(driver, small_model.url)
        yield driver
        said = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        # The policy stops handlers and styles while DOMPurify looks at them: the second fence before the first.
        assert not [message for message in said if "Content Security Policy" not in message]


def wait(page: WebDriver, condition: Callable[[WebDriver], object]) -> object:
    try:
        return WebDriverWait(page, 60, 0.05).until(condition)
    except TimeoutException:
        said = page.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"not within a minute; the page says: {said}") from None


def visit(page: WebDriver, url: str) -> None:
    page.get(url)
    is_shown(page)


def is_shown(page: WebDriver) -> None:
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, "#messages *"))


def send(page: WebDriver, text: str) -> None:
    wait(page, lambda p: p.find_element(By.ID, "send").is_displayed())
    page.find_element(By.ID, "input").send_keys(text)
    page.find_element(By.ID, "send").click()


def settings(page: WebDriver, **values: object) -> None:
    """Opens the page with these settings; answers are the likeliest where none says otherwise."""
    page.execute_script(
        "localStorage.setItem('seventy.settings', arguments[0])", json.dumps({"temperature": 0, **values})
    )
    page.refresh()
    is_shown(page)


def bring(page: WebDriver, folder: Path, *messages: tuple[str, str]) -> None:
    """Imports a conversation of (role, content)."""
    path = folder / "chat.json"
    said = [{"role": role, "content": content} for role, content in messages]
    path.write_text(json.dumps([{"id": secrets.token_hex(8), "title": "brought", "changed": 1, "messages": said}]))
    page.find_element(By.ID, "import-picker").send_keys(str(path))
    wait(page, lambda p: p.find_elements(By.XPATH, "//button[text()='brought']"))
    # The list may be made anew while it is looked at.
    page.execute_script(
        "[...document.querySelectorAll('.chat .title')].find(one => one.textContent === 'brought').click()"
    )


def click(page: WebDriver, text: str, at: int = -1) -> None:
    page.find_elements(By.XPATH, f"//button[text()='{text}']")[at].click()


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
    limit = """document.querySelector('#settings [name=max_tokens]').value = arguments[0];
               document.querySelector('#settings [name=temperature]').value = 0"""

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

    # Regenerate and edit: what was stays, beside what is new.
    longest(5)
    click(page, "Regenerate")
    again = "return document.querySelector('article:last-of-type .actions').textContent.includes('2/2')"
    wait(page, lambda p: is_done(p) and len(answers(p)) == 2 and answers(p)[1] and p.execute_script(again))
    assert answers(page)[0] == kept[0]
    page.find_element(By.XPATH, "//button[@title='Earlier version']").click()
    assert answers(page) == kept
    click(page, "Edit", 0)
    area = page.find_element(By.CSS_SELECTOR, "article.user textarea")
    area.clear()
    area.send_keys("Say hello.")
    page.find_element(By.CSS_SELECTOR, "article.user .primary").click()
    wait(page, lambda p: is_done(p) and len(answers(p)) == 1 and answers(p)[0])
    assert page.find_element(By.CSS_SELECTOR, "article.user > .text").text == "Say hello."
    assert "2/2" in page.find_element(By.CSS_SELECTOR, "article.user .actions").text
    page.find_element(By.XPATH, "//button[@title='Earlier version']").click()
    assert answers(page) == kept
    page.find_element(By.XPATH, "//article[contains(@class,'user')]//button[@title='Later version']").click()
    assert len(answers(page)) == 1

    # A second conversation, and back.
    page.find_element(By.ID, "new").click()
    assert not answers(page)
    send(page, "And who are you?")
    wait(page, lambda p: is_done(p) and len(answers(p)) == 1 and answers(p)[0])
    assert len(page.find_elements(By.CSS_SELECTOR, ".chat")) == 2
    page.find_elements(By.CSS_SELECTOR, ".chat .title")[1].click()
    shoot(page, "branches")
    assert page.find_element(By.CSS_SELECTOR, "article.user > .text").text == "Say hello."


def test_both_languages_and_both_colours(page: WebDriver) -> None:
    assert page.find_element(By.ID, "send").text == "Send"
    page.find_element(By.ID, "language").click()
    assert page.find_element(By.ID, "send").text == "发送"
    assert page.find_element(By.ID, "input").get_attribute("placeholder") == "想问点什么？"
    page.refresh()
    is_shown(page)
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
    wait(page, answers)
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
        visit(page, small_model.url)
        settings(page, max_tokens="20")
        assert page.find_element(By.ID, "send").text == "发送"
        assert not page.find_element(By.ID, "new").is_displayed() or page.find_element(By.ID, "side").rect["x"] < 0
        names = "\n".join(str(tmp_path / name) for name in ("note.txt", "gb.txt", "bad.bin"))
        page.find_element(By.ID, "picker").send_keys(names)
        wait(page, lambda p: len(p.find_elements(By.CSS_SELECTOR, ".chip")) == 2)
        assert "bad.bin 中没有文本" in page.find_element(By.ID, "messages").text
        send(page, "What is in the file?")
        wait(page, lambda p: is_done(p) and answers(p))
        assert page.find_element(By.CSS_SELECTOR, "article.user > .text").text == "What is in the file?"
        chips = page.find_elements(By.CSS_SELECTOR, "article.user .file")
        assert [chip.text.split(" ·")[0] for chip in chips] == ["note.txt", "gb.txt"]
        chips[1].click()
        wait(page, lambda p: "中文" in chips[1].text)
        sent = page.execute_async_script(
            "const done = arguments[0]; import('/page/files.js').then(files => done(files.withFiles('What?', ["
            "{name: 'note.txt', text: 'The answer is 70.'}, {name: 'gb.txt', text: '```'}])))"
        )
        assert sent == "note.txt\n```\nThe answer is 70.\n```\n\ngb.txt\n````\n```\n````\n\nWhat?"
        width = page.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
        shoot(page, "phone-zh")
        page.find_element(By.ID, "menu").click()
        wait(page, lambda p: p.find_element(By.ID, "side").rect["x"] == 0)
        shoot(page, "phone-zh-side")
    finally:
        page.quit()


def test_nothing_is_lost(page: WebDriver, small_model: Running, tmp_path: Path) -> None:
    # Reloaded in the middle of an answer: it is read on, and was asked once.
    asked = small_model.backend.scheduler.statistics.requests
    settings(page, max_tokens="150")
    send(page, "Write a long story about a lighthouse keeper and her cat.")
    wait(page, lambda p: answers(p) and len(answers(p)[0]) > 40)
    page.refresh()
    wait(page, lambda p: answers(p) and answers(p)[0])
    assert page.find_element(By.ID, "stop").is_displayed()
    # What is being edited outlives the answer that is written meanwhile, and a reload.
    click(page, "Edit", 0)
    area = page.find_element(By.CSS_SELECTOR, "article.user textarea")
    area.send_keys(" Begin with the sea.")
    page.find_element(By.ID, "input").send_keys("half a thought")
    wait(page, is_done)
    assert not page.find_elements(By.CSS_SELECTOR, "article .error")
    assert area.get_attribute("value").endswith("Begin with the sea.")
    assert small_model.backend.scheduler.statistics.requests == asked + 1
    page.refresh()
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, "article.user textarea"))
    area = page.find_element(By.CSS_SELECTOR, "article.user textarea")
    assert area.get_attribute("value").endswith("Begin with the sea.")
    assert page.find_element(By.ID, "input").get_attribute("value") == "half a thought"
    shoot(page, "editing")
    click(page, "Cancel", 0)
    page.find_element(By.ID, "input").clear()

    # A second page shows the answer while it is written, and stops it.
    send(page, "Count from 1 to 1000, each number on a line.")
    wait(page, lambda p: len(answers(p)) == 2 and answers(p)[1])
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    visit(page, small_model.url)
    wait(page, lambda p: len(answers(p)) == 2 and answers(p)[1])
    page.find_element(By.ID, "stop").click()
    wait(page, is_done)
    page.close()
    page.switch_to.window(first)
    wait(page, is_done)
    assert "Stopped." in page.find_elements(By.CSS_SELECTOR, "article.assistant")[1].text
    small_model.idle()


def test_a_conversation_that_outgrew_its_context(page: WebDriver, small_model: Running, tmp_path: Path) -> None:
    settings(page, max_tokens="8")
    turns = [(role, f"{role} says {at}: " + "many words about the sea " * 12) for at in range(20)
             for role in ("user", "assistant")]  # fmt: skip
    bring(page, tmp_path, *turns)
    send(page, "hello?")
    wait(page, lambda p: is_done(p) and answers(p)[-1] and len(answers(p)) == 21)
    assert not page.find_elements(By.CSS_SELECTOR, "article .error")
    assert "no longer reads" in page.find_element(By.CSS_SELECTOR, ".horizon").text
    share = page.find_element(By.CSS_SELECTOR, "#gauge meter").get_attribute("value")
    assert 0.25 < float(share or 0) < 0.6
    shoot(page, "context")

    # What is too long is said before, fails by itself, and leaves the conversation as it was.
    page.execute_script(
        "const box = document.getElementById('input'); box.value = 'word '.repeat(5000);"
        "box.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    wait(page, lambda p: "the context holds 2048" in p.find_element(By.ID, "too-long").text)
    page.find_element(By.ID, "send").click()
    wait(page, lambda p: is_done(p) and p.find_elements(By.CSS_SELECTOR, "article .error"))
    assert "longer than the model's context" in page.find_element(By.CSS_SELECTOR, "article .error").text
    apart = "return [...document.querySelectorAll('article.apart')].length"
    assert page.execute_script(apart) == 2
    after = "return document.querySelectorAll('.horizon ~ article').length"
    assert page.execute_script(after) > 4
    shoot(page, "too-long")
    send(page, "And now?")
    wait(page, lambda p: is_done(p) and answers(p)[-1] and len(answers(p)) == 22)
    assert not page.find_elements(By.CSS_SELECTOR, "article .error")

    # The last exchange goes on in a conversation of its own.
    click(page, "Continue in a new chat")
    wait(page, lambda p: len(answers(p)) == 1)
    page.find_element(By.ID, "search").send_keys("sea 13")
    wait(page, lambda p: len(p.find_elements(By.CSS_SELECTOR, ".chat")) == 1)
    page.find_element(By.ID, "search").send_keys(" nowhere")
    wait(page, lambda p: not p.find_elements(By.CSS_SELECTOR, ".chat"))


def test_math_code_tasks_and_tables(page: WebDriver, tmp_path: Path) -> None:
    text = (
        "Euler: $e^{i\\pi} = -1$, \\(a_1 * b_2\\), for $5 and $10.\n\n\\[\n\\int_0^1 x^2\n= \\frac13\n\\]\n\n"
        "$$\\sum_{k=1}^n k$$\n\n- [x] done\n- [ ] open\n\n```python\ndef f(x):\n    return 'text'  # why\n```\n\n"
        "| a | b |\n|---|---|\n| $x$ | 2 |\n\n$\\notacommand{x}$ and $\\href{javascript:alert(1)}{x}$"
    )
    bring(page, tmp_path, ("user", "q"), ("assistant", text))
    wait(page, lambda p: len(p.find_elements(By.CSS_SELECTOR, ".math math")) >= 5)
    wait(page, lambda p: p.find_elements(By.CSS_SELECTOR, ".hljs-keyword"))
    answer = page.find_element(By.CSS_SELECTOR, "article.assistant > .text")
    assert "for $5 and $10" in answer.text and "☑ done" in answer.text and "☐ open" in answer.text
    assert answer.find_elements(By.CSS_SELECTOR, ".wide math")
    html = answer.get_attribute("innerHTML") or ""
    assert "<a " not in html and 'style="' not in html
    shoot(page, "math")


def pdf(text: bytes) -> bytes:
    """A PDF of a page that shows a text of GBK, with a font that is not in it: its table of characters is wanted."""
    content = b"BT /F 24 Tf 20 100 Td <" + text.hex().encode() + b"> Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type0/BaseFont/SimSun/Encoding/GBK-EUC-H/DescendantFonts[6 0 R]>>",
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/SimSun/FontDescriptor 7 0 R"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>>>",
        b"<</Type/FontDescriptor/FontName/SimSun/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800"
        b"/Descent -200/CapHeight 700/StemV 80>>",
    ]  # fmt: skip
    out, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj" % number + each + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return out + head + table + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))


def test_the_text_of_a_pdf(page: WebDriver, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("中文文本".encode("gbk")))
    (tmp_path / "b.pdf").write_bytes(b"no pdf")
    page.find_element(By.ID, "picker").send_keys(f"{tmp_path / 'a.pdf'}\n{tmp_path / 'b.pdf'}")
    wait(page, lambda p: "There is no text in b.pdf" in p.find_element(By.ID, "messages").text)
    text = page.execute_script("return JSON.parse(localStorage['seventy.draft.new']).files[0].text")
    assert text == "中文文本"


def test_keys_codes_and_two_users(smollm2: Path, tmp_path: Path) -> None:
    keys = {"anna": "secret-anna", "bo": "secret-bo"}
    options = PageOptions(history=History(tmp_path / "history.db"))
    with serving(smollm2, context=512, rules=Rules(keys, owners=["bo"]), page=options) as server:
        server.wait()
        write_without_end(server)
        page, phone = browser(1200, 800), browser(390, 844)
        try:
            visit(page, server.url)
            settings(page, max_tokens="5")
            send(page, "Anna's question")
            key = page.find_element(By.CSS_SELECTOR, "#key-dialog input")
            wait(page, lambda p: key.is_displayed())
            shoot(page, "key")
            key.send_keys("wrong")
            page.find_element(By.CSS_SELECTOR, "#key-dialog .primary").click()
            wait(page, lambda p: "does not know" in p.find_element(By.ID, "key-error").text)
            key.clear()
            key.send_keys("secret-anna")
            page.find_element(By.CSS_SELECTOR, "#key-dialog .primary").click()
            # The question is sent after it.
            wait(page, lambda p: is_done(p) and answers(p) and answers(p)[0])
            # A code for the phone.
            page.find_element(By.ID, "open-settings").click()
            wait(page, lambda p: p.find_element(By.ID, "open-devices").is_displayed())
            page.find_element(By.ID, "open-devices").click()
            wait(page, lambda p: p.find_element(By.CSS_SELECTOR, "#device-code output").text)
            code = page.find_element(By.CSS_SELECTOR, "#device-code output").text
            shoot(page, "device")
            page.find_element(By.CSS_SELECTOR, "#devices .primary").click()
            visit(phone, server.url)
            settings(phone, max_tokens="5")
            phone.get(f"{server.url}/#pair={code}")
            wait(phone, lambda p: "secret-anna" in p.execute_script("return localStorage['seventy.settings'] || ''"))
            assert "#" not in phone.current_url
            # The server keeps conversations here: the phone has them, and what it deletes is gone from both.
            wait(phone, lambda p: p.execute_script("return document.querySelector('.chat .title')?.textContent"))
            phone.execute_script("document.querySelector('.chat .title').click()")
            # It may come a moment after its place.
            wait(phone, lambda p: answers(p) == answers(page))
            shoot(phone, "phone-history")
            send(phone, "From the phone")
            wait(phone, lambda p: is_done(p) and len(answers(p)) == 2 and answers(p)[1])
            wait(page, lambda p: answers(p) == answers(phone))
            # Bo's conversations in the same browser are Bo's.
            settings(page, key="secret-bo", max_tokens="5")
            wait(page, lambda p: not p.find_elements(By.CSS_SELECTOR, ".chat"))
            send(page, "Bo's question")
            wait(page, lambda p: is_done(p) and answers(p) and answers(p)[0])
            titles = [one.text for one in page.find_elements(By.CSS_SELECTOR, ".chat .title")]
            assert titles == ["Bo's question"]
            settings(page, key="secret-anna", max_tokens="5")
            wait(page, lambda p: p.find_element(By.CSS_SELECTOR, ".chat .title").text == "Anna's question")
            # Deleted here, it is gone from the phone.
            page.execute_script("window.confirm = () => true; document.querySelector('.chat button[title]').click()")
            wait(phone, lambda p: not p.find_elements(By.CSS_SELECTOR, ".chat"))
        finally:
            page.quit()
            phone.quit()
