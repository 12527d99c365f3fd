"""The Dockerfile, compose.yaml and the docs' `docker run`, which no test can build: what they name exists.

Paths are in the build's context, arguments are those of `seventy serve`, the health check asks serve's port.
"""

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from seventy.cli import command

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
FILES = [DOCKERFILE, *ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]
RUNS = [(path.name, line.lstrip("# ")) for path in FILES for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip("# ").startswith("docker run ")]  # fmt: skip
# Of `docker run`, with a value each.
_WITH_VALUE = {"-p", "-v", "-e", "--name", "--restart", "--memory", "--cpus", "--cpuset-cpus", "--ipc", "--shm-size"}


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("form", "healthy"), [("--port\0{}\0", True), ("--port={}\0", True), ("--port\0009\0", False)])
def test_the_health_check_asks_the_port_that_was_given(form: str, healthy: bool, port: int, tmp_path: Path) -> None:
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found
    _, option, program = json.loads(found[1])
    arguments = tmp_path / "cmdline"
    arguments.write_text("/seventy/bin/python\0serve\0smollm2\0" + form.format(port))
    program = program.replace("/proc/1/cmdline", str(arguments))
    done = subprocess.run([sys.executable, option, program], capture_output=True, timeout=60)
    assert (done.returncode == 0) == healthy, done.stderr.decode()


def instruction(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)


def served(arguments: list[str]) -> dict[str, object]:
    """What serve's own parser makes of the entry point with these arguments; it exits where they are wrong."""
    (entry,) = map(json.loads, instruction("ENTRYPOINT"))
    assert entry[:2] == ["seventy", "serve"]
    serve = command("serve", "en").commands["serve"]
    return dict(serve.make_context("serve", [*entry[2:], *arguments]).params)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()}
    copied = [line.split()[:-1] for line in instruction("COPY") if not line.startswith("--from")]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists() and name.split("/")[0] not in ignored, name
    (variables,) = instruction("ENV")
    assert f"SEVENTY_MODELS={instruction('VOLUME')[0]}" in variables.split()


def test_the_image_serves_on_the_port_it_exposes() -> None:
    (default,) = map(json.loads, instruction("CMD"))
    given = served(default)
    assert given["models"] == default and given["host"] == "0.0.0.0"
    assert instruction("EXPOSE") == [str(given["port"])]


def test_compose_gives_what_serve_takes() -> None:
    yaml = pytest.importorskip("yaml")
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert (ROOT / service["build"] / "Dockerfile") == DOCKERFILE
    ports = [each.rpartition(":")[2] for each in service["ports"]]
    assert ports == [str(served(service["command"])["port"])]
    assert set(service["environment"]) <= environment()
    assert {each.split(":")[-1 if each.count(":") == 1 else -2] for each in service["volumes"]} >= {"/models"}


def environment() -> set[str]:
    parameters = command("serve", "en").commands["serve"].params
    return {str(each.envvar) for each in parameters if getattr(each, "envvar", None)} | {"HF_ENDPOINT", "HF_TOKEN"}


@pytest.mark.parametrize(("where", "line"), RUNS)
def test_docker_run_of_the_docs_has_arguments_of_serve(where: str, line: str) -> None:
    words, given = shlex.split(line, comments=True)[2:], []
    while words and words[0].startswith("-"):
        option = words.pop(0)
        given.append((option, words.pop(0) if option in _WITH_VALUE else ""))
    image, *arguments = words
    assert image == "seventy" or "/" in image, where
    port = str(served(arguments)["port"])
    for option, value in given:
        assert option != "-p" or value.rpartition(":")[2] == port, (where, line)
        assert option != "-e" or value.partition("=")[0] in environment(), (where, line)


def test_the_docs_show_how_to_run_it() -> None:
    assert {"Dockerfile", "household.md", "household.zh-CN.md"} <= {where for where, _ in RUNS}
