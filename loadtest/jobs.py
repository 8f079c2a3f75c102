"""What the load generator is told to do: one job a line of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.sentences import Input
from loadtest.window import Window


@dataclass(frozen=True, slots=True)
class Target:
    """The server and what it is asked. `processes` are the server's own, whose processor time is read."""

    port: int
    path: str
    texts: str
    kind: Input
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of an open loop: `percent` of the capacity for so many seconds."""

    percent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ClosedJob:
    """A closed loop of `connections` clients, each with `size` sentences a request."""

    target: Target
    round: int
    size: int
    connections: int
    window: Window


@dataclass(frozen=True, slots=True)
class OpenJob:
    """An open loop. `capacity` is requests a second, `objective_ms` the latency that counts as good."""

    target: Target
    size: int
    capacity: float
    steps: tuple[StepPlan, ...]
    objective_ms: float


Job = ClosedJob | OpenJob


def as_line(job: Job) -> str:
    """The job as a line of JSON.

    >>> job = OpenJob(Target(80, "/ner", "test.txt", "tokens", (1, 2)), 1, 9.5, (StepPlan(50, 4.0),), 50.0)
    >>> from_line(as_line(job)) == job
    True
    """
    kind = "closed" if isinstance(job, ClosedJob) else "open"
    return json.dumps({"job": kind, **asdict(job)}) + "\n"


def from_line(line: str) -> Job:
    """The job of a line; raises ValueError, KeyError or TypeError where it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = fields.pop("job")
    target = fields.pop("target")
    aim = Target(**{**target, "processes": tuple(target["processes"])})
    if kind == "closed":
        return ClosedJob(target=aim, window=Window(**fields.pop("window")), **fields)
    steps = tuple(StepPlan(**step) for step in fields.pop("steps"))
    return OpenJob(target=aim, steps=steps, **fields)
