import asyncio
import logging
import math
import secrets
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seventy.cache.store import DiskCache
from seventy.cli import _invitation
from seventy.cli import _session as session
from seventy.cli.pull import get, unattended
from seventy.engine import draft_choice
from seventy.engine.assistant import is_assistant
from seventy.engine.footprint import least_and_full
from seventy.engine.llm import LLM
from seventy.engine.model import Progress
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub import local, store
from seventy.language import t
from seventy.sizes import size

if TYPE_CHECKING:
    from seventy.server.served import ServedModel

_SWITCH_SECONDS = 0.0005


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models' names (fetched when absent) or .gguf files; smollm2 when none is given."),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--models", help="all: every model on this disk that can be run here.")
    ] = None,
    default: Annotated[
        str | None, typer.Option(help="Which of several models answers requests that name none; else the first.")
    ] = None,
    keep_alive: Annotated[
        str | None, typer.Option(help="How long a model that nobody uses stays loaded, such as 10m; else for ever.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8070,
    context: session.Context = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Answers written at the same time.")] = 4,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; others are sent away (429).")] = 64,
    slowdown: Annotated[
        float, typer.Option(min=1, help="How many times slower answers may get while a prompt is read beside them.")
    ] = 2.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="SEVENTY_API_KEY", help="The key clients must send.")
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="A file of keys, a line 'name key' for each.")
    ] = None,
    no_api_key: Annotated[
        bool, typer.Option("--insecure-no-api-key", help="Let the whole network in without a key.")
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may use the server; localhost for this machine's, * for all."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name this server goes by; may be given again.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called in the API.")] = None,
    max_body: Annotated[int, typer.Option(min=1024, help="The largest request, in bytes.")] = 8 << 20,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="The longest an answer may take; no limit when not given.")
    ] = None,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running answers get to end at SIGTERM.")] = 30,
    history: Annotated[
        bool, typer.Option("--history", help="Keep users' conversations on this machine; for the names of --api-keys.")
    ] = False,
    history_days: Annotated[float, typer.Option(min=1, help="Days that --history keeps what nobody changes.")] = 365,
    tools: Annotated[
        Path | None, typer.Option(help="A file of tool servers (MCP) that users may have called on the page.")
    ] = None,
    log_requests: Annotated[
        bool, typer.Option(help="Write a line for each request to stderr: user, path, tokens and times, no text.")
    ] = False,
    log_prompts: Annotated[bool, typer.Option(help="Write prompts and answers to stderr.")] = False,
    chat_template: session.ChatTemplate = None,
    think: Annotated[
        str | None, typer.Option(help="on or off: whether to think where a request does not say.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="Make vectors of texts by any model: mean, last or none (one a token); or rank documents."),
    ] = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    kv: session.KV = "f16",
    draft: session.Draft = "auto",
    cache_dir: session.CacheDir = None,
    cache_gb: session.CacheGb = 20.0,
    verbose: session.Verbose = False,
) -> None:
    """Serve models: OpenAI's, Anthropic's and Ollama's API, and a page to chat at /."""
    # The server takes a second to import; other commands do without it.
    from seventy.server import app, listen
    from seventy.server.guard import Rules, is_loopback, read_keys
    from seventy.server.history import History
    from seventy.server.pairing import Pairing
    from seventy.server.pool import ModelPool
    from seventy.server.request_log import RequestLog
    from seventy.server.tool_servers import read_config
    from seventy.server.tools import Tools

    keys, owners = read_keys(api_keys) if api_keys else ({}, set[str]())
    if api_key:
        keys["key"] = api_key
    if history and not api_keys:
        raise SeventyError("--history keeps conversations of users with a name: give --api-keys FILE")
    if not keys and not no_api_key and not is_loopback(host):
        raise SeventyError(
            "listening on {host} lets everyone on the network in; give --api-key KEY (for example {key}) "
            "or, if that is what you want, --insecure-no-api-key",
            host=host, key=secrets.token_urlsafe(16),
        )
    _check_choices(pooling, think)
    template = session.template(chat_template)
    stay = _stay_seconds(keep_alive)
    offered = Tools(read_config(tools, frozenset(keys)), store.folder().parent / "tools") if tools else None
    served = _served(models, every, default, name)
    listener = listen.bind(host, port)
    _log(log_prompts, log_requests)
    draft = session.locate_draft(draft)
    loader = _Loader(threads, context, parallel, queue, slowdown, isa, kv, draft, template, think,
                     session.disk_cache(cache_dir, cache_gb), ranks=pooling == "rank")  # fmt: skip
    pool = ModelPool(
        served, loader, keep_alive=stay, queue=queue, max_seconds=max_seconds, log_prompts=log_prompts, pooling=pooling
    )
    rules = Rules(keys, [*(allow_host or ()), host], cors or (), max_body, owners=owners)
    # Threads that prepare requests give the interpreter to the engine's after this: it wants it between two tokens.
    sys.setswitchinterval(_SWITCH_SECONDS)
    pairing = Pairing(keys, _invitation.lan_address(host, listener.getsockname()[1]))
    kept = History(store.folder().parent / "history.db", history_days) if history else None
    options = app.PageOptions(pairing, _expected_speed, kept, offered)
    application = app.create(pool, rules, unattended, options)
    server = listen.Server(RequestLog(application) if log_requests else application, grace)

    def watch() -> None:
        pool.wait()
        for llm in pool.look(lambda backend: backend.llm, served[0]):
            _say_loaded(llm, threads, draft, verbose, context is None)
            many = t("{parallel} at once{cache}", parallel=parallel, cache=session.cache_shared(llm.model, parallel))
            more = t(", and {n} more when asked for", n=len(served) - 1) if len(served) > 1 else ""
            url = _url(host, listener.getsockname()[1])
            session.say(t(
                "{name} ({size}, context {context}, {many}){more}: {url}", name=served[0].name, more=more, url=url,
                size=size(llm.model.weight_bytes), context=llm.model.context, many=many,
            ))
            _invitation.show(pairing, sorted(owners) or sorted(keys), is_keyed=bool(keys))
        if served[0].state == "failed":
            server.stop()

    try:
        pool.start()
        threading.Thread(target=watch, daemon=True).start()
        asyncio.run(server.serve([listener]))
    finally:
        pool.close()
        if kept:
            kept.close()
    if pool.loads == 0 and served[0].error:
        raise SeventyError(served[0].error)
    sys.exit(0)


def _check_choices(pooling: str | None, think: str | None) -> None:
    if pooling not in (None, "mean", "last", "none", "rank"):
        raise SeventyError("--pooling is mean, last, none or rank, not {pooling!r}", pooling=pooling)
    if think not in (None, "on", "off"):
        raise SeventyError("--think is on or off, not {think!r}", think=think)


def _stay_seconds(keep_alive: str | None) -> float:
    """Seconds that a model stays loaded after its last use."""
    from seventy.server.keep_alive import keep_alive_seconds

    try:
        return keep_alive_seconds(keep_alive) if keep_alive else math.inf
    except ValueError as error:
        raise SeventyError("--keep-alive: {error}", error=error) from None


def _log(prompts: bool, requests: bool) -> None:
    """Write prompts and answers, or a line for each request, to stderr."""
    for logged, logger in ((prompts, "seventy.server"), (requests, "seventy.requests")):
        if logged:
            logging.basicConfig(format="%(asctime)s %(message)s")
            logging.getLogger(logger).setLevel(logging.INFO)


def _say_loaded(llm: LLM, threads: int | None, draft: str, verbose: bool, context_chosen: bool) -> None:
    """Write to stderr how the default model was loaded, and what is unusual about it."""
    if verbose:
        session.describe(llm.model, threads)
    if context_chosen:
        session.say_context(llm.model)
    session.say_threads(threads)
    session.say_draft(llm, draft)
    try:
        session.say_template(llm)
    except SeventyError as error:
        session.say(t("no chats: {error}", error=error))


def _url(host: str, port: int) -> str:
    """The address to open in a browser on this machine."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


@lru_cache(1024)
def _expected_speed(path: Path) -> float | None:
    """How many tokens a second a model should write on this machine; None where it does not run."""
    from seventy.plan.here import this_machine
    from seventy.plan.roofline import predict
    from seventy.plan.runs import why_not_file
    from seventy.plan.wanted import gguf_load

    machine = this_machine()
    try:
        with GGUF(path) as gguf:
            if why_not_file(gguf, machine):
                return None
            return predict(machine, gguf_load(gguf), engine="seventy").decode.mid
    except SeventyError:
        return None


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads models as the command line said (server.switch.Loader)."""

    threads: int | None
    context: int | None
    parallel: int
    queue: int
    slowdown: float
    isa: str | None
    kv: str
    draft: str
    template: str | None = None
    think: str | None = None
    disk: DiskCache | None = None
    ranks: bool = False

    def needs(self, path: Path) -> tuple[int, int]:
        mtp, small = self.draft in ("auto", "mtp"), draft_choice.named(self.draft)
        assistant = small if small and is_assistant(small) else None
        least, full = least_and_full(path, self.context, self.parallel, self.kv, mtp, assistant)
        if small is None or assistant:
            return least, full
        # Beside it the draft model for one text.
        its_least, its_full = least_and_full(small, self.context, 1, self.kv)
        return least + its_least, full + its_full

    def load(self, path: Path, progress: Progress, memory: int | None) -> LLM:
        with session.bars() as bars:

            def both(what: str, done: int, total: int) -> None:
                progress(what, done, total)
                bars(what, done, total)

            llm = LLM(
                path, self.threads, self.context, sequences=self.parallel, isa=self.isa, kv=self.kv, progress=both,
                parallel=self.parallel, queue=self.queue, slowdown=self.slowdown, chat_template=self.template,
                memory=memory, draft=self.draft, disk=self.disk, ranks=self.ranks,
            )  # fmt: skip
            llm.chat_format.think = None if self.think is None else self.think == "on"
            return llm


def _served(asked: list[str] | None, every: str | None, default: str | None, name: str | None) -> "list[ServedModel]":
    """The models to serve, the default first."""
    from seventy.server.library import served
    from seventy.server.served import Roster

    if every not in (None, "all"):
        raise SeventyError(
            "--models is all, for every model on this disk, not {every!r}; name some without it",
            every=every,
        )
    names = asked or ([] if every else ["smollm2"])
    if name and (every or len(names) > 1):
        raise SeventyError("--name is for one model; several have the names of their files")
    roster = Roster([])
    for one in names:
        path = get(one)
        roster.add(served(local.of_path(path), *([] if Path(one).expanduser().exists() else [one])))
    if name:
        roster.default.name = name
    for model in _runnable() if every else ():
        roster.add(served(model))
    if not roster.every:
        raise SeventyError("no model on this disk can be run; get one: seventy pull")
    if default:
        first = roster.find(default)
        if first is None:
            have = ", ".join(model.name for model in roster.every)
            raise SeventyError(
                "--default {default!r} is none of the models that are served: {have}",
                default=default, have=have,
            )
        roster.every.sort(key=lambda model: model is not first)
    return roster.every


def _runnable() -> list[local.Local]:
    """The models on this disk that seventy can run; what it cannot is said."""
    from seventy.plan.runs import why_not_file

    found = []
    for model in local.inventory().models:
        try:
            with GGUF(local.usable(model)) as gguf:
                problem = why_not_file(gguf)
        except SeventyError as error:
            session.say(t("left out: {error}", error=error))
            continue
        if problem:
            session.say(t("left out: {label} ({problem})", label=model.label, problem=problem))
        else:
            found.append(model)
    return found
