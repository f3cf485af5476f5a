"""The facts about this machine that the figures depend on; none that names it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.systems import PEERS

PYTHON_PACKAGES: Final = ("trio", "grpcio", "redis", "hiredis", "uvloop", "dramatiq")
NODE_PACKAGES: Final = ("bullmq", "ioredis")


def facts(redis_version: str) -> dict[str, object]:
    """Return processor, cores, versions and the load average at this moment."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "redis": redis_version,
        "packages": _python_versions() | _node_versions(),
        "load_average": load_average(),
    }


def load_average() -> list[float]:
    """Return the load average over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _python_versions() -> dict[str, str]:
    versions = {}
    for name in PYTHON_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _node_versions() -> dict[str, str]:
    manifests = {name: PEERS / "node_modules" / name / "package.json" for name in NODE_PACKAGES}
    return {
        name: str(msgspec.json.decode(path.read_bytes(), type=dict[str, object])["version"])
        for name, path in manifests.items()
        if path.is_file()
    }
