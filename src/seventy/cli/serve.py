import asyncio
import ipaddress
import logging
import secrets
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.errors import SeventyError
from seventy.sizes import size


def serve(
    model: session.ModelArgument = "smollm2",
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
        list[str] | None, typer.Option(help="A site whose pages may use the server; may be given again, * for all.")
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
    log_prompts: Annotated[bool, typer.Option(help="Write prompts and answers to stderr.")] = False,
    chat_template: session.ChatTemplate = None,
    pooling: Annotated[
        str | None, typer.Option(help="Give embeddings from any model: the mean of its states, or the last.")
    ] = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    kv: session.KV = "f16",
    verbose: session.Verbose = False,
) -> None:
    """Serve a model: OpenAI's and Ollama's API, and a page to chat at /."""
    # The server takes a second to import; other commands do without it.
    from seventy.engine.llm import LLM
    from seventy.engine.model import Progress
    from seventy.server import app, listen
    from seventy.server.backend import Backend
    from seventy.server.guard import Rules, read_keys

    keys = read_keys(api_keys) if api_keys else {}
    if api_key:
        keys["key"] = api_key
    if not keys and not no_api_key and not _is_loopback(host):
        raise SeventyError(
            f"listening on {host} lets everyone on the network in; give --api-key KEY (for example "
            f"{secrets.token_urlsafe(16)}) or, if that is what you want, --insecure-no-api-key"
        )
    if pooling not in (None, "mean", "last"):
        raise SeventyError(f"--pooling is mean or last, not {pooling!r}")
    template = session.template(chat_template)
    path = session.locate(model)
    listener = listen.bind(host, port)

    def load(progress: Progress) -> LLM:
        with session.bars() as bars:

            def both(what: str, done: int, total: int) -> None:
                progress(what, done, total)
                bars(what, done, total)

            return LLM(
                path, threads, context, sequences=parallel, isa=isa, kv=kv, progress=both, parallel=parallel,
                queue=queue, slowdown=slowdown, chat_template=template,
            )  # fmt: skip

    if log_prompts:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("seventy.server").setLevel(logging.INFO)
    backend = Backend(name or session.title(model, path), load, max_seconds, log_prompts, pooling)
    rules = Rules(keys, [*(allow_host or ()), host], cors or (), max_body)
    server = listen.Server(app.create(backend, rules), grace)

    def watch() -> None:
        backend.wait()
        if backend.ready:
            shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
            url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
            loaded = backend.llm.model
            if verbose:
                session.describe(loaded, threads)
            if context is None:
                session.say_context(loaded)
            session.say_threads(threads)
            try:
                session.say_template(backend.llm)
            except SeventyError as error:
                session.say(f"no chats: {error}")
            many = f"{parallel} at once{session.cache_shared(loaded, parallel)}"
            session.say(f"{backend.name} ({size(loaded.weight_bytes)}, context {loaded.context}, {many}): {url}")
        else:
            server.stop()

    try:
        backend.start()
        threading.Thread(target=watch, daemon=True).start()
        asyncio.run(server.serve([listener]))
    finally:
        backend.close()
    if backend.loading.state == "failed":
        raise SeventyError(backend.loading.error)
    sys.exit(0)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
