"""Codes for further devices."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from seventy.server import pairing
from seventy.server.guard import Rules
from seventy.server.pairing import Pairing
from tests.server.conftest import Running, serving

ANNA, BO = ({"Authorization": f"Bearer secret-{name}"} for name in ("anna", "bo"))
KEYS = {"anna": "secret-anna", "bo": "secret-bo"}


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Running]:
    with serving(tiny, rules=Rules(KEYS, owners=["bo"])) as running:
        yield running


def test_a_code_is_good_once_for_ten_minutes() -> None:
    now = 0.0
    codes = Pairing(KEYS, "http://192.168.1.5:8070", lambda: now)
    code = codes.code("anna")
    assert codes.link(code) == f"http://192.168.1.5:8070/#pair={code}"
    assert codes.take("AAAA-AAAA") is None
    assert codes.take(code.lower().replace("-", " ")) == "anna"
    assert codes.take(code) is None
    code, now = codes.code("anna"), 599.0
    assert codes.take(code) == "anna"
    code, now = codes.code("anna"), 1200.0
    assert codes.take(code) is None
    first, other, second = codes.code("anna"), codes.code("bo"), codes.code("anna")
    assert codes.take(first) is None and codes.take(second) == "anna" and codes.take(other) == "bo"


def test_a_device_gets_its_users_key(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "_WRONG_SECONDS", 0.0)
    client = server.client
    assert client.post("/pair/codes", json={}).status_code == 401
    made = client.post("/pair/codes", json={}, headers=ANNA).json()
    assert made["user"] == "anna" and made["link"] == f"{server.url}/#pair={made['code']}"
    assert made["picture"].startswith("data:image/svg+xml") and "secret" not in str(made)
    assert client.post("/pair", json={"code": made["code"]}).json() == {"user": "anna", "key": "secret-anna"}
    again = client.post("/pair", json={"code": made["code"]})
    assert again.status_code == 404 and again.json()["error"]["code"] == "wrong_code"


def test_owners_make_codes_for_others(server: Running) -> None:
    client = server.client
    assert client.post("/pair/codes", json={"user": "bo"}, headers=ANNA).status_code == 403
    assert client.post("/pair/codes", json={"user": "anna"}, headers=BO).json()["user"] == "anna"
    assert client.post("/pair/codes", json={"user": "nobody"}, headers=BO).status_code == 404
