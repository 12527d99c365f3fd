"""llama.cpp's own server tests, with seventy serve in place of llama-server: by group, with each failure's reason.

usage: python benchmarks/peer_tests.py [MODEL.gguf] [--groups chat_completion ...] [-k EXPRESSION]
                                       [--checkout FOLDER] [--report FILE.json] [--all]

The tests come from the sdist of llama-cpp-python, which pip fetches into the cache folder; peer_tests.toml says which
of them are counted. MODEL stands in for every model they name (SmolLM2 when none is given), with the chat template of
the named one. `--checkout` runs the sources of another folder; `--all` runs the tests that are not counted, too.
Needs pytest, requests, filelock, wget and openai.

A server that a test starts with llama-server's options is seventy serve in a fork of this process, whose imports are
paid for once.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve()
LIST = tomllib.loads(HERE.with_suffix(".toml").read_text())
# Templates of llama.cpp's collection by what begins the name of a model's repository.
TEMPLATES = {
    "Meta-Llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "Llama-3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "Llama-3.3": "meta-llama-Llama-3.3-70B-Instruct",
    "gemma-2": "google-gemma-2-2b-it",
    "Phi-3.5": "microsoft-Phi-3.5-mini-instruct",
    "Qwen2.5": "Qwen-Qwen2.5-7B-Instruct",
    "Hermes-2": "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "Hermes-3": "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "functionary": "meetkai-functionary-medium-v3.2",
    "DeepSeek-R1": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "Mistral-Nemo": "mistralai-Mistral-Nemo-Instruct-2407",
}

# By `auto` it tells every template to think that reads enable_thinking; here a template's own default holds.
REASONING = {"on": "on", "auto": "on", "off": "off"}


def sources() -> Path:
    """The folder of llama.cpp's sources, of which only the tests and templates are taken out of the sdist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seventy" / "peer" / LIST["version"]
    root = cache / f"llama_cpp_python-{LIST['version']}" / "vendor" / "llama.cpp"
    if root.exists():
        return root
    with tempfile.TemporaryDirectory() as folder:
        name = f"llama-cpp-python=={LIST['version']}"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder, name]
        subprocess.run(pip, check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            wanted = ("/vendor/llama.cpp/tools/server/tests/", "/vendor/llama.cpp/models/templates/")
            members = [each for each in archive if any(part in each.name for part in wanted)]
            archive.extractall(cache, members, filter="data")
    return root


def meant(given: list[str]) -> list[str]:
    """The command of seventy that does what llama-server does with these options."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("port", "host", "alias", "api-key", "chat-template", "chat-template-file", "pooling", "hf-repo"):
        parser.add_argument(f"--{option}")
    for option in ("ctx-size", "parallel"):
        parser.add_argument(f"--{option}", type=int)
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--reranking", action="store_true")
    for option in ("cors-origins", "tools", "reasoning"):
        parser.add_argument(f"--{option}")
    wish, _ = parser.parse_known_args(given)
    # Where nothing is said, llama-server lets the pages of every site in, and with tools those of its own machine;
    # seventy serve lets in none.
    origins = wish.cors_origins or ("localhost" if wish.tools else "*")
    repository = (wish.hf_repo or "").rpartition("/")[2]
    own = next((name for begin, name in TEMPLATES.items() if repository.startswith(begin)), None)
    template = wish.chat_template_file or wish.chat_template
    if template is None and own:
        template = str(sources() / "models" / "templates" / f"{own}.jinja")
    command = ["seventy", "serve", os.environ["SEVENTY_PEER_MODEL"], "--port", wish.port]
    command += ["--host", wish.host or "127.0.0.1", "--name", wish.alias or "peer"]
    # Said, so that nothing is measured at each start.
    command += ["--threads", str(len(os.sched_getaffinity(0)))]
    # The models that this one stands in for say in their files how a vector is made.
    pooling = wish.pooling or ("rank" if wish.reranking else "last" if wish.embedding else None)
    slots = wish.parallel or 1
    if wish.ctx_size:
        # A slot of llama.cpp's has its share of the context; here it is each answer's.
        command += ["--context", str(wish.ctx_size if wish.kv_unified else wish.ctx_size // slots)]
    command += ["--parallel", str(slots)]
    for option, value in (
        ("--chat-template", template), ("--api-key", wish.api_key), ("--pooling", pooling),
        ("--cors", origins), ("--think", REASONING.get(wish.reasoning or "")),
    ):  # fmt: skip
        known = option != "--think" or "--think" in os.environ.get("SEVENTY_PEER_OPTIONS", "")
        if value and known:
            command += [option, value]
    return command


class Forked:
    """What stands in for subprocess.Popen: a fork that serves. `terminate` and `kill` are those of its process."""

    def __init__(self, command: list[str], env: Mapping[str, str], **_: Any) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=serve, args=(meant(command[1:]), env))
        self._process.start()
        self.pid, self.terminate, self.kill = self._process.pid, self._process.terminate, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("seventy", timeout or 0)
        return self._process.exitcode


def serve(command: list[str], environment: Mapping[str, str]) -> None:
    """Become a server, in a fork."""
    os.environ.update(environment)
    # The tests' own connections.
    os.closerange(3, 1024)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    sys.argv = command
    from seventy.cli import main

    main()


@dataclass
class Results:
    """A plugin of pytest: how each test ended, by its id."""

    everything: bool
    ended: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        import utils  # type: ignore[import-not-found]

        # Their models are not fetched: one stands in for all of them.
        utils.ServerPreset.load_all = staticmethod(lambda: None)
        # Seconds for a start, on a machine that others use, too.
        utils.ServerProcess.start.__defaults__ = (600,)
        if "DEBUG_EXTERNAL" not in os.environ:
            utils.subprocess = SimpleNamespace(Popen=Forked, TimeoutExpired=subprocess.TimeoutExpired)
        items[:] = [item for item in items if self.everything or counted(item.nodeid)]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.ended.setdefault(report.nodeid, report.outcome)
            if report.failed:
                text = str(report.longrepr).splitlines()
                said = [line.removeprefix("E ").strip() for line in text if line.startswith("E ")]
                self.reasons[report.nodeid] = (said or text or ["?"])[0][:200]


def group_of(test: str) -> str:
    return test.partition("unit/test_")[2].partition(".py")[0]


def counted(test: str) -> bool:
    """Whether the list counts a test, by its id."""
    name = test.partition("::")[2]
    excluded = LIST["excluded"].get(group_of(test), {})
    return not any(name == one or (one[-1] in "[-" and name.startswith(one)) for one in excluded)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--groups", nargs="+", default=LIST["groups"])
    parser.add_argument("-k", default="")
    parser.add_argument("--checkout", type=Path, default=HERE.parent.parent)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--external", action="store_true", help="a server that runs already, on the port PORT")
    wish = parser.parse_args()
    tests = sources() / "tools" / "server" / "tests"
    source = wish.checkout.resolve() / "src"
    model = str(Path(wish.model).resolve()) if Path(wish.model).exists() else wish.model
    has_think = "--think" in (source / "seventy" / "cli" / "serve.py").read_text()
    os.environ |= {
        "LLAMA_SERVER_BIN_PATH": "seventy", "PYTHONPATH": str(source), "SEVENTY_PEER_MODEL": model,
        "SEVENTY_PEER_OPTIONS": "--think" if has_think else "", "SLOW_TESTS": "1",
        "PORT": os.environ.get("PORT", "8081"),
    }  # fmt: skip
    if wish.external:
        os.environ["DEBUG_EXTERNAL"] = "1"
    os.chdir(tests)
    sys.path[:0] = [str(source), str(tests)]
    import pytest

    import seventy.cli.serve
    import seventy.server.app
    import seventy.server.listen  # noqa: F401

    results = Results(wish.all)
    files = [f"unit/test_{group}.py" for group in wish.groups]
    pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", "--no-header", *(["-k", wish.k] if wish.k else []),
                 *files], plugins=[results])  # fmt: skip
    show(results, wish.report)


def show(results: Results, report: Path | None) -> None:
    """Print a line for each group, and one for each test that did not pass."""
    print()
    totals: Counter[str] = Counter()
    for group in LIST["groups"]:
        mine = Counter(how for test, how in results.ended.items() if group_of(test) == group and counted(test))
        if mine:
            totals += mine
            print(f"{group:16} {mine['passed']:4} of {sum(mine.values()):4}")
    print(f"{'all':16} {totals['passed']:4} of {sum(totals.values()):4}")
    for test, how in results.ended.items():
        if how != "passed":
            print(f"{how}: {test}: {results.reasons.get(test, '')}")
    if report:
        report.write_text(json.dumps({"ended": results.ended, "reasons": results.reasons}, indent=1) + "\n")


if __name__ == "__main__":
    main()
