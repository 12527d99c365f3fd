import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from seventy.cli.service import unit
from seventy.server import listen


def seventy(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"XDG_CONFIG_HOME": str(home)} if home else {})
    environment.pop("SEVENTY_API_KEY", None)
    return subprocess.run(
        [sys.executable, "-m", "seventy", *arguments], capture_output=True, text=True, env=environment, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.gguf",), "there is no model or file 'nothing.gguf'"),
        (("TINY", "--host", "0.0.0.0"), "lets everyone on the network in; give --api-key KEY"),
        (("TINY", "--host", "::"), "lets everyone on the network in"),
        (("TINY", "--port", "TAKEN"), "is taken; choose another with --port"),
        (("TINY", "--api-keys", "nowhere"), "the keys cannot be read from nowhere"),
        (("TINY", "--port", "0", "--context", "2000", "--parallel", "64", "--threads", "5000"), "threads must be"),
        (("TINY", "--pooling", "all"), "--pooling is mean, last, none or rank"),
        (("TINY", "TINY", "--name", "x"), "--name is for one model"),
        (("TINY", "--default", "other"), "--default 'other' is none of the models that are served: tiny"),
        (("TINY", "--keep-alive", "soon"), "--keep-alive: keep_alive is a number of seconds or a duration"),
        (("--models", "some"), "--models is all, for every model on this disk, not 'some'"),
    ],
)
def test_what_keeps_it_from_serving_is_one_sentence(tiny: Path, arguments: tuple[str, ...], said: str) -> None:
    with listen.bind("127.0.0.1", 0) as taken:
        places = {"TINY": str(tiny), "TAKEN": str(taken.getsockname()[1])}
        result = seventy("serve", *[places.get(one, one) for one in arguments])
    assert result.returncode == 1
    assert result.stderr.startswith("seventy: ") and said in result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout


def test_too_little_memory_is_told(tiny: Path) -> None:
    script = (
        "import sys, seventy.machine.memory as m\nm.available_bytes = lambda: 1000\n"
        f"sys.argv = ['seventy', 'serve', {str(tiny)!r}, '--port', '0']\nfrom seventy.cli import main\nmain()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert " of memory and 0.0 MB of " in result.stderr and result.stderr.count("\n") == 1


def test_sigterm_lets_answers_end(tiny: Path) -> None:
    command = [sys.executable, "-m", "seventy", "serve", str(tiny), "--port", "0", "--context", "2000", "-v"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    try:
        said = [server.stderr.readline() for _ in range(3)]
        assert "2 layers of 256" in said[0] and "the defaults" in said[1]
        match = re.search(r"http://\S+", said[2])
        assert match
        url, texts = match[0], list[str]()

        def ask() -> None:
            body = {"prompt": "x" * 500, "max_tokens": 1400, "ignore_eos": True}
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
            texts.append(answer["choices"][0]["finish_reason"])

        thread = threading.Thread(target=ask)
        thread.start()
        while "seventy_running_requests 1.0" not in httpx.get(f"{url}/metrics").text and thread.is_alive():
            pass
        server.send_signal(signal.SIGTERM)
        thread.join(60)
        assert texts == ["length"]
        assert server.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_every_model_of_this_disk(tmp_path: Path, tiny: Path) -> None:
    for name, data in {"a": tiny.read_bytes(), "b": tiny.read_bytes().replace(b"llama", b"lambo")}.items():
        (tmp_path / f"{name}.gguf").write_bytes(data)
    environment = os.environ | {"SEVENTY_MODELS": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "seventy", "serve", str(tiny), "--models", "all", "--default", "a", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stderr
    try:
        said = [server.stderr.readline() for _ in range(3)]
        assert said[0].startswith("left out: ") and "b.gguf" in said[0] and "lambo" in said[0]
        match = re.search(r"a \(.*\), and 1 more when asked for: (http://\S+)", said[2])
        assert match, said
        models = httpx.get(f"{match[1]}/v1/models").json()["data"]
        assert [model["id"] for model in models] == ["a", "tiny"]
        body = {"model": "tiny", "prompt": "x", "max_tokens": 2}
        assert httpx.post(f"{match[1]}/v1/completions", json=body, timeout=60).json()["model"] == "tiny"
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_a_service_is_written_and_removed(tmp_path: Path, tiny: Path) -> None:
    result = seventy(
        "service", "install", str(tiny), "--api-key", "s3cret", "--context", "512", "--host", "0.0.0.0", home=tmp_path
    )
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.strip())
    text = path.read_text()
    assert f"serve {tiny} --context 512 --host 0.0.0.0\n" in text and "s3cret" not in text
    key = tmp_path / "seventy" / "service.env"
    assert key.read_text() == "SEVENTY_API_KEY=s3cret\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert seventy("service", "uninstall", home=tmp_path).returncode == 0
    assert not path.exists() and not key.exists()
    assert seventy("service", "uninstall", home=tmp_path).returncode == 1


def test_a_service_with_options_that_serve_lacks_is_not_written(tmp_path: Path, tiny: Path) -> None:
    for wrong in (("--portt", "80"), ("--port", "eighty"), ("--parallel", "65")):
        result = seventy("service", "install", str(tiny), *wrong, home=tmp_path)
        assert result.returncode == 2 and wrong[0] in result.stderr
    assert not (tmp_path / "systemd").exists()


def test_service_commands_need_systemd(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for command, program in (("status", "systemctl"), ("logs", "journalctl")):
        result = seventy("service", command)
        assert result.returncode == 1 and f"there is no {program} here" in result.stderr


def test_words_of_a_unit_are_quoted() -> None:
    line = next(line for line in unit(["/a b/100%$x\".gguf"], None).splitlines() if line.startswith("ExecStart"))
    assert line.endswith('serve "/a b/100%%$$x\\".gguf"')
