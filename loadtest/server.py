"""Starts a server in a process of its own, waits until it is ready, and stops it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.http_client import Address
from loadtest.processes import children

PROJECT = Path(__file__).resolve().parents[1]
SERVE = (sys.executable, "-m", "serve")
READY_SECONDS = 180.0  # for a server to start
ANSWER_SECONDS = 120.0
STOP_SECONDS = 10.0
LOG_TAIL_LINES = 30
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to 127.0.0.1


class ServerError(RuntimeError):
    """The server did not come up, or gave no usable answer; the message has its log's end, or its answer."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready on 127.0.0.1, and the seconds that it took to start."""

    process: "subprocess.Popen[bytes]"
    port: int
    start_seconds: float

    @property
    def address(self) -> Address:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """The processes that it started and that run, by number."""
        return children(self.process.pid)

    def get(self, path: str) -> Any:
        """A JSON answer, over a connection of its own. Raises ServerError."""
        return self._json(urllib.request.Request(f"{self.url}{path}"))

    def post(self, path: str, body: object) -> Any:
        """The JSON answer to a JSON body, over a connection of its own. Raises ServerError."""
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._json(urllib.request.Request(f"{self.url}{path}", data=data, headers=headers))

    def _json(self, request: urllib.request.Request) -> Any:
        try:
            with _DIRECT.open(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            reason = error.read(500).decode("utf-8", "replace")
            raise ServerError(f"{request.full_url}: status {error.code}: {reason}") from error
        except (OSError, ValueError) as error:
            raise ServerError(f"{request.full_url}: no usable answer: {error}") from error


@contextmanager
def serving(
    bundles: Path | Mapping[str, Path],
    *,
    command: Sequence[str] = SERVE,
    workers: int = 1,
    cores: set[int] | None = None,
    settings: Mapping[str, str] | None = None,
    timeout: float = READY_SECONDS,
) -> Iterator[Server]:
    """Serves bundles; each worker has one thread.

    Args:
        bundles: a folder to be served as it is, or the folders of bundles by the names to serve them under.
        command: is completed by --bundles, --host, --port, --workers and --threads.
        cores: all that the server and its workers may run on.
        settings: by their names without SERVE_, in lower case.

    Raises:
        ServerError: it was not ready after `timeout` seconds, or ended before.
    """
    with tempfile.TemporaryDirectory(prefix="bundles-") as temporary:
        if isinstance(bundles, Mapping):
            for name, folder in bundles.items():
                (Path(temporary) / name).symlink_to(folder.resolve(), target_is_directory=True)
            bundles = Path(temporary)
        options = {"bundles": bundles, "host": "127.0.0.1", "workers": workers, "threads": 1}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        variables = {f"SERVE_{name.upper()}": value for name, value in (settings or {}).items()}
        with running([*command, *words], variables=variables, cores=cores, timeout=timeout) as server:
            yield server


@contextmanager
def running(
    command: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    timeout: float = READY_SECONDS,
) -> Iterator[Server]:
    """Any server: `command` with a free --port, once /readyz answers 200; it is stopped with the block.

    Raises:
        ServerError: it was not ready after `timeout` seconds, or ended before.
    """
    with tempfile.TemporaryDirectory(prefix="server-") as temporary:
        log, port, began = Path(temporary) / "server.log", free_port(), time.monotonic()
        command = [*command, "--port", str(port)]
        with own_process(command, log, variables=variables, cores=cores) as process:
            _wait_until_ready(process, f"http://127.0.0.1:{port}", log, timeout)
            yield Server(process, port, time.monotonic() - began)


@contextmanager
def own_process(
    command: Sequence[str],
    log: Path,
    *,
    variables: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    folder: Path = PROJECT,
    pipes: bool = False,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a command in `folder`, output to `log`; it and its children end with the block.

    It gets a session of its own: Ctrl-C comes to this process only, and a server's workers are stopped
    together with it. `variables` are added to the environment; `cores` are all that it may run on. With
    `pipes` as its standard input and output only its errors go to `log`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
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


def tail(log: Path) -> str:
    """The end of a log, as the end of a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    if not lines:
        return "; its log is empty"
    return "; the end of its log:\n" + "\n".join(f"    {line}" for line in lines)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path, timeout: float) -> None:
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise ServerError(
                f"the server ended with status {process.returncode} before it was ready{tail(log)}"
            )
        with suppress(OSError), _DIRECT.open(f"{url}/readyz", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)  # not listening yet, or 503 while it loads
    raise ServerError(f"the server was not ready after {timeout:g} s{tail(log)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, number)
