"""One measurement: Locust, headless and in a process of its own (it patches sockets), against one server."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.sentences import Input
from loadtest.server import PROJECT, own_process

FEW_REQUESTS = 30
PATIENCE = 60  # seconds for Locust to start and to end


class LocustError(RuntimeError):
    """Locust gave no figures; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a server is pressed: the same for teacher and student."""

    users: int
    batch: int
    duration: int  # seconds that count
    warm_up: int  # seconds before them
    input: Input


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one server did. Times are milliseconds of a whole request."""

    sentences_per_second: float
    requests_per_second: float
    p50: float
    p95: float
    p99: float
    requests: int
    seconds: float
    failures: int
    reasons: dict[str, int]


def measure(url: str, task: str, sentences: Path, load: Load, page: Path | None = None) -> Measurement:
    """Press the server at `url` with the sentences of a file; `page` receives Locust's own HTML report."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        summary, html, log = (Path(temporary) / name for name in ("summary.json", "locust.html", "log"))
        options: dict[str, object] = {
            "locustfile": PROJECT / "loadtest" / "locustfile.py",
            "host": url,
            "users": load.users,
            "spawn-rate": load.users,  # all at once
            "run-time": f"{load.warm_up + load.duration}s",
            "html": html,
            "loglevel": "WARNING",
            "task": task,
            "sentences": sentences.resolve(),
            "batch": load.batch,
            "input": load.input,
            "warm-up": load.warm_up,
            "summary": summary,
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary", *words]
        with own_process(command, log) as process:
            try:
                process.wait(load.warm_up + load.duration + PATIENCE)
            except subprocess.TimeoutExpired:
                raise LocustError(f"Locust did not end{_last_words(log)}") from None
        if not summary.exists():
            raise LocustError(f"Locust ended with status {process.returncode}{_last_words(log)}")
        figures = json.loads(summary.read_text(encoding="utf-8"))
        if page is not None and html.exists():
            replace(page, html.read_text(encoding="utf-8"))
    seconds, times = float(figures["seconds"]), sorted(figures["milliseconds"])
    if not seconds:
        raise LocustError("Locust stopped before the warm-up was over")
    return Measurement(
        sentences_per_second=figures["sentences"] / seconds,
        requests_per_second=figures["requests"] / seconds,
        p50=percentile(times, 50),
        p95=percentile(times, 95),
        p99=percentile(times, 99),
        requests=figures["requests"],
        seconds=seconds,
        failures=figures["failures"],
        reasons=figures["reasons"],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; 0 where there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.0
    """
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else 0.0


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _last_words(log: Path) -> str:
    return "; it said:\n" + "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
