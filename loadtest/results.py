"""What a load test found: one frozen record for each measurement, and all of them with their conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of whole requests, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Closed:
    """One closed loop of one round: every connection sends as soon as it was answered.

    `seconds` is the window that was measured; `requests`, `sentences` and `tokens` were answered in it.
    `server_cpu`, `generator_cpu` and, for all else on the machine, `foreign_cpu` are shares of one core.
    `reasons` counts failures by their kind.
    """

    round: int
    sentences_a_request: int
    connections: int
    seconds: float
    requests: int
    sentences: int
    tokens: int
    failures: int
    reasons: dict[str, int]
    sentences_per_second: float
    latency: Latency
    server_cpu: float
    generator_cpu: float
    foreign_cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an open loop: requests arrive at random, on average at a share of the measured capacity.

    `requests` is how many were intended in the step, `refused` how many got status 429. Latencies count from
    the intended arrival. Rates are requests a second; `goodput_per_second` counts those answered within
    `objective_ms`.
    """

    sentences_a_request: int
    share: float
    seconds: float
    offered_per_second: float
    requests: int
    completed_per_second: float
    refused: int
    failures: int
    reasons: dict[str, int]
    latency: Latency
    objective_ms: float
    goodput_per_second: float
    server_cpu: float
    generator_cpu: float
    foreign_cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class System:
    """One bundle of one task, and all that was measured of it.

    `key` is "student", "student-int8", "teacher" or "paper-shape"; `kind` and `precision` are the manifest's.
    `scores` are test scores by metric; empty where `has_accuracy` is False, because the weights are random.
    `checked` says what the check before the measurements saw.
    """

    key: str
    task: str
    name: str
    kind: str
    parameters: int
    precision: str
    has_accuracy: bool
    scores: dict[str, float]
    checked: str
    closed: tuple[Closed, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which the figures were measured. `settings` are the server's own, as its /info tells them."""

    quick: bool
    rounds: int
    server_cores: list[int]
    generator_cores: list[int]
    workers: int
    threads: int
    sentences: str
    sentence_count: int
    mean_tokens: float
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """A whole load test; `skipped` says what was left out, and why."""

    systems: tuple[System, ...]
    conditions: Conditions
    skipped: tuple[str, ...]


def result_of(report: Mapping[str, Any]) -> Result:
    """The result that a table7.json holds. Raises KeyError or TypeError where it lacks something."""
    return Result(
        tuple(
            System(
                **{
                    **system,
                    "closed": tuple(
                        Closed(**{**row, "latency": Latency(**row["latency"])}) for row in system["closed"]
                    ),
                    "steps": tuple(
                        Step(**{**row, "latency": Latency(**row["latency"])}) for row in system["steps"]
                    ),
                }
            )
            for system in report["systems"]
        ),
        Conditions(**report["conditions"]),
        tuple(report["skipped"]),
    )
