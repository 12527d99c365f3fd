"""This machine's part of a cluster: Ray's processes, started, asked and stopped.

The folder of the cluster holds its key and what was started here. Everything is bound to ports that follow each other,
so that a few firewall lines close what Ray opens to all interfaces.
"""

import contextlib
import importlib.util
import json
import os
import platform
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from seventy.cluster import key as keys
from seventy.errors import SeventyError
from seventy.hub import store
from seventy.jit import isa
from seventy.language import t
from seventy.version import __version__

PORT = 17070
# Of the first port: Ray's own, our engines', those of Ray's workers.
_NODE, _OBJECTS, _ENVIRONMENTS, _METRICS, ENGINES, _WORKERS, _LAST = 1, 2, 3, 4, range(5, 10), 10, 99
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
# The least that Ray takes: nothing large goes through it.
_OBJECT_BYTES = 80_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """What was started here: the process that keeps Ray running, and the addresses of this and the first machine."""

    pid: int
    created: float
    address: str
    head: str
    port: int


@dataclass(frozen=True, slots=True)
class Member:
    """A machine of the cluster, as Ray knows it."""

    id: str
    address: str
    is_alive: bool
    version: str
    isa: str
    python: str


def folder() -> Path:
    """Return the folder of this machine's key, certificates and logs of the cluster."""
    return store.folder().parent / "cluster"


def need_extra() -> None:
    """Raise SeventyError if what the extra `cluster` brings is not installed."""
    missing = [name for name in ("ray", "cryptography", "httpx2") if importlib.util.find_spec(name) is None]
    if missing:
        raise SeventyError(
            "a cluster needs {missing}; install it in seventy's folder with: pip install '.[cluster]'",
            missing=", ".join(missing),
        )


def start(address: str, head: str, port: int, key: str) -> Node:
    """Start Ray on this machine, the first one where `head` is its own address; return when it is ready.

    Raises SeventyError if a cluster was started here already, and with Ray's last line if it does not start.
    """
    if running := current():
        raise SeventyError(
            "this machine is in the cluster of {head} already; leave it with: seventy cluster stop", head=running.head
        )
    keys.write(folder(), key, address)
    if head != address:
        _check_key(head, port)
    labels = {"seventy": __version__, "isa": isa.select().name, "python": platform.python_version()}
    ports = {
        "node-manager-port": _NODE, "object-manager-port": _OBJECTS, "runtime-env-agent-port": _ENVIRONMENTS,
        "metrics-export-port": _METRICS, "min-worker-port": _WORKERS, "max-worker-port": _LAST,
    }  # fmt: skip
    command = [
        sys.executable, str(Path(__file__).with_name("_keep.py")),
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
        *(["--head", f"--port={port}", "--include-dashboard=false", "--no-monitor"] if head == address
          else [f"--address={head}:{port}"]),
        f"--node-ip-address={address}", *(f"--{name}={port + plus}" for name, plus in ports.items()),
        "--labels", ",".join(f"{name}={value}" for name, value in labels.items()),
        "--num-cpus=0", f"--object-store-memory={_OBJECT_BYTES}", "--include-log-monitor=false", "--log-style=record",
    ]  # fmt: skip
    environment = os.environ | keys.ray_environment(folder())
    log = folder() / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    node = Node(process.pid, psutil.Process(process.pid).create_time(), address, head, port)
    _file().write_text(json.dumps(asdict(node)))
    until = time.monotonic() + _START_SECONDS
    while "Ray runtime started" not in (said := log.read_text(errors="replace")):
        failed = any(word in said for word in ("Traceback", "Error:"))
        if failed or time.monotonic() > until:
            time.sleep(1)
            last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
            stop()
            raise SeventyError("Ray does not start: {last}; {log} says more", last=last, log=log)
        time.sleep(0.2)
    return node


def _check_key(head: str, port: int) -> None:
    """Raise SeventyError if the first machine cannot be reached, or has another key."""
    place = f"{head}:{port}"
    try:
        with (
            socket.create_connection((head, port), 5) as plain,
            keys.client_context(folder()).wrap_socket(plain, server_hostname=head),
        ):
            pass
    except ssl.SSLError:
        raise SeventyError("the cluster at {head} has another key, or is none", head=place) from None
    except OSError as error:
        raise SeventyError(
            "no cluster answers at {head}: {reason}; start it there with: seventy cluster start ADDRESS",
            head=place, reason=error.strerror or error,
        ) from None


def current() -> Node | None:
    """Return what was started on this machine and still runs."""
    try:
        node = Node(**json.loads(_file().read_text()))
        process = psutil.Process(node.pid)
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    # Another process may have its number after a restart of the machine.
    is_same = abs(process.create_time() - node.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    return node if is_same else None


def here() -> Node:
    """Return what runs on this machine. Raises SeventyError if nothing does."""
    if node := current():
        return node
    raise SeventyError(
        "this machine is in no cluster; begin one with seventy cluster start ADDRESS, or join one with "
        "seventy cluster join ADDRESS"
    )


def stop() -> int:
    """End the processes that were started here and theirs; return how many. `ray stop` would end all that it sees."""
    node = current()
    if node is None:
        return 0
    keeper = psutil.Process(node.pid)
    # First the one that would start them again.
    keeper.suspend()
    every = keeper.children(recursive=True)
    for process in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    keeper.kill()
    _, left = psutil.wait_procs([keeper, *every], _STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, _STOP_SECONDS)
    _file().unlink(missing_ok=True)
    return 1 + len(every)


def _file() -> Path:
    return folder() / "node.json"


@contextlib.contextmanager
def connected(node: Node) -> Iterator[Any]:
    """Connect this process to the cluster; yields the module `ray`."""
    place = f"{node.head}:{node.port}"
    # Ray reads them when it is imported.
    os.environ.update(keys.ray_environment(folder()) | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
    import ray

    try:
        ray.init(
            place, _node_ip_address=node.address, log_to_driver=False, logging_level="ERROR", configure_logging=True
        )
    except Exception as error:
        raise SeventyError(
            "the cluster at {head} does not answer: {error}", head=place,
            error=str(error).strip().partition("\n")[0],
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def members(ray: Any) -> list[Member]:
    """List the machines of the cluster, those that left as well."""
    found = []
    for each in ray.nodes():
        labels = each["Labels"]
        found.append(Member(
            each["NodeID"], each["NodeManagerAddress"], each["Alive"], labels.get("seventy", ""),
            labels.get("isa", ""), labels.get("python", ""),
        ))  # fmt: skip
    return sorted(found, key=lambda each: each.address)


def firewall(node: Node) -> list[str]:
    """Return nftables' lines that close the cluster's ports to every interface but its own, and to loopback."""
    names = psutil.net_if_addrs().items()
    interface = next((name for name, all in names if any(each.address == node.address for each in all)), "INTERFACE")
    ports = f"{node.port}-{node.port + _LAST}"
    return [
        "nft add table inet seventy_cluster",
        "nft add chain inet seventy_cluster input '{ type filter hook input priority 0; }'",
        f"nft add rule inet seventy_cluster input iifname != '{{ lo, {interface} }}' tcp dport {ports} drop",
        # What Ray's agents of environments answer is guarded by the token alone, and only this machine asks them.
        f"nft add rule inet seventy_cluster input iifname != lo tcp dport {node.port + _ENVIRONMENTS} drop",
    ]


def differences(own: Member, others: list[Member]) -> str | None:
    """Say in what this machine's ISA level differs from the others'; None where it does not."""
    levels = sorted({each.isa for each in others} - {own.isa})
    if not levels:
        return None
    return t(
        "this machine computes by {own}, others by {others}: texts are the same to the bit only among the same level; "
        "seventy cluster serve --isa LEVEL gives all of them one", own=own.isa, others=", ".join(levels),
    )  # fmt: skip
