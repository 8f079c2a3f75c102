"""From what became of single requests to the figures of a measurement. Nothing here knows of sockets."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from loadtest.results import Closed, Latency, Step

REFUSED = "status 429"


class Outcome(NamedTuple):
    """What became of one request. Times are seconds of `time.monotonic()`.

    `failure` is empty where the whole answer came and was right; else it says what was wrong.
    """

    intended: float
    sent: float
    done: float
    sentences: int
    tokens: int
    failure: str = ""

    @property
    def refused(self) -> bool:
        return self.failure.startswith(REFUSED)


class Used(NamedTuple):
    """Processor time as shares of one core: the server's, the generator's, and that of all else."""

    server: float
    generator: float
    foreign: float = 0.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; 0 where there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.0
    """
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else 0.0


def latency(outcomes: Iterable[Outcome]) -> Latency:
    """Of answered requests, from their intended time to the last byte of the answer, in milliseconds."""
    times = sorted(1000 * (each.done - each.intended) for each in outcomes if not each.failure)
    return Latency(percentile(times, 50), percentile(times, 95), percentile(times, 99))


def sentences_within(outcomes: Iterable[Outcome], start: float, end: float) -> float:
    """How many sentences were worked on between two times, in fractions.

    The sentences of an answered request are spread evenly over the time in which it was under way; what falls
    between `start` and `end` counts. While every client of a closed loop has a request under way, the mean
    of this is the throughput times the length of the window, wherever the window begins and ends. Counting
    whole answers is not: a server answers in batches, and a window that begins just before the answers of a
    batch, or ends just after them, gets a batch too many. That is much where a window holds few batches.
    """
    total = 0.0
    for each in outcomes:
        inside = min(each.done, end) - max(each.sent, start)
        if inside > 0 and not each.failure:
            total += each.sentences * inside / (each.done - each.sent)
    return total


def closed_figures(
    outcomes: Sequence[Outcome],
    *,
    start: float,
    end: float,
    round_number: int,
    size: int,
    connections: int,
    used: Used,
) -> Closed:
    """The figures of a closed loop whose clients all had a request under way from `start` to `end`.

    `outcomes` are all of the loop's: those under way at the edges count in part. Failures count whenever they
    happened, latencies are of the requests that were answered inside the window.
    """
    seconds = max(end - start, 1e-9)
    inside = [each for each in outcomes if not each.failure and start < each.done <= end]
    reasons = Counter(each.failure for each in outcomes if each.failure)
    return Closed(
        round=round_number,
        sentences_a_request=size,
        connections=connections,
        seconds=seconds,
        requests=len(inside),
        sentences=sum(each.sentences for each in inside),
        tokens=sum(each.tokens for each in inside),
        failures=reasons.total(),
        reasons=dict(reasons.most_common()),
        sentences_per_second=sentences_within(outcomes, start, end) / seconds,
        latency=latency(inside),
        server_cpu=used.server,
        generator_cpu=used.generator,
        foreign_cpu=used.foreign,
    )


def step_figures(
    outcomes: Iterable[Outcome],
    *,
    start: float,
    end: float,
    size: int,
    share: float,
    objective_ms: float,
    used: Used,
) -> Step:
    """The figures of a step of an open loop: those requests that were meant to arrive in its window.

    What is offered are the arrivals that chance gave, which may be far from the share of the capacity where
    there are few; `completed_per_second` counts the answers that came inside the window, whenever their
    requests had arrived.
    """
    seconds = max(end - start, 1e-9)
    seen = list(outcomes)
    arrived = [each for each in seen if start <= each.intended < end]
    answered = [each for each in seen if not each.failure and start <= each.done < end]
    reasons = Counter(each.failure for each in arrived if each.failure and not each.refused)
    in_time = sum(not each.failure and 1000 * (each.done - each.intended) <= objective_ms for each in arrived)
    return Step(
        sentences_a_request=size,
        share=share,
        seconds=seconds,
        offered_per_second=len(arrived) / seconds,
        requests=len(arrived),
        completed_per_second=len(answered) / seconds,
        refused=sum(each.refused for each in arrived),
        failures=reasons.total(),
        reasons=dict(reasons.most_common()),
        latency=latency(arrived),
        objective_ms=objective_ms,
        goodput_per_second=in_time / seconds,
        server_cpu=used.server,
        generator_cpu=used.generator,
        foreign_cpu=used.foreign,
    )
