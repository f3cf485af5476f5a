from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gopher.runtime.machine import cpu_share, memory_share, processor_seconds, usable_cpus

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")

GIB = 1 << 30


def put(root: Path, files: dict[str, str]) -> Path:
    """Lay out the kernel's files below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity allows sixteen CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))


V2 = {"proc/self/cgroup": "0::/jobs/worker\n"}
V1 = {"proc/self/cgroup": "5:memory:/jobs\n3:cpu,cpuacct:/jobs\n0::/\n"}


@pytest.mark.usefixtures("many_cpus")
@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 16),
        (V2 | {"sys/fs/cgroup/jobs/worker/cpu.max": "max 100000\n"}, 16),
        (V2 | {"sys/fs/cgroup/jobs/worker/cpu.max": "400000 100000\n"}, 4),
        (V2 | {"sys/fs/cgroup/jobs/worker/cpu.max": "400000 100000\n", "sys/fs/cgroup/jobs/cpu.max": "150000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/jobs/worker/cpu.max": "9900000 100000\n"}, 16),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 16),
        (
            V1
            | {"sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us": "300000\n", "sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us": "100000\n"},
            3,
        ),
    ],
)
def test_usable_cpus_keeps_to_the_quota(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    """The least of the affinity and of every quota that binds, rounded up; v2 and v1, with the host's path and without."""
    assert usable_cpus(put(tmp_path, files)) == cpus


def test_cpu_share_is_not_rounded(tmp_path: Path) -> None:
    """Half a CPU is half a CPU."""
    assert cpu_share(put(tmp_path, V2 | {"sys/fs/cgroup/jobs/worker/cpu.max": "50000 100000\n"})) == 0.5


def test_usable_cpus_keeps_to_the_affinity(tmp_path: Path) -> None:
    """A process that may run on some CPUs only counts these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, 0.0),
        ({"proc/meminfo": "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  400 kB\n"}, 0.6),
        (V2 | {"sys/fs/cgroup/jobs/worker/memory.max": "max\n", "sys/fs/cgroup/jobs/worker/memory.current": "5\n"}, 0.0),
        (
            V2
            | {
                "sys/fs/cgroup/jobs/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/jobs/memory.current": f"{3 * GIB}\n",
                "sys/fs/cgroup/jobs/memory.stat": f"anon 1\ninactive_file {GIB}\n",
                "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 900 kB\n",
            },
            0.5,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/jobs/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 2}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{9 * GIB}\n",
            },
            0.75,
        ),
    ],
)
def test_memory_share_is_that_of_the_fullest(tmp_path: Path, files: dict[str, str], share: float) -> None:
    """Of the machine and the cgroups around the process, without cached files that can be given up."""
    assert memory_share(put(tmp_path, files)) == pytest.approx(share)


def test_processor_seconds_counts_what_is_computed() -> None:
    """Computing moves it on by at least the processor time used."""
    before = processor_seconds()

    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass

    assert processor_seconds() - before >= 0.02
