"""How many cores this process may use, and how workers and threads share them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")


def available_cores(system: Path = SYSTEM) -> float:
    """The cores that the affinity mask and the CPU quotas of containers leave, as 1.5."""
    return min(_affinity(), quota(system))


def quota(system: Path = SYSTEM) -> float:
    """The lowest CPU quota, in cores, of this process's control groups and those around them; else infinity.

    `system` is where `/proc` and `/sys` are.
    """
    return min(_quotas(system), default=math.inf)


def shares(workers: int | None, threads: int | None, cores: float) -> tuple[int, int]:
    """The workers, and the threads of each; what is not given is chosen so that no two share a core."""
    whole = max(1, int(cores))
    if workers is None:
        workers = max(1, whole // (threads or 1))
    return workers, threads or max(1, whole // workers)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(system: Path) -> Iterator[float]:
    mounts = system / "sys/fs/cgroup"
    for controllers, group in _groups(system):
        if controllers == "":
            for root in (mounts, mounts / "unified"):
                for folder in _upwards(root, group):
                    yield from _version_2(folder)
        elif "cpu" in controllers.split(","):
            for root in (mounts / controllers, mounts / "cpu"):
                for folder in _upwards(root, group):
                    yield from _version_1(folder)


def _groups(system: Path) -> Iterator[tuple[str, str]]:
    """The controllers and the path of each group of this process; version 2 names no controllers."""
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        yield controllers, group


def _upwards(root: Path, group: str) -> Iterator[Path]:
    """The group's folder and those around it. In a container only some of them can be seen."""
    folder = root / group.lstrip("/")
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _version_2(folder: Path) -> Iterator[float]:
    numbers = _read(folder / "cpu.max").split()
    if numbers and numbers[0] != "max":
        yield int(numbers[0]) / int(numbers[1])


def _version_1(folder: Path) -> Iterator[float]:
    allowed, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if allowed and period and int(allowed) > 0:  # -1 is no quota
        yield int(allowed) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
