"""From the exchanges of a load to figures."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.http_client import Exchange
from loadtest.loads import Load
from loadtest.measurements import REFUSED, percentile

Figures = dict[str, Any]  # by key, as chaos.json has them

WINDOW = 1.0  # seconds over which a rate is taken when it is followed over time
STEP = 0.1


class ScenarioError(RuntimeError):
    """A scenario can not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a scenario found, and what a reader should know of it."""

    figures: Figures
    remarks: list[str] = field(default_factory=list)


def goodput(load: Load) -> float:
    """Answers a second without error, of those that came while requests were sent."""
    return sum(not each.error and each.done <= load.ended for each in load.exchanges) / _seconds(load)


def sentences_per_second(load: Load) -> float:
    """Sentences in answers without error a second, of those that came while requests were sent."""
    answered = (each for each in load.exchanges if not each.error and each.done <= load.ended)
    return sum(each.request.sentences for each in answered) / _seconds(load)


def latency_ms(exchanges: Sequence[Exchange], percent: float) -> float:
    """A percentile of the latency of answers without error in milliseconds; 0 where there is none."""
    return 1000 * percentile((each.latency for each in exchanges if not each.error), percent)


def lateness_ms(load: Load, percent: float) -> float:
    """How late requests were sent, in milliseconds: the generator's doing, never the server's."""
    return 1000 * percentile((each.sent - each.intended for each in load.exchanges if each.sent), percent)


def is_proper_refusal(exchange: Exchange) -> bool:
    """A 429 that says after how many whole seconds (from 1) to come again."""
    after = exchange.retry_after or ""
    return not exchange.failure and exchange.status == REFUSED and after.isdecimal() and int(after) >= 1


def outcomes(exchanges: Sequence[Exchange]) -> dict[str, int]:
    """How many requests ended how: `200`, `429 overloaded`, `reset` and so on, the most frequent first."""
    names = (each.failure or f"{each.status} {each.code}".strip() for each in exchanges)
    return dict(Counter(names).most_common())


def recovered_at(exchanges: Sequence[Exchange], moment: float, rate: float) -> float | None:
    """When, from `moment` on, at least `rate` good answers a second came again, for a second."""
    done = sorted(each.done for each in exchanges if not each.error and each.done >= moment)
    last = max((each.done for each in exchanges), default=moment) - WINDOW
    steps = int(max(last - moment, -STEP) / STEP) + 1
    for start in (moment + step * STEP for step in range(steps)):
        if bisect_left(done, start + WINDOW) - bisect_left(done, start) >= rate * WINDOW:
            return start
    return None


def _seconds(load: Load) -> float:
    return max(load.ended - load.started, 1e-9)
