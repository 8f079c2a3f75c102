"""A server process of our own, with one bundle and nothing else, for as long as a measurement takes."""

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
from functools import partial
from pathlib import Path

from loadtest.bundles import Bundle

PROJECT = Path(__file__).resolve().parents[1]
LOG_TAIL_LINES = 30
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to 127.0.0.1


class ServerError(RuntimeError):
    """The server did not come up; the message ends with the last lines of its log."""


@contextmanager
def running(
    bundle: Bundle, *, command: Sequence[str], workers: int, threads: int, timeout: float
) -> Iterator[str]:
    """Serve `bundle` alone on a free port of 127.0.0.1; yields the base URL once /readyz answers 200.

    `command` is completed by --bundles, --host, --port, --workers and --threads. The process and all of its
    workers are stopped on the way out, whatever the reason. Raises ServerError after `timeout` seconds, or
    as soon as the process ends.
    """
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        only = Path(temporary) / "bundles"
        only.mkdir()
        (only / bundle.served_as).symlink_to(bundle.folder.resolve(), target_is_directory=True)
        log = Path(temporary) / "server.log"
        port = free_port()
        options = ["--bundles", str(only), "--host", "127.0.0.1", "--port", str(port)]
        options += ["--workers", str(workers), "--threads", str(threads)]
        with own_process([*command, *options], log) as process:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log, timeout)
            yield url


@contextmanager
def own_process(
    command: Sequence[str],
    log: Path,
    *,
    variables: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    folder: Path = PROJECT,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in `folder`, output to `log`; it and its children end with the block.

    It gets a session of its own: Ctrl-C comes to this process only, and a server's workers are stopped
    together with it. `variables` are added to the environment; `cores` are all that it may run on.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, **(variables or {})},
            preexec_fn=None if cores is None else partial(os.sched_setaffinity, 0, cores),
        )
        try:
            yield process
        finally:
            _stop(process)


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
                f"the server ended with status {process.returncode} before it was ready{_tail(log)}"
            )
        try:
            with DIRECT.open(f"{url}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass  # not listening yet, or 503 while it loads
        time.sleep(0.1)
    raise ServerError(f"the server was not ready after {timeout:g} s{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return (
        "; the end of its log:\n" + "\n".join(f"    {line}" for line in lines)
        if lines
        else "; its log is empty"
    )
