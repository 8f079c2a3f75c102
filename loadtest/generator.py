"""The load generator as this process sees it: a child with Locust that does one job after the other."""

import pickle
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.http_client import Address
from loadtest.plan import ClosedPlan, StepPlan
from loadtest.server import own_process, tail

SPARE_SECONDS = 390.0  # for Locust to start and, after a load, for requests that are under way


class GeneratorError(RuntimeError):
    """The load generator gave no figures; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server to load with the sentences of a file; the processor time of its processes is read."""

    address: Address
    path: str
    texts: Path
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClosedJob:
    """A closed loop; its result is a `ClosedLoop`."""

    target: Target
    round: int
    loop: ClosedPlan

    @property
    def size(self) -> int:
        return self.loop.size

    @property
    def seconds(self) -> float:
        """How long it takes at most."""
        return self.loop.window.longest


@dataclass(frozen=True, slots=True)
class OpenJob:
    """An open loop; its result is a `Step` for each step. `capacity` is requests a second."""

    target: Target
    size: int
    capacity: float
    steps: tuple[StepPlan, ...]
    objective_ms: float

    @property
    def seconds(self) -> float:
        return sum(step.seconds + 1 for step in self.steps)


class Generator:
    """A generator that runs; one job at a time, pickled over its standard input and output."""

    def __init__(self, process: Any, log: Path) -> None:
        self._process, self._log = process, log

    def run(self, job: ClosedJob | OpenJob) -> Any:
        """The job's result. Raises GeneratorError."""
        watchdog = threading.Timer(job.seconds + SPARE_SECONDS, self._process.kill)
        watchdog.start()
        try:
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            late = "did not answer in time" if watchdog.finished.is_set() else "ended"
            raise GeneratorError(f"the load generator {late}{tail(self._log)}") from None
        finally:
            watchdog.cancel()
        if isinstance(answer, Exception):
            raise GeneratorError(f"the load generator: {answer}")
        return answer


@contextmanager
def generating(core: int) -> Iterator[Generator]:
    """A load generator on one core that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="generator-") as temporary:
        log = Path(temporary) / "generator.log"
        command = [sys.executable, "-m", "loadtest.locust_process"]
        with own_process(command, log, cores={core}, pipes=True) as process:
            yield Generator(process, log)
