"""`seventy cluster` without Ray; and, where Ray is and tests may make network namespaces, on two hosts with it."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seventy.cli import main
from seventy.cluster import key, node
from seventy.cluster.node import Node

HAS_RAY = importlib.util.find_spec("ray") is not None
MAY_MAKE_HOSTS = os.name == "posix" and os.geteuid() == 0 and all(map(shutil.which, ("ip", "ss", "unshare", "nsenter")))
HEAD, WORKER = "10.27.7.1", "10.27.7.2"
SERVED = "http://10.27.7.1:8070"


@pytest.mark.parametrize("words", ["start 127.0.0.1", "join 127.0.0.1 --key k", "status", "serve x"])
def test_without_ray_one_sentence_says_what_to_install(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    monkeypatch.setattr(sys, "argv", ["seventy", "cluster", *words.split()])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "needs ray; install it" in said and "'.[cluster]'" in said


def test_a_number_of_another_process_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / "models"))
    node.folder().mkdir()
    (node.folder() / "node.json").write_text(
        f'{{"pid": {os.getpid()}, "created": 1.0, "address": "a", "head": "a", "port": 1}}'
    )
    assert node.current() is None and node.stop() == 0


def test_the_firewalls_lines_name_the_interface_of_the_address() -> None:
    lines = node.firewall(Node(1, 1.0, "127.0.0.1", "127.0.0.1", 20000))
    assert any("{ lo, lo }" in line and "20000-20099" in line for line in lines)


class Host:
    """A host of its own: network, processes, /dev/shm and /tmp/ray."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        keep = "for d in /dev/shm /tmp/ray; do mkdir -p $d; mount -t tmpfs none $d; done; while :; do sleep 1; done"
        own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", keep]
        self._first = subprocess.Popen(["ip", "netns", "exec", name, *own])
        time.sleep(1)

    def command(self, *words: str) -> list[str]:
        here = f"/proc/{self._first.pid}/ns"
        return ["nsenter", f"--net={here}/net", f"--pid={here}/pid_for_children", f"--mount={here}/mnt", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, env=self.environment, timeout=120)

    def seventy(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "seventy", "cluster", *words)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"SEVENTY_MODELS": str(self.folder / "models"), "SEVENTY_LANG": "en"}

    def close(self) -> None:
        self._first.kill()
        self._first.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    names = [f"s70-{os.getpid()}-{letter}" for letter in "ab"]
    with contextlib.ExitStack() as stack:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        link = ["ip", "-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1]]
        subprocess.run(link, check=True)
        for name, address in zip(names, (HEAD, WORKER), strict=True):
            for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                          ["link", "set", "lo", "up"]):  # fmt: skip
                subprocess.run(["ip", "-n", name, *words], check=True)
        first, second = (Host(name, tmp_path / name) for name in names)
        stack.callback(first.close)
        stack.callback(second.close)
        yield first, second


@pytest.mark.skipif(not (HAS_RAY and MAY_MAKE_HOSTS), reason="needs ray, and root for network namespaces")
def test_two_hosts_answer_one_is_lost_and_joins_again(hosts: tuple[Host, Host], tiny: Path) -> None:
    head, worker = hosts
    started = head.seventy("start", HEAD)
    assert started.returncode == 0, started.stderr
    refused = worker.seventy("join", HEAD, "--key", key.new_key())
    assert refused.returncode == 1 and "has another key" in refused.stderr
    joined = worker.seventy("join", HEAD, "--key", started.stdout.strip())
    assert joined.returncode == 0, joined.stderr
    words = [sys.executable, "-m", "seventy", "cluster", "serve", str(tiny), "--host", HEAD, "--insecure-no-api-key"]
    serving = subprocess.Popen(head.command(*words, "--threads", "1"), env=head.environment)
    try:
        until(lambda: shown(worker) == {HEAD: True, WORKER: True})
        assert ask(worker) == 200
        check_sockets(worker, head)
        worker.run("sh", "-c", "kill -9 -1")
        assert [ask(head) for _ in range(3)] == [200] * 3
        until(lambda: shown(head) == {HEAD: True})
        assert worker.seventy("join", HEAD, "--key", started.stdout.strip()).returncode == 0
        until(lambda: shown(worker) == {HEAD: True, WORKER: True})
        assert WORKER in worker.seventy("status").stdout
        before = head.run("ps", "ax", "-o", "args=").stdout
        worker.seventy("stop")
        assert "raylet" not in worker.run("ps", "ax", "-o", "args=").stdout and "raylet" in before
        assert "raylet" in head.run("ps", "ax", "-o", "args=").stdout
    finally:
        serving.terminate()
        serving.wait(60)


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(300):
        if is_so():
            return
        time.sleep(0.3)
    raise AssertionError("it did not become so")


def shown(host: Host) -> dict[str, bool]:
    out = host.run(sys.executable, "-c", f"import httpx; print(httpx.get('{SERVED}/cluster').text)").stdout
    return {each["name"]: each["up"] for each in json.loads(out)["machines"]} if out else {}


def ask(host: Host) -> int:
    body = '{"prompt": "a", "max_tokens": 4}'
    code = f"import httpx; print(httpx.post('{SERVED}/v1/completions', content='{body}', timeout=60).status_code)"
    return int(host.run(sys.executable, "-c", code).stdout or 0)


def check_sockets(asked: Host, asking: Host) -> None:
    """No port that takes work answers without the cluster's certificate and token."""
    listening = [line.split()[3] for line in asked.run("ss", "-ltnH").stdout.splitlines()]
    ports = [int(place.rpartition(":")[2]) for place in listening if not place.startswith("127.")]
    assert len(ports) >= 4
    for port in ports:
        said = asking.run(sys.executable, str(Path(__file__).with_name("probe.py")), WORKER, str(port)).stdout.strip()
        assert said in ("b'' b''", "401 b''"), (port, said)
