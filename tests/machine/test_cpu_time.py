import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from seventy.machine import cpu_time
from seventy.machine.topology import allowed_cpus


class Times(SimpleNamespace):
    def _asdict(self) -> dict[str, float]:
        return vars(self)


def test_what_is_ours_and_idle_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Times(user=3.0, system=1.0, children_user=2.0, children_system=0.5)
    each = [
        Times(user=10.0, nice=1.0, system=2.0, idle=500.0, iowait=70.0, softirq=0.5, steal=4.0, guest=9.0),
        Times(user=1.0, idle=900.0),
        Times(user=77.0, idle=3.0),
    ]  # fmt: skip
    monkeypatch.setattr(cpu_time.psutil, "Process", lambda: SimpleNamespace(cpu_times=lambda: own))
    monkeypatch.setattr(cpu_time.psutil, "cpu_times", lambda percpu: each)
    assert cpu_time.cpu_seconds([0, 1]) == 17.5 + 1.0 - 6.5
    # One that went offline meanwhile.
    assert cpu_time.cpu_seconds([1, 99]) == 1.0 - 6.5


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="CPU times of other processes as Linux counts them")
def test_another_program_is_seen() -> None:
    cpus = allowed_cpus()
    program = "import time\nwhile time.process_time() < 1: pass\nprint(1, flush=True)\ninput()"
    before = cpu_time.cpu_seconds(cpus)
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout and other.stdout.readline() == "1\n"
        assert cpu_time.cpu_seconds(cpus) - before > 0.7
    finally:
        other.communicate("\n")
