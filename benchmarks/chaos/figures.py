"""From the outcomes of requests to figures."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.client import Outcome
from benchmarks.chaos.loads import Run
from loadtest.outcomes import percentile

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


def goodput(run: Run) -> float:
    """Accepted answers a second, of those that came while requests were sent."""
    return sum(outcome.accepted and outcome.done <= run.ended for outcome in run.outcomes) / _seconds(run)


def sentences_per_second(run: Run) -> float:
    """Sentences in accepted answers a second, of those that came while requests were sent."""
    done = (each for each in run.outcomes if each.accepted and each.done <= run.ended)
    return sum(outcome.request.sentences for outcome in done) / _seconds(run)


def latency_ms(outcomes: Sequence[Outcome], percent: float) -> float:
    """A percentile of accepted answers' latency in milliseconds; 0 where there is none."""
    return 1000 * percentile(sorted(each.latency for each in outcomes if each.accepted), percent)


def lateness_ms(run: Run, percent: float) -> float:
    """How late requests were sent, in milliseconds: the generator's doing, never the server's."""
    late = sorted(each.sent - each.intended for each in run.outcomes if each.sent)
    return 1000 * percentile(late, percent)


def is_proper_refusal(outcome: Outcome) -> bool:
    """A 429 that says after how many whole seconds (from 1) to come again."""
    after = outcome.retry_after or ""
    return not outcome.failure and outcome.status == 429 and after.isdecimal() and int(after) >= 1


def kinds(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many requests ended how: `200`, `429 overloaded`, `reset` and so on, the most frequent first."""
    names = (each.failure or f"{each.status} {each.code}".strip() for each in outcomes)
    return dict(Counter(names).most_common())


def recovered_at(outcomes: Sequence[Outcome], moment: float, rate: float) -> float | None:
    """When, from `moment` on, at least `rate` accepted answers a second came again, for a second."""
    done = sorted(each.done for each in outcomes if each.accepted and each.done >= moment)
    last = max((each.done for each in outcomes), default=moment) - WINDOW
    steps = int(max(last - moment, -STEP) / STEP) + 1
    for start in (moment + step * STEP for step in range(steps)):
        if bisect_left(done, start + WINDOW) - bisect_left(done, start) >= rate * WINDOW:
            return start
    return None


def _seconds(run: Run) -> float:
    return max(run.ended - run.started, 1e-9)
