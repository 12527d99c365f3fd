"""Renders chat templates, which come from strangers, in a process of its own; see template.py.

Run as a script, so that nothing of seventy is loaded: a line of JSON per request on stdin, one per answer on stdout.
What the sandbox does not stop (loops without end, texts that double) the limits of the process do, and after the
imports it cannot open another file.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.constants
import jinja2.debug
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

MAX_CHARACTERS = 8 << 20
MAX_MEMORY_BYTES = 1 << 30
MAX_SECONDS = 15.0


class _Refusal(jinja2.TemplateError):
    """The template itself says that it does not take these messages."""


class _Generation(Extension):
    """{% generation %} marks, in training, what the model said: here its contents are only shown."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller: Callable[[], str]) -> str:
        return caller()


def _raise_exception(message: object) -> NoReturn:
    raise _Refusal(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_listed
    )


def _listed(value: Any) -> Any:
    """The list that `map` and other filters are on the way to."""
    if isinstance(value, Generator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def environment() -> SandboxedEnvironment:
    """Create the Jinja environment that chat templates of the Hugging Face hub expect (transformers'
    chat_template_utils.py).

    Templates may append to lists, as Kimi K2's does; such changes do not affect other renderings.
    """
    environment = SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    pieces, size = [], 0
    for piece in template.generate(variables):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_CHARACTERS:
            raise _Refusal(f"it writes more than {MAX_CHARACTERS} characters")
    return "".join(pieces)


def answer(work: Callable[[], str]) -> dict[str, str]:
    """Run `work` and return its text, or the kind and message of its failure."""
    try:
        return {"text": work()}
    except _Refusal as error:
        return {"refusal": str(error)}
    except jinja2.TemplateSyntaxError as error:
        return {"syntax": f"{error.message}, line {error.lineno}"}
    except MemoryError:
        return {"failure": f"it needs more than {MAX_MEMORY_BYTES >> 20} MB"}
    except RecursionError:
        return {"failure": "it calls itself without end"}
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"}


def _confine() -> None:
    """No more memory than that, no file written, and none opened: stdin, stdout and stderr are all there is."""
    try:
        import resource
    except ImportError:
        return
    limits = {resource.RLIMIT_AS: MAX_MEMORY_BYTES, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 3}
    for limit, value in limits.items():
        # Systems that do not know one of them say so by these.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def _die_after(seconds: float) -> None:
    """Ends this process after so much CPU time, even when its parent is gone; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    # Ctrl-C is for the parent: the next message needs this process again.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What Python loads on first use must be loaded before the door is shut.
    answer(lambda: environment().from_string("{{ strftime_now('%B') }}{{ [1] | tojson }}{{ none.x.y }}").render())
    _confine()
    source, template = None, None
    for line in sys.stdin.buffer:
        _die_after(MAX_SECONDS)
        request = json.loads(line)

        def work(request: dict[str, Any] = request) -> str:
            nonlocal source, template
            if template is None or request["source"] != source:
                source, template = request["source"], environment().from_string(request["source"])
            return render(template, request["variables"])

        result = json.dumps(answer(work)).encode()
        _die_after(0)
        sys.stdout.buffer.write(result + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
