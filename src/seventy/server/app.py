"""The application: routes behind the guard."""

import logging
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from seventy.server import chat, completions, embeddings, library, native, ollama, share, status
from seventy.server.errors import ApiError, validation_error
from seventy.server.guard import Guard, Rules
from seventy.server.library import Fetch
from seventy.server.metrics import Metrics
from seventy.server.pool import ModelPool
from seventy.version import __version__

_PAGE = Path(__file__).with_name("page")
# The page takes nothing from elsewhere, and what a model writes can do nothing in it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What is here instead of what clients of others look for.
_CHATS = "chats are at /v1/chat/completions and /api/chat"
_FILES = "models are files, see seventy pull --help"
_INSTEAD = {
    "/v1/messages": _CHATS, "/v1/responses": _CHATS, "/responses": _CHATS,
    "/v1/rerank": "vectors of texts are at /v1/embeddings", "/rerank": "vectors of texts are at /v1/embeddings",
    "/infill": "/v1/completions and /api/generate take a suffix", "/api/create": _FILES, "/api/push": _FILES,
    "/v1/": "docs/serving.md says what is", "/api/": "docs/serving.md says what is",
}  # fmt: skip
_log = logging.getLogger("seventy.server")


def create(pool: ModelPool, rules: Rules, fetch: Fetch) -> ASGIApp:
    """The ASGI application for a pool that has been started, or will be; `fetch` brings models that owners ask for."""
    app = FastAPI(title="seventy", version=__version__, docs_url=None, redoc_url=None)
    metrics = Metrics(pool)
    for module in (chat, completions, embeddings, native, ollama):
        app.include_router(module.router(pool))
    app.include_router(library.router(pool, fetch))
    app.include_router(share.router(pool))
    app.include_router(status.router(pool, metrics))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Content-Security-Policy": _POLICY})

    app.mount("/page", StaticFiles(directory=_PAGE), "page")

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

    return Guard(app, rules)
