"""Runs a tool server that the machine's owner named, with little around it; see tool_servers.py.

Run as a script, so that nothing of seventy is loaded. SEVENTY_TOOL_SERVER says what to run, as JSON: command, env,
folder, read, write, network, confined, memory_bytes, line_bytes. The server has that environment only, no descriptor
but its own three, limits on memory, files and descriptors, the least share of the CPU, and no way to more rights. It
reaches the files that it needs to run and those that are named (Landlock), and TCP where it may. Its process group ends
with this process, which ends with the one that began it, and with its stdin.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_FILE_BYTES, _FILES = 64 << 20, 256

# Landlock (linux/landlock.h): its system calls have these numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# Devices and what is done to them.
_NEVER = 1 << 6 | 1 << 11 | _IOCTL_DEV
# Which rights each version of the kernel's interface added to the thirteen first ones.
_ADDED = ((2, 1 << 13), (3, _TRUNCATE), (5, _IOCTL_DEV))
# What programs need to run at all.
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc", "/dev/zero", "/dev/random", "/dev/urandom"),
    *("/etc/alternatives", "/etc/ca-certificates", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki"),
    *("/etc/resolv.conf", "/etc/services", "/etc/ssl"),
)


def landlock_version() -> int:
    """Return the version of the kernel's Landlock interface; below 1 where it has none."""
    if sys.platform != "linux":
        return 0
    return int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, 1))


def _confine(read: Iterable[str], write: Iterable[str], network: bool) -> None:
    """Reach these files and folders only from here on, in this process and those it starts. Raises OSError."""
    libc, version = ctypes.CDLL(None, use_errno=True), landlock_version()
    files = (1 << 13) - 1
    for since, right in _ADDED:
        files |= right if version >= since else 0
    # TCP; sockets without a file, and signals to processes outside.
    tcp, scope = (0 if network else 3), 3
    sizes = {1: 8, 4: 16, 6: 24}
    size = max(size for since, size in sizes.items() if version >= since)
    rules = libc.syscall(_CREATE_RULESET, struct.pack("=QQQ", files, tcp, scope)[:size], size, 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    reading, writing = _READ_FILE | _READ_DIR | _EXECUTE, files & ~_NEVER
    for path, rights in [*((one, reading) for one in read), *((one, writing) for one in write)]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # What is not there needs no right.
            continue
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)
        if libc.syscall(_ADD_RULE, rules, 1, rule, 0):
            raise OSError(ctypes.get_errno(), f"landlock_add_rule: {path}")
        os.close(place)
    if libc.syscall(_RESTRICT_SELF, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(rules)


def _limit(memory_bytes: int) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _FILE_BYTES), (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_DATA, memory_bytes),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))
    os.nice(19)


def main() -> int:
    wanted = json.loads(os.environ["SEVENTY_TOOL_SERVER"])
    libc = ctypes.CDLL(None)
    parent = os.getppid()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 1
    os.umask(0o077)
    os.chdir(wanted["folder"])

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _limit(wanted["memory_bytes"])
        if wanted["confined"]:
            named = [part for part in wanted["command"] if Path(part).is_absolute()]
            read = [*_SYSTEM, *named, *wanted["read"]]
            _confine(read, ["/dev/null", wanted["folder"], *wanted["write"]], wanted["network"])

    with open("stderr.log", "wb") as said:  # noqa: PTH123
        server = subprocess.Popen(
            wanted["command"], stdout=subprocess.PIPE, stderr=said, env=wanted["env"], start_new_session=True,
            preexec_fn=prepare,
        )  # fmt: skip

    def end(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    assert server.stdout
    # A line is a message: one that never ends would fill the memory of whoever waits for its end.
    while line := server.stdout.readline(wanted["line_bytes"] + 1):
        if len(line) > wanted["line_bytes"]:
            break
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
