"""The real server as a process, with the bundles, cores and settings that a scenario wants."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.client import Address
from loadtest.bundles import read_bundle
from loadtest.processes import children
from loadtest.sentences import request_body
from loadtest.server import DIRECT, ServerError, free_port, own_process, wait_until_ready

TASKS = ("ner", "parse")
SERVER = (sys.executable, "-m", "serve")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario gets: bundles, sentences, and where to say how it goes."""

    bundles: Path
    texts: Path
    sentences: Sequence[list[str]]
    say: Callable[[str], None]
    quick: bool = False
    command: Sequence[str] = SERVER
    patience: float = 180.0  # seconds for a server to be ready

    def seconds(self, whole: float, quick: float) -> float:
        return quick if self.quick else whole


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def address(self) -> Address:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """The processes that answer, by number."""
        return children(self.process.pid)

    def get(self, path: str) -> Any:
        """A JSON answer, over a connection of its own."""
        return self._json(urllib.request.Request(f"{self.url}{path}"))

    def annotate(self, task: str, sentences: Sequence[Sequence[str]]) -> Any:
        """The answer for some sentences, over a connection of its own."""
        headers = {"Content-Type": "application/json"}
        body = request_body(sentences, "tokens")
        return self._json(urllib.request.Request(f"{self.url}/{task}", data=body, headers=headers))

    def _json(self, request: urllib.request.Request) -> Any:
        try:
            with DIRECT.open(request, timeout=30) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise ServerError(f"{request.full_url}: no usable answer: {error}") from error


@contextmanager
def serving(
    setup: Setup,
    *,
    bundles: Path | None = None,
    workers: int = 1,
    cores: set[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Serves entities and trees on a free port; the server and its workers end with the block.

    `bundles` is a folder to be served as it is; by default it is one with the bundles ner and parse alone.
    `settings` are by their names without SERVE_; each worker has one thread.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        if bundles is None:
            bundles = Path(temporary) / "bundles"
            bundles.mkdir()
            for task in TASKS:
                folder = read_bundle(setup.bundles / task).folder
                (bundles / task).symlink_to(folder.resolve(), target_is_directory=True)
        port, log = free_port(), Path(temporary) / "server.log"
        options = {"bundles": bundles, "host": "127.0.0.1", "port": port, "workers": workers, "threads": 1}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        variables = {f"SERVE_{name.upper()}": value for name, value in (settings or {}).items()}
        with own_process([*setup.command, *words], log, variables=variables, cores=cores) as process:
            served = Served(process, port)
            wait_until_ready(process, served.url, log, setup.patience)
            for task in TASKS:
                results = served.annotate(task, setup.sentences[:2]).get("results", ())
                if len(results) != len(setup.sentences[:2]):
                    raise ServerError(f"/{task} gave {len(results)} results for {len(setup.sentences[:2])}")
            yield served
