"""What a load test found: a record for each measurement, and how it follows from single requests."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from loadtest.http_client import Exchange
from loadtest.processes import CpuShares

REFUSED = 429


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of whole requests, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class ClosedLoop:
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


@dataclass(slots=True)
class MeasuredSystem:
    """One bundle of one task, and all that was measured of it so far.

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
    checked: str = ""
    closed: list[ClosedLoop] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.task}, {self.key}"

    def speed(self, size: int) -> float:
        """Sentences a second with `size` a request, the median over rounds; 0 if none was measured."""
        rates = [row.sentences_per_second for row in self.closed if row.sentences_a_request == size]
        return statistics.median(rates or [0.0])


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which the figures were measured. `settings` are the server's own, as its /info gives them."""

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

    systems: list[MeasuredSystem]
    conditions: Conditions
    skipped: list[str]


def result_of(report: Mapping[str, Any]) -> Result:
    """The result that a table7.json holds. Raises ValueError where it lacks something."""
    result: Result = TypeAdapter(Result).validate_python(report)
    return result


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile, which is one of the values; 0 where there are none.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50)
    2.0
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else 0.0


def latency(exchanges: Iterable[Exchange]) -> Latency:
    """Of answered requests, from their intended time to the last byte of the answer, in milliseconds."""
    times = [1000 * each.latency for each in exchanges if not each.error]
    return Latency(percentile(times, 50), percentile(times, 95), percentile(times, 99))


def sentences_within(exchanges: Iterable[Exchange], start: float, end: float) -> float:
    """How many sentences were worked on between two times, in fractions.

    The sentences of an answered request are spread evenly over the time in which it was under way; what falls
    between `start` and `end` counts. While every client of a closed loop has a request under way, the mean
    of this is the throughput times the length of the window, wherever the window begins and ends. Counting
    whole answers is not: a server answers in batches, and a window that begins just before the answers of a
    batch, or ends just after them, gets a batch too many. That is much where a window holds few batches.
    """
    total = 0.0
    for each in exchanges:
        inside = min(each.done, end) - max(each.sent, start)
        if inside > 0 and not each.error:
            total += each.request.sentences * inside / (each.done - each.sent)
    return total


def closed_loop_of(
    exchanges: Sequence[Exchange],
    *,
    start: float,
    end: float,
    round_number: int,
    size: int,
    connections: int,
    cpu: CpuShares,
) -> ClosedLoop:
    """The figures of a closed loop whose clients all had a request under way from `start` to `end`.

    `exchanges` are all of the loop's: those under way at the edges count in part. Failures count whenever
    they happened, latencies are of the requests that were answered inside the window.
    """
    seconds = max(end - start, 1e-9)
    inside = [each for each in exchanges if not each.error and start < each.done <= end]
    reasons = Counter(each.error for each in exchanges if each.error)
    return ClosedLoop(
        round=round_number,
        sentences_a_request=size,
        connections=connections,
        seconds=seconds,
        requests=len(inside),
        sentences=sum(each.request.sentences for each in inside),
        tokens=sum(each.request.tokens for each in inside),
        failures=reasons.total(),
        reasons=dict(reasons.most_common()),
        sentences_per_second=sentences_within(exchanges, start, end) / seconds,
        latency=latency(inside),
        server_cpu=cpu.server,
        generator_cpu=cpu.generator,
        foreign_cpu=cpu.foreign,
    )


def step_of(
    exchanges: Sequence[Exchange],
    *,
    start: float,
    end: float,
    size: int,
    share: float,
    objective_ms: float,
    cpu: CpuShares,
) -> Step:
    """The figures of a step of an open loop: those requests that were meant to arrive in its window.

    What is offered are the arrivals that chance gave, which may be far from the share of the capacity where
    there are few; `completed_per_second` counts the answers that came inside the window, whenever their
    requests had arrived.
    """
    seconds = max(end - start, 1e-9)
    arrived = [each for each in exchanges if start <= each.intended < end]
    answered = sum(not each.error and start <= each.done < end for each in exchanges)
    reasons = Counter(each.error for each in arrived if each.error and each.status != REFUSED)
    in_time = sum(not each.error and 1000 * each.latency <= objective_ms for each in arrived)
    return Step(
        sentences_a_request=size,
        share=share,
        seconds=seconds,
        offered_per_second=len(arrived) / seconds,
        requests=len(arrived),
        completed_per_second=answered / seconds,
        refused=sum(each.status == REFUSED for each in arrived),
        failures=reasons.total(),
        reasons=dict(reasons.most_common()),
        latency=latency(arrived),
        objective_ms=objective_ms,
        goodput_per_second=in_time / seconds,
        server_cpu=cpu.server,
        generator_cpu=cpu.generator,
        foreign_cpu=cpu.foreign,
    )
