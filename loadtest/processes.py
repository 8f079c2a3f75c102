"""Processes on Linux: their cores, children, connections and memory, and the processor time that they use."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True, slots=True)
class CpuShares:
    """Processor time as shares of one core: the server's, the generator's, and that of all else."""

    server: float
    generator: float
    foreign: float = 0.0


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Processor time at one moment, in seconds: the server's processes', this one's, and the machine's."""

    moment: float
    server: float
    generator: float
    machine: float

    @classmethod
    def now(cls, server: Sequence[int]) -> Self:
        return cls(time.monotonic(), cpu_seconds(server), time.process_time(), busy_seconds())

    def until(self, later: "CpuReading") -> CpuShares:
        seconds = max(later.moment - self.moment, 1e-9)
        server, generator = later.server - self.server, later.generator - self.generator
        foreign = max(later.machine - self.machine - server - generator, 0.0)
        return CpuShares(server / seconds, generator / seconds, foreign / seconds)


def cpu_seconds(processes: Iterable[int]) -> float:
    """Processor time that these have used, all their threads together; those that ended count nothing."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(process).cpu_times()
            total += times.user + times.system
    return total


def busy_seconds() -> float:
    """Processor time that all cores together have worked, or were not let work, since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def busy_cores(seconds: float) -> float:
    """How many cores were at work, on average, for so many seconds from now."""
    before = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - before) / seconds


def children(parent: int, *, recursive: bool = False) -> list[int]:
    """The processes that `parent` started and that run, by number; `recursive` adds theirs and so on."""
    found = []
    for child in psutil.Process(parent).children(recursive=recursive):
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return sorted(found)


def resident_mb(process: int) -> float:
    """Resident memory in MB."""
    return float(psutil.Process(process).memory_info().rss / 1e6)


def open_files_limit(process: int) -> int:
    """How many files and connections the process may have open."""
    soft, _ = psutil.Process(process).rlimit(psutil.RLIMIT_NOFILE)
    return int(soft)


def client_ports(process: int, port: int) -> set[int]:
    """The clients' ports of the connections to local `port` that the process holds."""
    return {
        connection.raddr.port
        for connection in psutil.Process(process).net_connections("tcp4")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
    }


def split_cores(available: Iterable[int] | None = None) -> tuple[int, int]:
    """The server's core, the first, and the generator's, the last; one and the same where there is one.

    >>> split_cores([0, 1, 2]), split_cores([0])
    ((0, 2), (0, 0))
    """
    cores = os.sched_getaffinity(0) if available is None else set(available)
    return min(cores), max(cores)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keeps this thread, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def many_connections() -> Iterator[None]:
    """Lets this process have as many connections as it may; servers started before keep theirs."""
    this = psutil.Process()
    soft, hard = this.rlimit(psutil.RLIMIT_NOFILE)
    this.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        this.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
