"""What Linux says of processes and their connections, read from /proc."""

import os
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROC = Path("/proc")
ESTABLISHED = "01"


def children(parent: int) -> list[int]:
    """The processes that `parent` started and that run, by number."""
    found = []
    for status in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            # The name, in brackets, may hold anything.
            state, parent_id = status.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if int(parent_id) == parent and state != "Z":
                found.append(int(status.parent.name))
    return sorted(found)


def family(process: int) -> list[int]:
    """The process, its children, theirs and so on, as long as they run."""
    found = [process]
    for member in found:
        found += children(member)
    return found


def cpu_seconds(processes: Iterable[int]) -> float:
    """Processor time that these have used, all their threads together; those that ended count nothing."""
    ticks = 0
    for process in processes:
        with suppress(OSError):
            fields = (PROC / str(process) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # in user mode and in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int) -> float:
    """Resident memory in MB."""
    fields = (PROC / str(process) / "statm").read_text(encoding="utf-8").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files_limit(process: int) -> int:
    """How many files and connections the process may have open."""
    for line in (PROC / str(process) / "limits").read_text(encoding="utf-8").splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[3])
    raise ValueError(f"/proc/{process}/limits names no limit of open files")


def client_ports(process: int, port: int) -> set[int]:
    """The clients' ports of the connections to local `port` that the process holds."""
    held = set()
    for file in (PROC / str(process) / "fd").iterdir():
        with suppress(OSError):
            held.add(os.readlink(file))
    found = set()
    for line in (PROC / "net" / "tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        inode = rest[5]
        if state == ESTABLISHED and int(local.split(":")[1], 16) == port and f"socket:[{inode}]" in held:
            found.add(int(remote.split(":")[1], 16))
    return found


def busy_cores(seconds: float) -> float:
    """How many cores were at work, on average, for so many seconds from now."""
    before = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - before) / seconds


def first_core() -> set[int]:
    """The core for a server that is measured alone."""
    return {min(os.sched_getaffinity(0))}


def last_core() -> set[int]:
    """The core for the generator; the first one too where there is only one."""
    return {max(os.sched_getaffinity(0))}


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Keeps this thread, and what it starts meanwhile, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def many_connections() -> Iterator[None]:
    """Lets this process have as many connections as it may; servers started before keep theirs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def busy_seconds() -> float:
    """Processor time that all cores together have worked, or were not let work, since the machine started."""
    fields = (PROC / "stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields)
    return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")
