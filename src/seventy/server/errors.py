"""Errors as OpenAI's API shows them: a status and a body {"error": {message, type, param, code}}; or as Ollama's."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

# Anthropic's types by status, where they are not those of OpenAI.
_OF_ANTHROPIC = {408: "timeout_error", 413: "request_too_large", 503: "overloaded_error"}


class ApiError(Exception):
    """Ends the handling of a request; `code` is for programs, `message` for people."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more` are further fields of the error in OpenAI's shape, or other values of those it has."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers, self.more = dict(headers or {}), dict(more or {})

    def body(self) -> dict[str, Any]:
        kind = self._type("server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code} | self.more}

    def anthropic_body(self) -> dict[str, Any]:
        kind = _OF_ANTHROPIC.get(self.status) or self._type("api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def _type(self, of_server: str) -> str:
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else of_server)

    def response(self, path: str) -> Response:
        """Build the response in the error format of the API that `path` belongs to."""
        shape = self.body()
        if path.startswith("/api/"):
            shape = {"error": self.message}
        elif path.startswith("/v1/messages"):
            shape = self.anthropic_body()
        body = json.dumps(shape).encode()
        return Response(body, self.status, self.headers, media_type="application/json")


def validation_error(errors: list[Any]) -> ApiError:
    """Describe the first error that pydantic found in one sentence."""
    first = errors[0]
    place = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    # Texts of the request may hold half characters, which no answer can.
    said = str(first.get("msg", "it is not as it should be")).encode("utf-8", "replace").decode()
    place = place.encode("utf-8", "replace").decode()[:200]
    if first.get("type") == "json_invalid":
        return ApiError(400, f"the body is no JSON: {said}", "invalid_json")
    return ApiError(400, f"{place or 'the body'}: {said}"[:500], "invalid_value", place or None)
