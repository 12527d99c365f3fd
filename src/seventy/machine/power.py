"""Energy the machine counted itself: RAPL through Linux's powercap (Intel since Sandy Bridge, AMD since Zen).

Counts CPU packages and, on servers, DRAM; fans, disks, the board and the supply's losses are not in it.
https://docs.kernel.org/power/powercap/powercap.html
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seventy.errors import SeventyError
from seventy.machine.cgroup import ROOT

# A counter of 65 kJ (Haswell servers) at 300 W begins anew after 218 s.
_SAMPLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Domain:
    """An energy counter in microjoules, which wraps around after `range_uj`."""

    name: str
    file: Path
    range_uj: int


def domains(root: Path = ROOT) -> list[Domain]:
    """List the counters of packages and DRAM, each once.

    Raises SeventyError if the machine has no counters or the user may not read them.
    """
    found = []
    # A package is intel-rapl:0, DRAM a part of it, intel-rapl:0:1; intel-rapl-mmio:0 counts the same package again.
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name != "dram" and not name.startswith("package"):
                continue
            (folder / "energy_uj").read_text()
            found.append(Domain(name, folder / "energy_uj", int((folder / "max_energy_range_uj").read_text())))
        except PermissionError:
            raise SeventyError(
                "only root may read this machine's energy counters; allow it until the next boot with: "
                "sudo sh -c 'chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj'"
            ) from None
        except (OSError, ValueError):
            continue
    if not found:
        raise SeventyError(
            "this machine has no energy counters (no package in /sys/class/powercap/intel-rapl:*, as in most virtual "
            "machines); give the watts of a wall meter with --watts"
        )
    return found


class Meter:
    """A context that counts joules: `with Meter() as meter: work()`, then `meter.joules`.

    Longer than a counter's range, too: it is looked at every half minute. Raises as `domains` does.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._domains = domains(root)
        self._last = [0] * len(self._domains)
        self._counted_uj = [0] * len(self._domains)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Meter":
        self._last = [self._read(domain) for domain in self._domains]
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._sampler.join()
        self.sample()

    def sample(self) -> None:
        """Add the energy used since the last sample."""
        with self._lock:
            for i, domain in enumerate(self._domains):
                now = self._read(domain)
                self._counted_uj[i] += (now - self._last[i]) % (domain.range_uj + 1)
                self._last[i] = now

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.sample()

    @staticmethod
    def _read(domain: Domain) -> int:
        return int(domain.file.read_text())

    def _sum(self, dram: bool) -> float:
        counted = zip(self._domains, self._counted_uj, strict=True)
        return sum(microjoules for domain, microjoules in counted if (domain.name == "dram") == dram) / 1e6

    @property
    def package_joules(self) -> float:
        return self._sum(dram=False)

    @property
    def dram_joules(self) -> float:
        """0 where the machine does not count it (desktops)."""
        return self._sum(dram=True)

    @property
    def joules(self) -> float:
        """Packages and DRAM."""
        return self.package_joules + self.dram_joules
