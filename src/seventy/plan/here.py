"""This machine, from /proc/cpuinfo, psutil and what an earlier measurement left in the user's cache."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from seventy.catalog.cpus import all_cpus, find_cpu
from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine.memory import total_bytes
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import peak_gbs
from seventy.runtime.memory import room


def profile_path() -> Path:
    """Return the path of this machine's measured profile, which may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("seventy")) / "machine.json"


def read_profile() -> dict[str, Any]:
    """Read the measured profile's `read_bandwidth_gbs`, `int8_gops` and `disk_read_gbs`; an empty dict without one."""
    path = profile_path()
    if not path.exists():
        return {}
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sentence = t(
            "The machine profile {path} cannot be read ({error}); delete it and measure again.",
            path=path, error=error,
        )
        raise SeventyError(sentence) from None
    if not isinstance(profile, dict):
        raise SeventyError(
            "The machine profile {path} holds no table of values; delete it and measure again.",
            path=path,
        )
    return profile


def profile_number(profile: dict[str, Any], key: str) -> float | None:
    """Return a number of the profile or None; of a table (one number per instruction set) the highest."""
    value = profile.get(key)
    if isinstance(value, dict):
        figures = [figure for figure in value.values() if isinstance(figure, int | float)]
        value = max(figures, default=None)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _cpuinfo(text: str) -> tuple[str, int]:
    """CPU name and sockets from /proc/cpuinfo."""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    sockets = len(set(re.findall(r"^physical id\s*:\s*(\d+)$", text, re.MULTILINE))) or 1
    return (names[0].strip() if names else "unknown CPU"), sockets


# The best set of vector instructions that counts, by flags of /proc/cpuinfo.
_ISA_FLAGS = (
    ("amx", "amx_int8"), ("avx512vnni", "avx512_vnni"), ("avx512", "avx512bw"), ("avxvnni", "avx_vnni"),
    ("avx2", "avx2"), ("avx", "avx"), ("i8mm", "i8mm"), ("dotprod", "asimddp"), ("neon", "asimd"),
)  # fmt: skip


def _isa(text: str) -> str:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return next((isa for isa, flag in _ISA_FLAGS if flag in flags), "sse")


def this_machine() -> Machine:
    """Describe this machine. Its bandwidth is the CPU's maximum unless it was measured."""
    psutil: Any = importlib.import_module("psutil")
    source = Path("/proc/cpuinfo")
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    name, sockets = _cpuinfo(text)
    memory = total_bytes()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    profile = read_profile()
    measured, int8 = profile_number(profile, "read_bandwidth_gbs"), profile_number(profile, "int8_gops")
    cpu, _ = find_cpu(name, all_cpus())
    if cpu is not None:
        base = machine_from_cpu(cpu, min(sockets, cpu.max_sockets), None)
    else:
        base = Machine(
            name, None, "two sockets" if sockets > 1 else "desktop", sockets, cores, 2.5, _isa(text), "",
            2 * sockets, 2 * sockets, 2400, peak_gbs(2 * sockets, 2400), memory, room(memory),
            notes=(("cpu_unknown", {"cpu": name}),),
        )  # fmt: skip
    notes = tuple(note for note in base.notes if measured is None or note[0] != "memory_assumed")
    if measured is None:
        notes += (("not_measured", {}),)
    return replace(
        base, name=name, cores=cores, memory_bytes=memory, room_bytes=room(memory), notes=notes,
        measured_gbs=measured, measured_int8_gops=int8, ssd_gbs=profile_number(profile, "disk_read_gbs") or 3.0,
    )  # fmt: skip
