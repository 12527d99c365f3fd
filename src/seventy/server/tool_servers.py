"""Servers of tools (MCP) that the machine's owner named in a file: started when they are first used, asked, ended."""

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seventy.errors import SeventyError
from seventy.server._tool_process import landlock_version

if TYPE_CHECKING:
    from mcp import Client

_PROCESS = Path(__file__).with_name("_tool_process.py")
_START_SECONDS = 30.0
# A message of a server, what a model is given of a result, and what it is told of a tool.
_LINE_BYTES, _RESULT_CHARACTERS, _DESCRIPTION_CHARACTERS, _SCHEMA_CHARACTERS = 4 << 20, 32_000, 2000, 20_000
_TOOLS = 64
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9-]{1,14}")


class ToolError(Exception):
    """A server could not be started, or does not answer as it should."""


@dataclass(frozen=True, slots=True)
class ToolServerConfig:
    """A server of the file: a `command` that speaks over its stdin and stdout, or the `url` of one (streamable HTTP).

    `users` are the names of keys that may use it, `tools` those that are offered (all where none is named), `allow`
    those that are called without asking; `seconds` is the longest a call may take. A command reaches its own folder,
    what is installed in the system, what is named in it, and the paths in `read` and `write`; TCP with `network` only;
    all of it and more where it is `unconfined`.
    """

    users: tuple[str, ...]
    command: tuple[str, ...] = ()
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    seconds: float = 30.0
    memory_mb: int = 2048
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    unconfined: bool = False


@dataclass(frozen=True, slots=True)
class ServedTool:
    """A tool as its server describes it."""

    server: str
    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def full_name(self) -> str:
        """The tool's name in prompts: unique among all servers' tools."""
        return f"{self.server}__{self.name}"

    @property
    def digest(self) -> str:
        """A hash of everything a user was shown of the tool; it changes when any of that changes."""
        said = json.dumps([self.full_name, self.description, self.parameters], sort_keys=True)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def read_config(path: Path, users: frozenset[str]) -> dict[str, ToolServerConfig]:
    """Read the tool servers of a TOML file, one table each, by name. Raises SeventyError if the file is invalid."""
    if importlib.util.find_spec("mcp") is None:
        raise SeventyError("--tools needs the package mcp: pip install 'mcp>=2.3', or seventy with its extra mcp")
    try:
        if path.stat().st_mode & 0o022:
            raise SeventyError(
                "{path} says which programs are run, and others may write it: chmod go-w {path}",
                path=path,
            )
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SeventyError("{path}: {error}", path=path, error=error) from None
    return {name: _server(f"{path}: [{name}]", name, table, users) for name, table in tables.items()}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _are_named(value: Any) -> bool:
    return _are_texts(value) and bool(value)


def _are_paths(value: Any) -> bool:
    return _are_texts(value) and all(Path(one).is_absolute() for one in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


# What each key of a server's table must be.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "users": _are_named, "command": _are_named, "tools": _are_named, "allow": _are_named, "read": _are_paths,
    "write": _are_paths, "network": _is_bool, "unconfined": _is_bool, "env": _is_table, "headers": _is_table,
    "url": _is_url, "seconds": _is_amount, "memory_mb": _is_amount,
}  # fmt: skip


def _server(place: str, name: str, table: Any, users: frozenset[str]) -> ToolServerConfig:
    if not _SERVER_NAME.fullmatch(name) or not isinstance(table, dict):
        raise SeventyError("{place}: a table whose name is 1 to 14 letters, digits and - is wanted", place=place)
    known = {one.name: one for one in fields(ToolServerConfig)}
    if unknown := sorted(set(table) - set(known)):
        raise SeventyError(
            "{place}: {unknown} is not known; there are {known}",
            place=place, unknown=unknown[0], known=", ".join(known),
        )
    for key, value in table.items():
        if not _CHECKS[key](value):
            raise SeventyError(
                "{place}: {key} = {value!r} is not as it should be, see docs/serving.md",
                place=place, key=key, value=value,
            )
    if not table.get("users"):
        raise SeventyError("{place}: users = [...] says whose keys may use it", place=place)
    if strangers := sorted(set(table["users"]) - users):
        raise SeventyError(
            "{place}: there is no user {strangers!r} with a key in --api-keys",
            place=place, strangers=strangers[0],
        )
    if ("command" in table) == ("url" in table):
        raise SeventyError("{place}: either command = [...] or url = ... is wanted", place=place)
    if "command" in table and not table.get("unconfined") and landlock_version() < 1:
        raise SeventyError(
            "{place}: this system cannot confine it (Landlock); unconfined = true runs it all the same",
            place=place,
        )
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return ToolServerConfig(**lists)


class ToolServer:
    """A server, in the event loop. Started when it is first asked, and again where it has ended."""

    def __init__(self, name: str, config: ToolServerConfig, folder: Path) -> None:
        self.name, self.config, self._folder = name, config, folder / name
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None

    async def tools(self) -> list[ServedTool]:
        """List the tools that the server offers now. Raises ToolError."""
        client = await self._connected()
        found: list[ServedTool] = []
        listed = await self._within(client.list_tools(cache_mode="refresh"))
        for tool in listed.tools[:_TOOLS]:
            is_named = not self.config.tools or tool.name in self.config.tools
            schema = dict(tool.input_schema)
            if not is_named or not _NAME.fullmatch(tool.name) or len(json.dumps(schema)) > _SCHEMA_CHARACTERS:
                continue
            found.append(ServedTool(self.name, tool.name, (tool.description or "")[:_DESCRIPTION_CHARACTERS], schema))
        return found

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """Call a tool; return the text of its result, and whether it is an error. Raises ToolError."""
        client = await self._connected()
        result = await self._within(client.call_tool(name, arguments))
        parts = [getattr(part, "text", None) or f"[{part.type}]" for part in result.content]
        text = "\n".join(parts)
        if len(text) > _RESULT_CHARACTERS:
            text = f"{text[:_RESULT_CHARACTERS]}\n[cut: {len(text)} characters]"
        return text, bool(result.is_error)

    async def close(self) -> None:
        """End the server."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(BaseException):
                await self._task
        self._task = self._client = None

    async def _within(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self.config.seconds):
                return await work
        except TimeoutError:
            # What it does now nobody knows: the next call finds a new one.
            await self.close()
            raise ToolError(f"{self.name} did not answer within {self.config.seconds:g} s") from None
        except Exception as error:
            if not _is_answer(error):
                await self.close()
            raise ToolError(f"{self.name}: {str(error)[:500] or type(error).__name__}") from None

    async def _connected(self) -> "Client":
        async with self._lock:
            if self._client and self._task and not self._task.done():
                return self._client
            await self.close()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._live(ready), name=f"tools of {self.name}")
            try:
                async with asyncio.timeout(_START_SECONDS):
                    self._client = await ready
            except TimeoutError:
                await self.close()
                raise ToolError(f"{self.name} did not start within {_START_SECONDS:g} s") from None
            except Exception as error:
                await self.close()
                raise ToolError(f"{self.name} does not start: {str(error)[:500] or type(error).__name__}") from None
            return self._client

    async def _live(self, ready: "asyncio.Future[Client]") -> None:
        """Be connected until cancelled: who connects must be who disconnects."""
        try:
            async with self._connection() as client:
                ready.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(ToolError(_first(error)))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator["Client"]:
        from mcp import Client

        async with contextlib.AsyncExitStack() as stack:
            if self.config.url:
                from mcp.client.streamable_http import streamable_http_client

                from seventy.server import _tool_http

                http = _tool_http.client(self.config.headers, self.config.seconds)
                transport = streamable_http_client(self.config.url, http_client=await stack.enter_async_context(http))
            else:
                from mcp.client.stdio import stdio_client

                quiet = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115
                transport = stdio_client(self._process(), quiet)
            yield await stack.enter_async_context(Client(transport, read_timeout_seconds=self.config.seconds))

    def _process(self) -> Any:
        from mcp import StdioServerParameters

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        home = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        wanted = {
            "command": list(self.config.command), "env": home | {"LANG": "C.UTF-8"} | dict(self.config.env),
            "folder": str(self._folder), "memory_bytes": int(self.config.memory_mb * 1e6), "line_bytes": _LINE_BYTES,
            "read": list(self.config.read), "write": list(self.config.write), "network": self.config.network,
            "confined": not self.config.unconfined,
        }  # fmt: skip
        # Not in the arguments, which everybody on the machine may read.
        env = {"SEVENTY_TOOL_SERVER": json.dumps(wanted)}
        return StdioServerParameters(command=sys.executable, args=["-I", str(_PROCESS)], env=env)


def _is_answer(error: Exception) -> bool:
    """Whether a server said this, and goes on; else the next call finds a new one."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED

    return isinstance(error, MCPError) and error.code != CONNECTION_CLOSED


def _first(error: BaseException) -> str:
    """What a group of errors is about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
