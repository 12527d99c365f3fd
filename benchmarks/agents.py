"""Coding agents that others make, doing a task of two tools with a model that is served here: what they sent and got.

usage: python benchmarks/agents.py [MODEL] [--bin FOLDER] [--agents claude codex ...] [--context 16384]
                                   [--seconds 240] [--cases FOLDER]

The agents are programs of npm or PyPI (npm install @anthropic-ai/claude-code @openai/codex opencode-ai; pip install
aider-chat), looked for in `--bin` and on the path; those that are not there are left out. Each gets a folder of its own
with a file that has a fault, reads it by a tool and is to write what is wrong by another. Everything goes through a
recorder. Printed are for each agent the requests with their status, the tools that the model called, and whether the
task was done: a small model calls tools, and seldom rightly.

`--cases` keeps an agent's first and last conversation: names of fields, types, schemas of tools and the order of
events, with other words in the place of all texts, and other numbers in the place of ids (tests/server/test_agents.py).
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clients import NAME, serving

READ_AND_WRITE = "Read the file add.py, then write a file result.txt that says what is wrong in it."
SHOW_AND_WRITE = "Show the file add.py by a command, then write what is wrong in it to a file result.txt."
FAULTY = "def add(a, b):\n    return a - b\n"
# Paths at which a conversation is answered.
ANSWERS = ("/v1/messages", "/v1/responses", "/v1/chat/completions", "/api/chat")


@dataclass(frozen=True)
class Run:
    """How an agent is started: its arguments, more of the environment, and files in its home."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def claude(url: str) -> Run:
    # Its own prompt is several thousand tokens, which a small model would read for minutes.
    arguments = ["--system-prompt", "Do the task with the tools.", "--tools", "Read,Write", "--allowedTools",
                 "Read Write", "--model", NAME, "-p", READ_AND_WRITE, "--output-format", "json",
                 "--max-turns", "6"]  # fmt: skip
    quiet = ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER")
    here = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}
    return Run(arguments, here | dict.fromkeys(quiet, "1"))


def codex(url: str) -> Run:
    provider = f'[model_providers.here]\nname = "here"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
    config = f'model = "{NAME}"\nmodel_provider = "here"\n{provider}'
    arguments = ["exec", "--skip-git-repo-check", "-s", "danger-full-access", SHOW_AND_WRITE]
    return Run(arguments, {}, {".codex/config.toml": config})


def opencode(url: str) -> Run:
    models = {NAME: {"name": NAME, "limit": {"context": 16384, "output": 2048}, "tool_call": True}}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": f"{url}/v1"}, "models": models}
    config = {"provider": {"here": provider}, "share": "disabled", "autoupdate": False, "permission": "allow"}
    files = {".config/opencode/opencode.json": json.dumps(config)}
    return Run(["run", "--model", f"here/{NAME}", READ_AND_WRITE], {"OPENCODE_DISABLE_AUTOUPDATE": "1"}, files)


def aider(url: str) -> Run:
    arguments = ["--model", f"openai/{NAME}", "--yes-always", "--no-check-update", "--no-show-model-warnings",
                 "--analytics-disable", "--no-auto-commits", "--message", READ_AND_WRITE, "add.py"]  # fmt: skip
    return Run(arguments, {"OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "none"})


AGENTS: dict[str, Callable[[str], Run]] = {"claude": claude, "codex": codex, "opencode": opencode, "aider": aider}


@dataclass
class Exchange:
    """A request and its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int = 0
    answer: bytes = b""

    @property
    def events(self) -> list[dict[str, Any]]:
        """What a stream said, or the one answer."""
        text = self.answer.decode("utf-8", "replace")
        if text.startswith("{"):
            return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        said = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        return [json.loads(one) for one in said if one.startswith("{")]


class Recorder(ThreadingHTTPServer):
    """Hands requests on to the server at this port, and keeps them with what came back."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.exchanges = target, list[Exchange]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Recorder

    def _hand_on(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(data) if data else None
        except ValueError:
            body = None
        one = Exchange(self.command, self.path, dict(self.headers), body)
        self.server.exchanges.append(one)
        inner = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=600)
        left_out = ("host", "connection", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        inner.request(self.command, self.path, data or None, headers)
        answer = inner.getresponse()
        one.status = answer.status
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        while part := answer.read1(1 << 16):
            one.answer += part
            try:
                self.wfile.write(part)
            except OSError:
                break
        inner.close()

    do_GET = do_POST = do_HEAD = do_DELETE = _hand_on

    def log_message(self, *arguments: Any) -> None:
        pass


def called(exchange: Exchange) -> list[str]:
    """Names of the tools that an answer called."""
    names = []
    for event in exchange.events:
        block, item = event.get("content_block") or {}, event.get("item") or {}
        if block.get("type") == "tool_use":
            names.append(block["name"])
        if event.get("type") == "response.output_item.done" and item["type"].endswith("_call"):
            names.append(item["name"])
        for choice in event.get("choices") or ():
            for call in (choice.get("delta") or choice.get("message") or {}).get("tool_calls") or ():
                names += [name] if (name := (call.get("function") or {}).get("name")) else []
    return names


# What stays of a text: the words of the protocol. Under these keys everything is somebody's words.
_WORD = re.compile(r"[A-Za-z_][\w.:/+-]{0,47}")
_WORDS_OF_SOMEBODY = frozenset(
    ("description", "text", "content", "instructions", "user_id", "cwd", "title", "thinking", "output", "definition",
     "data", "signature", "encrypted_content", "default", "examples", "prompt")
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{20,}|[0-9a-f]{16,}")


def shortened(value: Any, key: str = "", ids: dict[str, str] | None = None) -> Any:
    """A body's shape: other words in the place of texts, other ids, the same names, types and numbers."""
    ids = {} if ids is None else ids
    if isinstance(value, dict):
        return {name: shortened(one, name, ids) for name, one in value.items()}
    if isinstance(value, list):
        return [shortened(one, key, ids) for one in value]
    if not isinstance(value, str):
        return value
    if _ID.search(value) or key.endswith("_id"):
        return ids.setdefault(value, f"id-{len(ids) + 1}")
    if key in ("arguments", "partial_json") and value.startswith("{"):
        try:
            return json.dumps(shortened(json.loads(value), "", ids))
        except ValueError:
            return "{}"
    kept = key not in _WORDS_OF_SOMEBODY and _WORD.fullmatch(value)
    return value if kept or not value else f"a text of {len(value)}"


def case(agent: str, version: str, exchange: Exchange) -> dict[str, Any]:
    kinds = [event.get("type") or event.get("object") or "answer" for event in exchange.events]
    wanted = ("anthropic-version", "anthropic-beta", "openai-beta", "accept", "content-type")
    headers = {name.lower(): value for name, value in exchange.headers.items() if name.lower() in wanted}
    return {
        "agent": agent, "version": version, "method": exchange.method, "path": exchange.path, "headers": headers,
        "body": shortened(exchange.body), "status": exchange.status,
        "events": [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]], "called": called(exchange),
    }  # fmt: skip


def run(name: str, program: str, url: str, seconds: float) -> tuple[str, bool, str]:
    """Let an agent do its task; how it ended, whether its file is there, and the last of what it said."""
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place, "home"), Path(place, "task")
        wish = AGENTS[name](url)
        for path, text in ({"../task/add.py": FAULTY, ".keep": ""} | wish.files).items():
            file = home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        environment = {key: value for key, value in os.environ.items() if not key.endswith(("_KEY", "_TOKEN"))}
        environment |= {"HOME": str(home), "CODEX_HOME": str(home / ".codex"), "XDG_CONFIG_HOME": str(home / ".config")}
        environment |= {"XDG_DATA_HOME": str(home / ".data"), "XDG_CACHE_HOME": str(home / ".cache")} | wish.environment
        try:
            done = subprocess.run(
                [program, *wish.arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
            )  # fmt: skip
            ended, said = f"ended with {done.returncode}", done.stdout
        except subprocess.TimeoutExpired as late:
            ended, said = f"stopped after {seconds:.0f} s", str(late.stdout or "")
        return ended, (folder / "result.txt").exists(), said[-400:]


def version_of(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"\d+\.\d+[\w.]*", said)
    return found.group() if found else "?"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=list(AGENTS))
    parser.add_argument("--context", type=int, default=16384)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--cases", type=Path)
    wish = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(wish.bin) if wish.bin else "", os.environ["PATH"]]))
    with serving(wish.model, wish.context) as url:
        for name in wish.agents:
            program = shutil.which(name, path=path)
            if program is None:
                print(f"{name:9} not installed")
                continue
            recorder = Recorder(int(url.rpartition(":")[2]))
            ended, done, said = run(name, str(Path(program).absolute()), recorder.url, wish.seconds)
            recorder.shutdown()
            found = [each for each in recorder.exchanges if each.path.partition("?")[0] in ANSWERS]
            statuses = Counter(f"{each.method} {each.path} {each.status}" for each in recorder.exchanges)
            calls = Counter(call for each in found for call in called(each))
            version = version_of(program)
            print(f"{name} {version}: {ended}; {len(found)} answers; result.txt is {'' if done else 'not '}there")
            print(f"  {dict(statuses)}\n  called: {dict(calls)}\n  {said!r}", flush=True)
            if wish.cases and found:
                kept = [case(name, version, each) for each in (found[:1] + found[1:][-1:])]
                (wish.cases / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
