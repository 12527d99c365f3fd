"""How much of the CPUs other programs use: while they do, measurements say little."""

from collections.abc import Collection

import psutil

_IDLE = ("idle", "iowait")
# Already part of user and nice.
_TWICE = ("guest", "guest_nice")


def cpu_seconds(cpus: Collection[int]) -> float:
    """Return the CPU seconds that others (programs, the system, the host) have used on these logical CPUs since boot.

    Only the difference of two readings is meaningful. This process and the children it has waited for do not count.
    """
    own = psutil.Process().cpu_times()
    ours = own.user + own.system + own.children_user + own.children_system
    each = psutil.cpu_times(percpu=True)
    busy = sum(
        seconds
        for cpu in cpus
        if cpu < len(each)
        for name, seconds in each[cpu]._asdict().items()
        if name not in _IDLE + _TWICE
    )
    return float(busy - ours)
