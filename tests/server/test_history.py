"""Conversations kept on the server: whose they are, what is left of deleted ones, crashes and full disks."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seventy import SeventyError
from seventy.server.app import PageOptions
from seventy.server.errors import ApiError
from seventy.server.guard import Rules
from seventy.server.history import Conflict, History
from tests.server.conftest import Running, serving

ANNA, BO = ({"Authorization": f"Bearer secret-{name}"} for name in ("anna", "bo"))
RULES = Rules({"anna": "secret-anna", "bo": "secret-bo"}, owners=["bo"])


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with_file = History(tmp_path / "folder" / "history.db")
    yield with_file
    with_file.close()


def test_only_its_owner_reads_the_file(history: History) -> None:
    history.write("anna", "a", 0, '{"title": "t"}')
    files = list(history.path.parent.iterdir())
    assert len(files) == 3 and all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_changes_have_revisions_and_conflicts_are_found(history: History) -> None:
    assert history.write("anna", "a", 0, '"1"') == 1
    assert history.write("anna", "b", 0, '"2"') == 2
    assert history.write("anna", "a", 1, '"3"') == 3
    with pytest.raises(Conflict):
        history.write("anna", "a", 1, '"4"')
    assert history.read("anna", "a") == (3, '"3"') and history.read("bo", "a") is None
    assert [change["id"] for change in history.changes("anna", 1)] == ["b", "a"]
    history.delete("anna", "b")
    assert history.changes("anna", 3)[0] | {"changed": 0} == {"id": "b", "revision": 4, "changed": 0, "deleted": True}
    # A device that has not heard of it cannot bring it back.
    with pytest.raises(Conflict):
        history.write("anna", "b", 2, '"2"')
    assert history.export("anna") == ["3"] and not history.changes("bo")


def test_what_is_deleted_is_overwritten(history: History) -> None:
    secret = "a very private sentence"
    history.write("anna", "a", 0, f'"{secret * 2000}"')
    history.write("anna", "b", 0, f'"{secret}"')
    history.delete("anna", "a")
    history.delete_all("anna")
    found = b"".join(file.read_bytes() for file in history.path.parent.iterdir())
    assert secret.encode() not in found


def test_what_is_old_is_deleted(history: History) -> None:
    history.write("anna", "a", 0, '"old"')
    history.purge(time.time() + 364 * 86400)
    assert history.read("anna", "a")
    history.purge(time.time() + 366 * 86400)
    assert history.changes("anna") == []


def test_what_was_deleted_as_old_may_be_kept_again(history: History) -> None:
    revision = history.write("anna", "a", 0, '"old"')
    history.purge(time.time() + 366 * 86400)
    # A device still has it, at the revision it knows.
    assert history.write("anna", "a", revision, '"changed"') > revision
    history.delete("anna", "a")
    history.purge(time.time() + 366 * 86400)
    history.write("anna", "a", 0, '"new"')


def test_marks_of_what_was_deleted_have_bounds_too(tmp_path: Path) -> None:
    small = History(tmp_path / "h.db", user_bytes=20_000, all_bytes=400_000)
    with pytest.raises(ApiError, match="more than"):
        for at in range(1000):
            small.write("bo", f"{at:064}", 0, "{}")
            small.delete("bo", f"{at:064}")
    assert 20 < len(small.changes("bo")) < 100
    small.write("anna", "a", 0, "x" * 15_000)
    small.close()


def test_files_of_earlier_versions_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    database = sqlite3.connect(path)
    database.executescript("""
        create table conversations (
            user text not null, id text not null, revision integer not null, changed real not null, body text,
            primary key (user, id)
        ) without rowid;
        create index by_revision on conversations (user, revision);
        create table revisions (user text primary key, last integer not null) without rowid;
        insert into revisions values ('anna', 3);
    """)
    rows = [("anna", "a", 1, time.time(), '"' + "\u4e2d" * 3000 + '"'), ("anna", "b", 3, time.time(), None)]
    database.executemany("insert into conversations values (?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    for _ in range(2):
        history = History(path, user_bytes=10_000)
        assert history.export("anna") == ["\u4e2d" * 3000]
        with pytest.raises(ApiError, match="more than"):
            history.write("anna", "c", 0, "x" * 1_000)
        history.close()
    history = History(path, user_bytes=11_000)
    assert history.write("anna", "c", 0, "x" * 1_000) == 4
    history.close()


def test_what_a_user_has_is_not_read_to_be_summed(history: History) -> None:
    asked: list[str] = []
    history._database.set_trace_callback(asked.append)
    history.write("anna", "a", 0, "x" * 100_000)
    history._database.set_trace_callback(None)
    summed = [statement for statement in asked if "sum(" in statement]
    plan = [row[3] for statement in summed for row in history._database.execute(f"explain query plan {statement}")]
    assert plan and all("USING COVERING INDEX by_bytes (user=?)" in step for step in plan)


def test_room_is_bounded(tmp_path: Path) -> None:
    small = History(tmp_path / "h.db", user_bytes=10_000, all_bytes=200_000)
    small.write("anna", "a", 0, '"x"')
    with pytest.raises(ApiError, match="more than") as full:
        small.write("anna", "b", 0, "x" * 10_000)
    assert full.value.status == 507
    # As where the disk is full: what was there stays, and there is room again after a deletion.
    with pytest.raises(ApiError, match="full"):
        for user in range(100):
            small.write(f"user {user}", "a", 0, "x" * 9_000)
    assert small.read("anna", "a") == (1, '"x"')
    for user in range(5):
        small.delete_all(f"user {user}")
    small.write("anna", "c", 0, "x" * 5_000)
    small.close()


def test_killed_while_writing_it_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    code = (
        "import sys; from pathlib import Path; from seventy.server.history import History\n"
        "history = History(Path(sys.argv[1]))\n"
        "for at in range(100000):\n"
        "    history.write('anna', str(at), 0, 'x' * 20000); print(at, flush=True)\n"
    )
    last = 0
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as writer:
        assert writer.stdout
        for line in writer.stdout:
            last = int(line)
            if last >= 20:
                writer.kill()
    history = History(path)
    assert len(history.changes("anna")) in (last + 1, last + 2)
    history.close()
    database = sqlite3.connect(path)
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    code = (
        "import sqlite3, sys; from pathlib import Path; from seventy.server.errors import ApiError\n"
        "from seventy.server.history import History\n"
        "history, kept = History(Path('h.db')), []\n"
        "try:\n"
        "    for at in range(200): history.write('anna', str(at), 0, '\"' + 'x' * 20000 + '\"'); kept.append(str(at))\n"
        "except ApiError as error: assert error.status == 507, error\n"
        "else: sys.exit('the disk was not full')\n"
        "assert len(kept) > 5 and [each['id'] for each in history.changes('anna')] == kept\n"
        # There is room again: what is kept then is kept.
        "Path('other').unlink(); history.write('anna', 'last', 0, '\"y\"'); history.close()\n"
        "history = History(Path('h.db')); assert len(history.export('anna')) == len(kept) + 1; history.close()\n"
        "assert sqlite3.connect('h.db').execute('pragma integrity_check').fetchone() == ('ok',); print('kept')\n"
    )
    # A disk of 3 MB of its own, a third of it taken.
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && cd "$1" && head -c 1000000 /dev/zero > other && exec "$2" -c "$3"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(tmp_path)]
    probe = [*command[:4], "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe).returncode:
        pytest.skip("no disk of our own may be mounted here")
    found = subprocess.run([*command, sys.executable, code], capture_output=True, text=True, env=os.environ)
    assert found.stdout == "kept\n", found.stderr


def test_a_place_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SeventyError, match="cannot be kept"):
        History(tmp_path / "file" / "h.db")
    (tmp_path / "none.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SeventyError, match="cannot be kept"):
        History(tmp_path / "none.db")


def test_users_have_their_own(tiny: Path, history: History) -> None:
    with serving(tiny, rules=RULES, page=PageOptions(history=history)) as server:
        client = server.client

        def put(user: dict[str, str], revision: int, **conversation: Any) -> int:
            body = {"revision": revision, "conversation": conversation}
            return client.put("/history/one", content=json.dumps(body), headers=user).status_code

        assert client.get("/history").status_code == 401
        assert put(ANNA, 0, title="Anna's") == 200 and put(BO, 0, title="Bo's \ud83d") == 200
        assert put(ANNA, 0, title="again") == 409
        assert client.get("/history/one", headers=ANNA).json()["conversation"] == {"title": "Anna's"}
        assert client.get("/history/export", headers=BO).json()["conversations"] == [{"title": "Bo's \ufffd"}]
        assert client.delete("/history", headers=ANNA).status_code == 204
        assert client.get("/history/one", headers=ANNA).status_code == 404
        assert client.get("/history/one", headers=BO).status_code == 200
        assert client.get("/status", headers=ANNA).json()["history_days"] == 365
        assert not [at for at in client.get("/history?since=0", headers=ANNA).json()["changes"] if not at["deleted"]]


@pytest.mark.parametrize("since", ["-1", str(1 << 63), str(10**30), "x"])
def test_revisions_that_cannot_be_are_refused(since: str, tiny: Path, history: History) -> None:
    with serving(tiny, rules=RULES, page=PageOptions(history=history)) as server:
        answer = server.client.get("/history", params={"since": since}, headers=ANNA)
        assert answer.status_code == 400 and "since" in answer.json()["error"]["message"]
        assert server.client.get(f"/history?since={(1 << 63) - 1}", headers=ANNA).json() == {"changes": []}


def test_without_a_name_nothing_is_kept(random_model: Running) -> None:
    body = {"revision": 0, "conversation": {"title": "t"}}
    assert random_model.client.put("/history/one", json=body).status_code == 404
    assert random_model.client.get("/status").json()["history_days"] is None
