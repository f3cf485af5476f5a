"""What this process may use of the machine, and uses: CPUs by affinity and cgroup quota, memory, its own demand for processor time.

All is read from the kernel's files; where one is missing, as outside Linux, it sets no limit.
"""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path("/")
_NO_LIMIT_BYTES: Final = 1 << 60
"""cgroup v1 writes "no limit" as the largest number of pages, about 2**63 bytes; no machine has as much as this."""


def usable_cpus(root: Path = _ROOT) -> int:
    """Return how many CPUs this process may keep busy, rounded up.

    Args:
        root: Of the file system; another one for tests.
    """
    return math.ceil(cpu_share(root))


def cpu_share(root: Path = _ROOT) -> float:
    """Return the processor time a second that this process may have: a CPU each of its affinity, at most its cgroups' quota.

    Args:
        root: Of the file system; another one for tests.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min([float(allowed), *_cpu_quotas(root)])


def memory_share(root: Path = _ROOT) -> float:
    """Return the part of the memory that is in use and cannot be had back, 0 to 1: of the cgroup or the machine, whichever is fuller.

    Args:
        root: Of the file system; another one for tests.
    """
    return max([0.0, *_memory_shares(root)])


def processor_seconds() -> float:
    """Return the processor time this process has used, and what its main thread has waited for a CPU.

    A process that gets a third of a CPU because others want it too is as busy as one that gets a whole one.
    """
    return time.process_time() + _waited_seconds()


def _waited_seconds() -> float:
    # Of the main thread alone: the loop's. Source: Linux, Documentation/scheduler/sched-stats.rst.
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/schedstat").read_bytes().split()[1]) / 1e9
    return 0.0


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            yield int(quota) / int(period)


def _memory_shares(root: Path) -> Iterator[float]:
    for folder in _cgroups(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit.isdecimal() and used.isdecimal() and 0 < int(limit) < _NO_LIMIT_BYTES:
                # As the kubelet counts: cached files that nobody reads are given up before anything is killed.
                yield (int(used) - _table(folder / "memory.stat").get(cache_name, 0)) / int(limit)
    machine = _table(root / "proc/meminfo")
    if machine.get("MemTotal") and "MemAvailable" in machine:
        yield 1 - machine["MemAvailable"] / machine["MemTotal"]


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of those around it, whose limits bind it too; v2 and v1."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            mount = mounts
        elif controller in controllers.split(","):
            mount = mounts / controller
        else:
            continue
        # In a container the path may be the host's, of which only the mount itself is to be seen.
        folder = mount / path.lstrip("/")
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount))


def _table(path: Path) -> dict[str, int]:
    rows = (line.replace(":", " ").split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
