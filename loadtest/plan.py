"""What is measured for how long, decided before anything runs; and how long all of it takes at most."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loadtest.jobs import StepPlan
from loadtest.window import Window

SINGLE, BATCH = 1, 32  # sentences a request
STOP_SECONDS = 0.5  # for a server to end

# Rough guesses for the first estimates, by system: sentences a second, and seconds to start.
USUAL_SPEEDS = {"student": 1500.0, "student-int8": 3000.0, "teacher": 30.0, "paper-shape": 5.0}
USUAL_STARTS = {"student": 3.0, "student-int8": 3.0, "teacher": 6.0, "paper-shape": 10.0}


@dataclass(frozen=True, slots=True)
class ClosedPlan:
    """A closed loop: sentences a request, clients, and its window."""

    size: int
    connections: int
    window: Window

    def longest(self, speed: float) -> float:
        """Seconds that it takes at most for a server of `speed` sentences a second.

        All clients' requests wait in one queue, so one of them takes at most the time that the sentences of
        all take; in such a time each client is answered once.
        """
        wait = self.connections * self.size / speed
        warm_up = min(max(self.window.warm_up, wait), self.window.longest_warm_up)
        counted = math.ceil(self.window.requests / self.connections) * wait
        by_time = self.window.duration >= counted
        inside = min(max(self.window.duration, counted), self.window.longest - warm_up)
        # Where the last request that counts ends the window, its client has none under way.
        under_way = wait if by_time else wait * (1 - 1 / self.connections)
        return warm_up + inside + under_way


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """An open loop: sentences a request, steps in percent of the capacity, and how long a step is.

    A step takes `step` seconds, or as long as `requests` take to arrive; but none takes more than
    `longest_step`, else there is no open loop.
    """

    size: int
    percents: tuple[int, ...]
    step: float
    requests: int
    longest_step: float
    objective_ms: float

    def steps(self, capacity: float) -> tuple[StepPlan, ...] | str:
        """The steps for a capacity in requests a second, or why there are none.

        >>> plan = OpenPlan(size=1, percents=(25, 50), step=10, requests=40, longest_step=45, objective_ms=50)
        >>> plan.steps(8.0)
        (StepPlan(percent=25, seconds=20.0), StepPlan(percent=50, seconds=10))
        >>> plan.steps(2.0)
        'the step of 25 % would take 80 s for 40 requests, more than 45 s'
        """
        if not capacity > 0:
            return "its capacity is not known: no request was answered in the closed loop"
        plans = []
        for percent in self.percents:
            needed = self.requests / (capacity * percent / 100)
            if needed > self.longest_step:
                return (
                    f"the step of {percent} % would take {needed:.0f} s for {self.requests} requests, "
                    f"more than {self.longest_step:g} s"
                )
            plans.append(StepPlan(percent, max(self.step, needed)))
        return tuple(plans)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole load test: rounds of closed loops, and in the last one open loops.

    `open_loops` are by system. `skipped` says what the plan itself leaves out.
    """

    rounds: int
    closed_loops: tuple[ClosedPlan, ...]
    open_loops: Mapping[str, tuple[OpenPlan, ...]]
    checked_sentences: int
    skipped: tuple[str, ...] = ()

    def visit_seconds(self, key: str, speed: float, start: float, *, last: bool) -> float:
        """How long one server runs at most, from its start to its end, at `speed` sentences a second.

        Args:
            last: whether it is the last round, which has the open loops.
        """
        closed = sum(loop.longest(speed) for loop in self.closed_loops)
        steps = [loop.steps(speed / loop.size) for loop in self.open_loops.get(key, ())] if last else []
        opened = sum(sum(step.seconds + 1 for step in each) for each in steps if not isinstance(each, str))
        return start + self.checked_sentences / speed + closed + opened + STOP_SECONDS


def full_plan(
    keys: Sequence[str],
    *,
    rounds: int,
    warm_up: float,
    duration: float,
    requests: int,
    longest: float,
    connections: tuple[int, int],
    percents: Sequence[int],
    step: float,
    longest_step: float,
    step_requests: int,
    objectives_ms: tuple[float, float],
) -> Plan:
    """Every system alike. The pairs are for single sentences and for requests of 32."""
    window = Window(warm_up, longest / 2, duration, requests, longest)
    sizes = (SINGLE, BATCH)
    closed = tuple(ClosedPlan(size, number, window) for size, number in zip(sizes, connections, strict=True))
    opened = tuple(
        OpenPlan(size, tuple(sorted(percents)), step, step_requests, longest_step, objective)
        for size, objective in zip(sizes, objectives_ms, strict=True)
    )
    return Plan(rounds, closed, dict.fromkeys(keys, opened), checked_sentences=8)


def quick_plan(keys: Sequence[str], *, connections: int, objective_ms: float) -> Plan:
    """One round of short windows, so that two tasks of all four systems take two minutes.

    Requests of 32 sentences come one at a time, because a slow system would take half a minute for four of
    them. The open loop is one step of the student in fp32.

    Args:
        connections: for single sentences.
        objective_ms: for them.
    """
    window = Window(warm_up=0.2, longest_warm_up=0.5, duration=1.5, requests=2, longest=15.0)
    closed = (
        ClosedPlan(SINGLE, connections, window),
        ClosedPlan(BATCH, 1, replace(window, requests=1)),
    )
    step = OpenPlan(SINGLE, (50,), step=4.0, requests=1, longest_step=4.0, objective_ms=objective_ms)
    return Plan(
        rounds=1,
        closed_loops=closed,
        open_loops={key: (step,) for key in keys if key == "student"},
        checked_sentences=2,
        skipped=(
            "quick run: the only open loop is the student's in fp32, one sentence a request, at 50 % of its "
            "capacity; requests of 32 sentences come one at a time, which a batching server does not fill",
        ),
    )
