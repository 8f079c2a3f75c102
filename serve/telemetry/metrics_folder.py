"""The folder in which the workers' metrics meet; made before anything imports prometheus_client."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MEMORY = Path("/dev/shm")
ROOM = 32 << 20


def prepare_folder(memory: Path = MEMORY) -> Path:
    """Makes an empty folder, which the workers find by the environment.

    A folder that the operator's environment names is emptied of earlier metrics and stays; one made here, in
    `memory` where that has room, can be read by this user alone and goes when this process ends.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named)
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.db"):
            file.unlink(missing_ok=True)
        return folder
    folder = Path(tempfile.mkdtemp(prefix="serve-metrics-", dir=memory if _has_room(memory) else None))
    os.environ[VARIABLE] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def mark_dead(pid: int) -> None:
    """Forgets what a dead worker held, as its queue; what it counted stays counted."""
    # Imported late: prometheus_client decides at its import where it counts.
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _has_room(folder: Path) -> bool:
    # Workers write through memory maps, and one that finds the folder full is killed by SIGBUS.
    return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free >= ROOM


def _remove(folder: Path, owner: int) -> None:
    # Forked workers inherit what is registered for the exit.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
