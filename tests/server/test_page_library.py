"""The page's list of models in a headless Chromium: choosing one, loading it, fetching another."""

from pathlib import Path
from typing import Any

from seventy.cli.pull import unattended
from seventy.server.guard import Rules
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from tests.server.conftest import Loads, running
from tests.server.test_library import REPOSITORY, folder, hub, offer
from tests.server.test_page import By, browser, pytestmark, shoot, wait
from tests.support.hub import Hub

__all__ = ["folder", "hub", "pytestmark"]


def rows(page: Any) -> dict[str, str]:
    script = """return [...document.querySelectorAll('#library-models li')].map(
        one => [one.querySelector('.name').innerText, one.querySelector('.note').innerText])"""
    return dict(page.execute_script(script))


def test_an_owner_chooses_loads_and_fetches(hub: Hub, folder: Path, tmp_path: Path, tiny: Path) -> None:
    offer(hub, tmp_path)
    hub.bytes_per_second = 400_000
    models = [ServedModel("ada", tiny), ServedModel("bob", folder / "first.gguf")]
    page = browser(390, 844)
    try:
        with running(ModelPool(models, Loads(512)), fetch=unattended) as server:
            server.wait()
            page.get(server.url)
            wait(page, lambda p: p.find_element(By.ID, "open-library").is_displayed())
            page.find_element(By.ID, "open-library").click()
            wait(page, lambda p: rows(p) == {"ada": "loaded", "bob": "not loaded"})
            page.execute_script("document.querySelector('[data-action=load][data-model=bob]').click()")
            wait(page, lambda p: rows(p)["bob"] == "loaded")
            page.execute_script("document.querySelector('[data-action=use][data-model=bob]').click()")
            wait(page, lambda p: p.execute_script("return document.getElementById('models').value") == "bob")
            page.find_element(By.NAME, "name").send_keys("no-such-model\n")
            state = page.find_element(By.ID, "pull-state")
            wait(page, lambda p: "there is no model" in state.text)
            page.find_element(By.NAME, "name").clear()
            page.find_element(By.NAME, "name").send_keys(f"hf:{REPOSITORY}:Q8_0\n")
            wait(page, lambda p: " of " in state.text and p.find_elements(By.CSS_SELECTOR, "#pull-state progress"))
            shoot(page, "library")
            page.find_element(By.ID, "pull-stop").click()
            wait(page, lambda p: state.text.startswith("Stopped"))
            page.execute_script("document.getElementById('pull').requestSubmit()")
            wait(page, lambda p: state.text.endswith("is here."))
            wait(page, lambda p: rows(p).get("Own-Q8_0") == "not loaded")
            assert page.execute_script("return document.documentElement.scrollWidth") <= 390
            assert not [entry for entry in page.get_log("browser") if "/api/pull" not in entry["message"]]
    finally:
        page.quit()


def test_a_guest_of_one_model_sees_no_list(tiny: Path) -> None:
    page = browser(1200, 800)
    try:
        with running(ModelPool([ServedModel("ada", tiny)], Loads(512)), Rules({"bo": "secret"})) as server:
            page.get(server.url)
            page.execute_script("localStorage.setItem('seventy.settings', '{\"key\": \"secret\"}')")
            page.refresh()
            wait(page, lambda p: p.find_element(By.ID, "model").text == "ada")
            assert not page.find_element(By.ID, "open-library").is_displayed()
            assert not page.execute_script("return document.getElementById('pull').checkVisibility()")
    finally:
        page.quit()
