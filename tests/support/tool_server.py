"""A server of tools for tests, as those of the protocol's first years are: lines of JSON on stdin and stdout.

Its first argument is a folder: what stands in the file `description` there is said of `look`.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(sys.argv[1])


def tool(name: str, description: str, *arguments: str) -> dict:
    # So that small models come to an end.
    words = {"word": {"enum": ["Pharos", "cat"]}}
    properties = {each: {"type": "string", **words.get(each, {})} for each in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"name": name, "description": description, "inputSchema": schema}


def look(word: str) -> str:
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{word}\n")
    return f"{word} is a lighthouse"


def surroundings() -> str:
    child = subprocess.Popen(["sleep", "1000"])
    limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{each}")) for each in ("CORE", "FSIZE", "NOFILE", "DATA")]
    return json.dumps({
        "environment": dict(os.environ), "folder": str(Path.cwd()), "descriptors": os.listdir("/proc/self/fd"),  # noqa: PTH208
        "limits": limits, "nice": os.nice(0), "processes": [os.getpid(), child.pid],
    })  # fmt: skip


def reach(path: str, port: str) -> str:
    """What is reached of a file, of the folder it is in, and of this machine's network."""

    def attempt(what: Callable[[], object]) -> str:
        try:
            what()
        except OSError as error:
            return type(error).__name__
        return "done"

    place = Path(path)
    return json.dumps({
        "read": attempt(place.read_text), "write": attempt(lambda: place.with_name("new").write_text("x")),
        "own": attempt(lambda: Path("own").write_text("x")),
        "connect": attempt(lambda: socket.create_connection(("127.0.0.1", int(port))).close()),
        "run": attempt(lambda: subprocess.run(["true"], check=True)),
    })  # fmt: skip


def call(name: str, arguments: dict) -> str:
    if name == "look":
        return look(arguments["word"])
    if name == "reach":
        return reach(**arguments)
    if name == "much":
        return "x" * int(arguments["size"])
    if name == "sleep":
        time.sleep(1000)
    if name == "end":
        os._exit(1)
    if name == "endless":
        while True:
            sys.stdout.write("x" * 65536)
    return surroundings()


def answer(method: str, params: dict) -> dict | None:
    if method == "initialize":
        about = {"name": "tiny", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        said = FOLDER / "description"
        about = said.read_text() if said.exists() else "Says what a word is."
        more = [tool("much", "", "size"), tool("reach", "", "path", "port")]
        more += [tool(name, "") for name in ("sleep", "end", "endless", "surroundings")]
        return {"tools": [tool("look", about, "word"), *more]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": call(params["name"], params["arguments"])}], "isError": False}
    return None


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = answer(asked["method"], asked.get("params", {}))
    unknown = {"error": {"code": -32601, "message": "unknown"}}
    said = {"jsonrpc": "2.0", "id": asked["id"], **({"result": result} if result else unknown)}
    print(json.dumps(said), flush=True)
