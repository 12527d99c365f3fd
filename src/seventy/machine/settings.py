"""How the operating system has set this machine up: clocks, huge pages, NUMA balancing, swap, virtualisation.

Whatever the system does not tell is None. `root` is the folder that holds sys/ and proc/.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from seventy.language import t
from seventy.machine.cgroup import ROOT


@dataclass(frozen=True, slots=True)
class Settings:
    """The system settings at the time of reading.

    `governors` and `energy_preferences` list the distinct values of all CPUs; `hypervisor` and `container` name what
    the machine runs in, '' on bare metal; `swap_used_bytes` counts pages in swap.
    """

    governors: tuple[str, ...]
    energy_preferences: tuple[str, ...]
    boost: bool | None
    platform_profile: str | None
    on_battery: bool | None
    transparent_huge_pages: str | None
    numa_balancing: bool | None
    swap_bytes: int
    swap_used_bytes: int
    hypervisor: str
    container: str


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip().strip("\0")
    return None


def _switch(file: Path) -> bool | None:
    text = _text(file)
    return text not in ("0", "N") if text else None


def _each_cpu(root: Path, name: str) -> tuple[str, ...]:
    files = (root / "sys/devices/system/cpu/cpufreq").glob(f"policy*/{name}")
    return tuple(sorted({text for file in files if (text := _text(file))}))


def _boost(root: Path) -> bool | None:
    cpus = root / "sys/devices/system/cpu"
    no_turbo = _switch(cpus / "intel_pstate/no_turbo")
    return not no_turbo if no_turbo is not None else _switch(cpus / "cpufreq/boost")


def _on_battery(root: Path) -> bool | None:
    """Whether the mains are there and unplugged."""
    mains = [
        _text(folder / "online")
        for folder in (root / "sys/class/power_supply").glob("*")
        if _text(folder / "type") == "Mains"
    ]
    return "1" not in mains if mains else None


def _huge_pages(root: Path) -> str | None:
    choice = re.search(r"\[(\w+)\]", _text(root / "sys/kernel/mm/transparent_hugepage/enabled") or "")
    return choice[1] if choice else None


def _swap(root: Path) -> tuple[int, int]:
    text = _text(root / "proc/meminfo")
    if text is None:
        swap = psutil.swap_memory()
        return int(swap.total), int(swap.used)
    kilobytes = {name: int(number) for name, number in re.findall(r"^(Swap\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total, free = kilobytes.get("SwapTotal", 0), kilobytes.get("SwapFree", 0)
    return total << 10, (total - free) << 10


_VENDORS = {
    "QEMU": "QEMU/KVM",
    "KVM": "KVM",
    "VMware": "VMware",
    "VirtualBox": "VirtualBox",
    "innotek": "VirtualBox",
    "Microsoft": "Hyper-V",
    "Xen": "Xen",
    "Amazon EC2": "Amazon EC2",
    "Google": "Google Compute Engine",
    "Alibaba": "Alibaba Cloud",
    "Tencent": "Tencent Cloud",
    "HUAWEI": "Huawei Cloud",
    "OpenStack": "OpenStack",
    "Parallels": "Parallels",
}


def _hypervisor(root: Path) -> str:
    """Only the CPU's flag decides: vendors of clouds sell bare metal too."""
    if "microsoft" in (_text(root / "proc/version") or "").lower():
        return "WSL"
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    if not flags or "hypervisor" not in flags[1].split():
        return ""
    told = " ".join(_text(root / f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name"))
    return next((name for word, name in _VENDORS.items() if word in told), t("a hypervisor"))


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    if name := _text(root / "run/systemd/container"):
        return name
    groups = _text(root / "proc/self/cgroup") or ""
    words = ("kubepods", "docker", "lxc")
    return next((word for word in words if f"/{word}" in groups), "")


def read(root: Path = ROOT) -> Settings:
    """Read the current settings."""
    swap, used = _swap(root)
    return Settings(
        governors=_each_cpu(root, "scaling_governor"),
        energy_preferences=_each_cpu(root, "energy_performance_preference"),
        boost=_boost(root),
        platform_profile=_text(root / "sys/firmware/acpi/platform_profile"),
        on_battery=_on_battery(root),
        transparent_huge_pages=_huge_pages(root),
        numa_balancing=_switch(root / "proc/sys/kernel/numa_balancing"),
        swap_bytes=swap,
        swap_used_bytes=used,
        hypervisor=_hypervisor(root),
        container=_container(root),
    )
