"""The reference pages, taken from the program: commands from typer's, the HTTP API from FastAPI's OpenAPI."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from seventy.cli import command
from seventy.server import app
from seventy.server.guard import Rules
from seventy.server.pool import ModelPool

_INTRODUCTIONS = {
    "zh": (
        "# 命令\n\n由程序生成，与当前版本一致。`seventy help 命令` 显示同样的内容。\n",
        "# HTTP 接口\n\n由程序生成。运行中的服务在 `/openapi.json` 给出完整的字段。"
        "OpenAI 之外的字段、错误和限制见[英文页](serving.md)。\n",
    ),
    "en": (
        "# Commands\n\nGenerated from this version of the program; `seventy help COMMAND` shows the same.\n",
        "# HTTP API\n\nGenerated from the program; a running server has every field at `/openapi.json`. "
        "Fields beyond OpenAI's, errors and limits: [serving](serving.md#the-api).\n",
    ),
}


def pages(language: str) -> dict[str, str]:
    """The text of each generated page by its file name, in "zh" or "en"."""
    commands, api = _INTRODUCTIONS[language]
    return {
        "commands.md": commands + "".join(_command(command(lang=language), [])),
        "api.md": api + "".join(_paths(openapi())),
    }


def openapi() -> dict[str, Any]:
    """The OpenAPI document of a server without models."""
    application: Any = app.create(ModelPool([], lambda *_: None), Rules(), lambda *_: None)  # type: ignore[arg-type]
    while not isinstance(application, FastAPI):
        application = application._app
    return application.openapi()


def _command(command: Any, names: list[str]) -> Iterator[str]:
    if names:
        words = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
        yield f"\n{'#' * (len(names) + 1)} seventy {' '.join(names)}\n\n{_escape(words)}\n"
        rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        rows = [row for row in rows if row]
        if rows:
            yield "\n| | default | |\n|---|---|---|\n" + "".join(rows)
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if not each.hidden:
            yield from _command(each, [*names, name])


def _row(parameter: Any) -> str:
    if "--help" in parameter.opts:
        return ""
    is_option = parameter.param_type_name == "option"
    spelled = ", ".join([*parameter.opts, *parameter.secondary_opts]) if is_option else parameter.name.upper()
    default = parameter.default
    shown = "" if default in (None, False, True) or callable(default) or default == [] else str(default)
    return f"| `{spelled}` | {_escape(shown)} | {_escape(getattr(parameter, 'help', None) or '')} |\n"


def _paths(document: dict[str, Any]) -> Iterator[str]:
    schemas = document.get("components", {}).get("schemas", {})
    yield "\n| address | |\n|---|---|\n"
    bodies: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            words = (operation.get("description") or operation.get("summary") or "").split("\n\n")[0].replace("\n", " ")
            yield f"| `{method.upper()} {path}` | {_escape(words)} |\n"
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            if name:
                bodies.setdefault(name, []).append(f"`{path}`")
    for name, where in bodies.items():
        yield f"\n## {name}\n\n{', '.join(where)}\n\n| | | |\n|---|---|---|\n"
        for field, schema in schemas[name].get("properties", {}).items():
            default = schema.get("default")
            shown = "" if default is None else f"`{default}`"
            yield f"| `{field}` | {shown} | {_kind(schema)} |\n"


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        kinds = [_kind(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {})) or 'any'}"
    limits = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return " ".join([str(schema.get("type", "")), *limits]).strip()


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
