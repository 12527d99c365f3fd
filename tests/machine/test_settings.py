from pathlib import Path

import pytest

from seventy.machine import settings
from tests.support import trees

CPUS = "sys/devices/system/cpu"
FULL: dict[str, str | int] = {
    f"{CPUS}/cpufreq/policy0/scaling_governor": "powersave",
    f"{CPUS}/cpufreq/policy1/scaling_governor": "performance",
    f"{CPUS}/cpufreq/policy0/energy_performance_preference": "balance_power",
    f"{CPUS}/intel_pstate/no_turbo": 1,
    "sys/firmware/acpi/platform_profile": "low-power",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": 0,
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]",
    "proc/sys/kernel/numa_balancing": 1,
    "proc/meminfo": "MemTotal:  100 kB\nSwapCached: 0 kB\nSwapTotal:  2048 kB\nSwapFree:   1024 kB",
    "proc/cpuinfo": "flags\t\t: fpu avx hypervisor",
    "sys/class/dmi/id/sys_vendor": "Amazon EC2",
    "sys/class/dmi/id/product_name": "m5.large",
    "proc/self/cgroup": "0::/kubepods/pod1",
}


def test_all_there(tmp_path: Path) -> None:
    assert settings.read(trees.write(tmp_path, FULL)) == settings.Settings(
        governors=("performance", "powersave"),
        energy_preferences=("balance_power",),
        boost=False,
        platform_profile="low-power",
        on_battery=True,
        transparent_huge_pages="never",
        numa_balancing=True,
        swap_bytes=2 << 20,
        swap_used_bytes=1 << 20,
        hypervisor="Amazon EC2",
        container="kubepods",
    )


def test_nothing_there(tmp_path: Path) -> None:
    found = settings.read(tmp_path)
    assert (found.governors, found.boost, found.on_battery, found.transparent_huge_pages) == ((), None, None, None)
    assert (found.hypervisor, found.container, found.numa_balancing) == ("", "", None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"proc/cpuinfo": "flags\t\t: fpu avx"}, ""),
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, "QEMU/KVM"),
        ({"sys/class/dmi/id/sys_vendor": "somebody"}, "a hypervisor"),
        ({"proc/version": "Linux version 5.15.153.1-microsoft-standard-WSL2"}, "WSL"),
    ],
)
def test_hypervisor(tmp_path: Path, change: dict[str, str], expected: str) -> None:
    assert settings.read(trees.write(tmp_path, FULL | change)).hypervisor == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({".dockerenv": ""}, "Docker"),
        ({"run/.containerenv": ""}, "Podman"),
        ({"run/systemd/container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"proc/self/cgroup": "0::/user.slice"}, ""),
    ],
)
def test_container(tmp_path: Path, change: dict[str, str], expected: str) -> None:
    assert settings.read(trees.write(tmp_path, FULL | change)).container == expected


def test_boost_of_amd(tmp_path: Path) -> None:
    assert settings.read(trees.write(tmp_path, {f"{CPUS}/cpufreq/boost": 1})).boost is True
