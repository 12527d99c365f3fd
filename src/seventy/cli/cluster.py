"""`seventy cluster`: several machines that answer at one address."""

import asyncio
import contextlib
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli.models import print_rows
from seventy.cli.service import check_arguments
from seventy.errors import SeventyError
from seventy.language import t
from seventy.version import __version__

app = typer.Typer(help="Serve a model from several machines at one address (Ray).", no_args_is_help=True)
_Port = Annotated[int, typer.Option(min=1024, max=65000, help="The first of a hundred ports of the cluster.")]
# Files of the machine where it is typed, or kept by one machine alone.
_NOT_SERVED = {"--history", "--history-days", "--tools", "--host", "--port"}


@app.command()
def start(
    address: Annotated[str, typer.Argument(help="This machine's address in the network of the cluster.")],
    port: _Port = 17070,
    new_key: Annotated[bool, typer.Option("--new-key", help="Let those in no longer that have the last key.")] = False,
) -> None:
    """Begin a cluster with this machine as the first, or begin it again; print the key that others join with."""
    from seventy.cluster import key, node

    node.need_extra()
    made = (None if new_key else key.last_key(node.folder())) or key.new_key()
    started = node.start(_numeric(address), _numeric(address), port, made)
    session.say(
        t(
            "the cluster's key is below: who has it can run any program on every machine of the cluster\non each other "
            "machine: seventy cluster join {address}\nthen here: seventy cluster serve MODEL",
            address=_place(address, port),
        )
    )
    _say_firewall(node.firewall(started))
    print(made)


@app.command()
def join(
    head: Annotated[str, typer.Argument(metavar="ADDRESS", help="The first machine's address.")],
    host: Annotated[str | None, typer.Option(help="This machine's address; else that of the way to the first.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="SEVENTY_CLUSTER_KEY", help="The cluster's key; asked for when not given.")
    ] = None,
    port: _Port = 17070,
) -> None:
    """Bring this machine into a cluster."""
    from seventy.cluster import node

    node.need_extra()
    head, _, given = head.partition(":")
    port = int(given) if given.isdigit() else port
    key = key or typer.prompt("key", hide_input=True, err=True)
    started = node.start(_numeric(host) if host else _towards(_numeric(head)), _numeric(head), port, key.strip())
    with _left_again_on_errors(), node.connected(started) as ray:
        members = [each for each in node.members(ray) if each.is_alive]
        own = next(each for each in members if each.address == started.address)
        others = [each for each in members if each is not own]
        versions = sorted({each.version for each in others} - {__version__})
        if versions:
            raise SeventyError(
                "this machine has seventy {own}, others {others}; install the same version on all",
                own=__version__, others=", ".join(versions),
            )
        if said := node.differences(own, others):
            session.say(said)
        session.say(t("this machine is in the cluster of {head}, which has {n}", head=head, n=len(members)))
    _say_firewall(node.firewall(started))


@app.command()
def status() -> None:
    """Show the machines of the cluster."""
    from seventy.cluster import node

    node.need_extra()
    with node.connected(node.here()) as ray:
        rows = [(t("ADDRESS"), t("STATE"), t("VERSION"), "ISA", "PYTHON")]
        for each in node.members(ray):
            rows.append((each.address, t("up") if each.is_alive else t("gone"), each.version, each.isa, each.python))
    print_rows(rows)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: session.ModelArgument = "smollm2",
    replicas: Annotated[str, typer.Option(help="auto for every machine of the cluster, or how many.")] = "auto",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8070,
    api_key: Annotated[
        str | None, typer.Option(envvar="SEVENTY_API_KEY", help="The key clients must send.")
    ] = None,
    api_keys: Annotated[Path | None, typer.Option(help="A file of keys, a line 'name key' for each.")] = None,
    no_api_key: Annotated[
        bool, typer.Option("--insecure-no-api-key", help="Let the whole network in without a key.")
    ] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further name this server goes by.")] = None,
    cors: Annotated[list[str] | None, typer.Option(help="A site whose pages may use the server.")] = None,
) -> None:
    """Serve a model from every machine at one address; further options are those of `seventy serve`."""
    from seventy.cluster import node

    node.need_extra()
    from seventy.cluster.front import Front
    from seventy.cluster.placement import Wanted, keep
    from seventy.server import listen
    from seventy.server.guard import Guard, Rules, is_loopback, read_keys

    if replicas != "auto" and not (replicas.isdigit() and int(replicas)):
        raise SeventyError("--replicas is auto or a number, not {replicas!r}", replicas=replicas)
    for given in context.args:
        if given.partition("=")[0] in _NOT_SERVED:
            raise SeventyError("{option} does not go with several machines; leave it out", option=given)
    check_arguments([model, *context.args])
    keys, _ = read_keys(api_keys) if api_keys else ({}, set[str]())
    if api_key:
        keys["key"] = api_key
    if not keys and not no_api_key and not is_loopback(host):
        raise SeventyError(
            "listening on {host} lets everyone on the network in; give --api-key KEY (for example {key}) "
            "or, if that is what you want, --insecure-no-api-key",
            host=host, key=secrets.token_urlsafe(16),
        )
    own = node.here()
    listener = listen.bind(host, port)
    # Nobody is an owner: what is pulled or deleted on one machine would be missing on the others.
    wanted = Wanted(
        [model, *context.args], "".join(f"{name} {key}\n" for name, key in keys.items()),
        None if replicas == "auto" else int(replicas),
    )  # fmt: skip

    async def run() -> None:
        front = Front()
        server = listen.Server(Guard(front, Rules(keys, [*(allow_host or ()), host], cors or ())))
        keeping = asyncio.create_task(keep(ray, own, front, wanted, session.say))
        serving = asyncio.create_task(server.serve([listener]))
        await asyncio.wait((keeping, serving), return_when=asyncio.FIRST_COMPLETED)
        server.stop()
        await serving
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    with node.connected(own) as ray:
        url = f"http://{_place(host, listener.getsockname()[1])}"
        session.say(t("the cluster answers at {url}", url=url))
        asyncio.run(run())


@app.command()
def stop() -> None:
    """Take this machine out of its cluster: end what was started here, and nothing else."""
    from seventy.cluster import node

    ended = node.stop()
    session.say(t("{n} processes were ended", n=ended) if ended else t("nothing of a cluster runs here"))


def _numeric(name: str) -> str:
    """The address of a machine: certificates are for addresses."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise SeventyError(
            "{name} is no machine that is known here: {reason}", name=name, reason=error.strerror
        ) from None


def _towards(head: str) -> str:
    """This machine's address on the way to another one; nothing is sent."""
    with socket.socket(socket.AF_INET6 if ":" in head else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((head, 9))
        except OSError as error:
            raise SeventyError(
                "there is no way to {head}: {reason}; give this machine's address with --host",
                head=head, reason=error.strerror,
            ) from None
        return str(probe.getsockname()[0])


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say_firewall(lines: list[str]) -> None:
    session.say(t("Ray listens on all interfaces; as root, close them but for the cluster's:"))
    for line in lines:
        print(f"  {line}", file=sys.stderr)


@contextlib.contextmanager
def _left_again_on_errors() -> Iterator[None]:
    from seventy.cluster import node

    try:
        yield
    except SeventyError:
        node.stop()
        raise
