"""A server process of our own, with one bundle and nothing else, for as long as measurements take."""

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.bundles import Bundle
from loadtest.processes import family

PROJECT = Path(__file__).resolve().parents[1]
LOG_TAIL_LINES = 30
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to 127.0.0.1


# The same for every system: no request of a slow one is refused or given up on because of its time, the queue
# has room for what the clients of a closed loop send at once, and a server that is told to stop does not wait
# for a load balancer to notice.
SETTINGS = {"SERVE_REQUEST_SECONDS": "300", "SERVE_MAX_QUEUE_TOKENS": "16384", "SERVE_DRAIN_SECONDS": "0"}


class ServerError(RuntimeError):
    """The server did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready: its port on 127.0.0.1, its processes, and the seconds that it took to start."""

    port: int
    processes: tuple[int, ...]
    start_seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(
    bundle: Bundle,
    *,
    command: Sequence[str],
    workers: int,
    threads: int,
    timeout: float,
    cores: set[int] | None = None,
) -> Iterator[Running]:
    """Serves `bundle` alone on a free port of 127.0.0.1, once /readyz answers 200.

    `command` is completed by --bundles, --host, --port, --workers and --threads; the process and all of its
    workers run on `cores` only, and are stopped on the way out, whatever the reason. Raises ServerError after
    `timeout` seconds, or as soon as the process ends.
    """
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        only = Path(temporary) / "bundles"
        only.mkdir()
        (only / bundle.served_as).symlink_to(bundle.folder.resolve(), target_is_directory=True)
        log = Path(temporary) / "server.log"
        port, began = free_port(), time.monotonic()
        options = ["--bundles", str(only), "--host", "127.0.0.1", "--port", str(port)]
        options += ["--workers", str(workers), "--threads", str(threads)]
        with own_process([*command, *options], log, variables=SETTINGS, cores=cores) as process:
            wait_until_ready(process, f"http://127.0.0.1:{port}", log, timeout)
            yield Running(port, tuple(family(process.pid)), time.monotonic() - began)


@contextmanager
def own_process(
    command: Sequence[str],
    log: Path,
    *,
    variables: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    folder: Path = PROJECT,
    talks: bool = False,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in `folder`, output to `log`; it and its children end with the block.

    It gets a session of its own: Ctrl-C comes to this process only, and a server's workers are stopped
    together with it. `variables` are added to the environment; `cores` are all that it may run on. One that
    `talks` has pipes as its standard input and output; only its errors go to `log`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, **(variables or {})},
            preexec_fn=None if cores is None else partial(os.sched_setaffinity, 0, cores),
        )
        try:
            yield process
        finally:
            _stop(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # it ended before it had read everything
                        pipe.close()


def _stop(process: "subprocess.Popen[bytes]", patience: float = 10.0) -> None:
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, number)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path, timeout: float) -> None:
    """Return once /readyz answers 200; raises ServerError after `timeout` seconds, or as the process ends."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise ServerError(
                f"the server ended with status {process.returncode} before it was ready{tail(log)}"
            )
        try:
            with DIRECT.open(f"{url}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass  # not listening yet, or 503 while it loads
        time.sleep(0.1)
    raise ServerError(f"the server was not ready after {timeout:g} s{tail(log)}")


def tail(log: Path) -> str:
    """The end of a log, as the end of a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return (
        "; the end of its log:\n" + "\n".join(f"    {line}" for line in lines)
        if lines
        else "; its log is empty"
    )
