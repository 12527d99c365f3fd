"""The health check of the Dockerfile, which no test can build: the port it asks is the one that serve was given."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[1] / "Dockerfile"


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
