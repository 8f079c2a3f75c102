"""How many cores this process may use, and how workers and threads share them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")


def available_cores(system: Path = SYSTEM) -> float:
    """The cores that the affinity mask and the CPU quotas of containers leave, as 1.5."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(affinity, quota(system))


def quota(system: Path = SYSTEM) -> float:
    """The lowest CPU quota, in cores, of this process's control groups and those around them; else infinity.

    `system` is where `/proc` and `/sys` are. psutil knows no quotas.
    """
    mounts = system / "sys/fs/cgroup"
    quotas = [math.inf]
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            for folder in _upwards((mounts, mounts / "unified"), group):
                allowed, _, period = _read(folder / "cpu.max").partition(" ")
                if allowed not in ("", "max"):
                    quotas.append(int(allowed) / int(period))
        elif "cpu" in controllers.split(","):
            for folder in _upwards((mounts / controllers, mounts / "cpu"), group):
                allowed, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                if allowed and period and int(allowed) > 0:  # -1 is no quota
                    quotas.append(int(allowed) / int(period))
    return min(quotas)


def shares(workers: int | None, threads: int | None, cores: float) -> tuple[int, int]:
    """The workers, and the threads of each; a number not given is chosen so that no two share a core."""
    whole = max(1, int(cores))
    if workers is None:
        workers = max(1, whole // (threads or 1))
    return workers, threads or max(1, whole // workers)


def _upwards(mounts: tuple[Path, Path], group: str) -> Iterator[Path]:
    """The group's folder and those around it. In a container only some of them can be seen."""
    for mount in mounts:
        folder = mount / group.lstrip("/")
        yield folder
        while folder != mount:
            folder = folder.parent
            yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
