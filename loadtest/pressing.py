"""The load generator as this process sees it: a child that is told what to do and tells what it measured."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.jobs import ClosedJob, Job, OpenJob, as_line
from loadtest.results import Closed, Latency, Step
from loadtest.server import own_process, tail

START_SECONDS = 60.0  # for Locust to be there
ANSWER_SECONDS = 330.0  # for what is under way when a load ends: longer than the generator itself waits


class GeneratorError(RuntimeError):
    """The load generator gave no figures; the message says why."""


class Generator:
    """A generator that runs; one job at a time."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = process, log
        self._buffer = b""

    def closed(self, job: ClosedJob) -> Closed:
        """Runs a closed loop. Raises GeneratorError."""
        [row] = self._rows(job, job.window.longest)
        return Closed(**{**row, "latency": Latency(**row["latency"])})

    def open(self, job: OpenJob) -> tuple[Step, ...]:
        """Runs an open loop. Raises GeneratorError."""
        rows = self._rows(job, sum(step.seconds for step in job.steps) + len(job.steps))
        return tuple(Step(**{**row, "latency": Latency(**row["latency"])}) for row in rows)

    def _rows(self, job: Job, seconds: float) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(as_line(job).encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise GeneratorError(f"the load generator has ended{tail(self._log)}") from None
        answer = json.loads(self._line(time.monotonic() + START_SECONDS + seconds + ANSWER_SECONDS))
        if "error" in answer:
            raise GeneratorError(f"the load generator: {answer['error']}")
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    def _line(self, give_up: float) -> bytes:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                raise GeneratorError(f"the load generator did not answer in time{tail(self._log)}")
            data = os.read(output, 1 << 16)
            if not data:
                raise GeneratorError(f"the load generator ended{tail(self._log)}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@contextmanager
def generating(cores: set[int] | None) -> Iterator[Generator]:
    """A load generator on `cores` that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        log = Path(temporary) / "generator.log"
        command = [sys.executable, "-m", "loadtest.generator"]
        with own_process(command, log, cores=cores, talks=True) as process:
            yield Generator(process, log)
