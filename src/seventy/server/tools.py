"""Tools for the page: what a user may have called, and which of them he is asked for each time."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest

from seventy.server.errors import ApiError
from seventy.server.schemas import Body
from seventy.server.tool_servers import ServedTool, ToolError, ToolServer, ToolServerConfig


class Tools:
    """The servers that the owner's file names, and what users were shown of the tools that are called without asking.

    `folder` holds the servers' working folders and approved.json, a user's digests by the tool's name.
    """

    def __init__(self, configs: Mapping[str, ToolServerConfig], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._servers = {name: ToolServer(name, config, folder) for name, config in configs.items()}
        self._path = folder / "approved.json"
        self._approved: dict[str, dict[str, str]] = {}
        if self._path.exists():
            self._approved = json.loads(self._path.read_text("utf-8"))

    @property
    def users(self) -> frozenset[str]:
        """The users who may use at least one tool."""
        return frozenset(user for server in self._servers.values() for user in server.config.users)

    async def of(self, user: str) -> tuple[list[tuple[ServedTool, bool]], dict[str, str]]:
        """Return a user's tools, with whether each needs consent, and the errors of servers that did not answer."""
        servers = [server for server in self._servers.values() if user in server.config.users]
        answers = await asyncio.gather(*(server.tools() for server in servers), return_exceptions=True)
        found: list[tuple[ServedTool, bool]] = []
        problems: dict[str, str] = {}
        for server, answer in zip(servers, answers, strict=True):
            if isinstance(answer, ToolError):
                problems[server.name] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += [(tool, self._asks(server, tool, user)) for tool in answer]
        return found, problems

    async def call(self, user: str, call: "ToolCallBody") -> tuple[str, bool]:
        """Call a tool as the user saw it described. Raises ApiError where he may not, or must be asked before."""
        server = self._servers.get(call.name.partition("__")[0])
        if server is None or user not in server.config.users:
            raise ApiError(404, f"there is no tool {call.name[:64]!r} for you", "no_tool", "name")
        try:
            tool = next((one for one in await server.tools() if one.full_name == call.name), None)
            if tool is None:
                raise ApiError(404, f"{server.name} has no tool {call.name[:64]!r}", "no_tool", "name")
            if tool.digest != call.digest:
                raise ApiError(409, "the tool's description has changed since it was shown", "tool_changed")
            if self._asks(server, tool, user) and not call.approved:
                raise ApiError(403, "this call is to be shown to the user, who agrees to it or not", "not_approved")
            if call.approved and tool.name in server.config.allow:
                self._remember(user, tool)
            return await server.call(tool.name, call.arguments)
        except ToolError as error:
            raise ApiError(502, str(error), "tool_failed") from None

    async def close(self) -> None:
        """End all servers."""
        for server in self._servers.values():
            await server.close()

    def is_allowed(self, tool: ServedTool) -> bool:
        """Return whether the owner allows calls without consent while the tool's description is unchanged."""
        return tool.name in self._servers[tool.server].config.allow

    def _asks(self, server: ToolServer, tool: ServedTool, user: str) -> bool:
        """Whether a call needs the user: unless the owner allows it, and the tool is what it was at first."""
        if tool.name not in server.config.allow:
            return True
        known = self._approved.get(user, {}).get(tool.full_name)
        if known is None:
            self._remember(user, tool)
        return known not in (None, tool.digest)

    def _remember(self, user: str, tool: ServedTool) -> None:
        mine = self._approved.setdefault(user, {})
        if mine.get(tool.full_name) == tool.digest:
            return
        mine[tool.full_name] = tool.digest
        new = self._path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._approved, file)
        new.replace(self._path)


class ToolCallBody(Body):
    """A call of a tool. `digest` identifies the description that the user saw when they `approved` the call."""

    name: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    arguments: dict[str, Any] = Field(default_factory=dict)
    approved: bool = False


def router(tools: Tools | None) -> APIRouter:
    """Build the routes of `/tools` for the users named in the owner's file. They answer 404 to others."""
    routes = APIRouter(tags=["page"])

    def of(request: HttpRequest) -> tuple[Tools, str]:
        user = request.state.user
        if tools is None or user not in tools.users:
            raise ApiError(404, "there are no tools for you; the machine's owner names them by --tools", "no_tools")
        return tools, user

    @routes.get("/tools")
    async def listed(request: HttpRequest) -> dict[str, Any]:
        """List the user's tools: `asks` if each call needs consent, `changed` if it does since the tool changed."""
        mine, user = of(request)
        found, problems = await mine.of(user)
        return {
            "tools": [
                {"name": tool.full_name, "description": tool.description, "parameters": tool.parameters,
                 "digest": tool.digest, "asks": asks, "changed": asks and mine.is_allowed(tool)}
                for tool, asks in found
            ],
            "problems": problems,
        }  # fmt: skip

    @routes.post("/tools/call")
    async def call(request: HttpRequest, body: ToolCallBody) -> dict[str, Any]:
        """Call a tool and return its result as text for the model."""
        mine, user = of(request)
        text, is_error = await mine.call(user, body)
        return {"content": text, "is_error": is_error}

    return routes
