"""The application: routes behind the guard."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from seventy.server import (
    anthropic,
    chat,
    completions,
    embeddings,
    history,
    kept,
    library,
    native,
    ollama,
    pairing,
    rerank,
    responses,
    share,
    status,
    tools,
)
from seventy.server.errors import ApiError, validation_error
from seventy.server.guard import Guard, Rules
from seventy.server.history import History
from seventy.server.large import LargeBodies
from seventy.server.library import Fetch
from seventy.server.metrics import Metrics
from seventy.server.pairing import Pairing
from seventy.server.pool import ModelPool
from seventy.server.tools import Tools
from seventy.version import __version__

_PAGE = Path(__file__).with_name("page")
# What is here instead of what clients of others look for.
_CHATS = "chats are at /v1/chat/completions and /api/chat"
_FILES = "models are files, see seventy pull --help"
_INSTEAD = {
    "/v1/messages/": _CHATS, "/v1/conversations": "a conversation goes on by previous_response_id at /v1/responses",
        "/api/create": _FILES, "/api/push": _FILES,
    "/v1/": "docs/serving.md says what is", "/api/": "docs/serving.md says what is",
}  # fmt: skip
_log = logging.getLogger("seventy.server")


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the page offers beyond the API.

    `pairing` makes codes for further devices, `expected` returns the tokens per second that a model file should reach
    here (None if unknown), `history` stores conversations of users with a named key, and `tools` are the tools they may
    use.
    """

    pairing: Pairing | None = None
    expected: Callable[[Path], float | None] = lambda path: None
    history: History | None = None
    tools: Tools | None = None


def create(pool: ModelPool, rules: Rules, fetch: Fetch, options: PageOptions | None = None) -> ASGIApp:
    """Create the ASGI application for a pool, started or not. `fetch` downloads the models that owners pull."""
    options = options or PageOptions()
    app = FastAPI(title="seventy", version=__version__, docs_url=None, redoc_url=None)
    metrics = Metrics(pool)
    for module in (chat, anthropic, responses, completions, embeddings, rerank, native, ollama, kept):
        app.include_router(module.router(pool))
    app.include_router(library.router(pool, fetch))
    app.include_router(share.router(pool))
    users = frozenset(rules.keys)
    days = options.history.days if options.history else None
    tool_users = options.tools.users if options.tools else frozenset()
    app.include_router(status.router(pool, metrics, users, options.expected, days, tool_users))
    app.include_router(history.router(options.history, users))
    app.include_router(tools.router(options.tools))
    app.include_router(pairing.router(options.pairing or Pairing(rules.keys), frozenset(rules.owners)))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", _PageFiles(directory=_PAGE), "page")

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return validation_error(list(error.errors())).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        instead = next((f"; {said}" for begin, said in _INSTEAD.items() if path.startswith(begin)), "")
        said = {404: f"there is nothing at {path[:200]}{instead}", 405: "this address takes another method"}
        message = said.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, None, None, error.headers).response(request.url.path)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path)
        return ApiError(500, "the server failed at this request; its log says more").response(request.url.path)

    return Guard(LargeBodies(app, pool), rules)


class _PageFiles(StaticFiles):
    """The page's files, asked for again at each visit: those of two versions do not fit together."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response
