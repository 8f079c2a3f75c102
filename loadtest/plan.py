"""What is measured for how long, decided before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

SINGLE, BATCH = 1, 32  # sentences a request


@dataclass(frozen=True, slots=True)
class Window:
    """How long a closed loop warms up and is measured; in seconds, but for `requests`.

    It opens when `warm_up` is over and every client was answered once, at `longest_warm_up` in any case. It
    closes when `duration` is over and `requests` were answered inside it, at `longest` after the beginning of
    the whole loop in any case.
    """

    warm_up: float
    longest_warm_up: float
    duration: float
    requests: int
    longest: float


class WindowClock:
    """Opens and closes a window while a loop of `clients` goes on that began at `began`.

    `opened` and `closed` are the times of both, None before.
    """

    def __init__(self, window: Window, clients: int, began: float) -> None:
        self._window, self._clients, self._began = window, clients, began
        self._served: set[int] = set()
        self.answered = 0  # inside the window
        self.opened: float | None = None
        self.closed: float | None = None

    def note(self, client: int, done: float, *, answered: bool) -> None:
        """A client's request ended, well or not."""
        self._served.add(client)
        if answered and self.opened is not None and self.closed is None:
            self.answered += 1
        self.look(done)

    def look(self, now: float) -> None:
        """Opens or closes the window if its time has come; it is called at every answer and in between."""
        age = now - self._began
        if self.opened is None:
            warm = age >= self._window.warm_up and len(self._served) == self._clients
            if warm or age >= self._window.longest_warm_up:
                self.opened = now
        elif self.closed is None:
            enough = now - self.opened >= self._window.duration and self.answered >= self._window.requests
            if enough or age >= self._window.longest:
                self.closed = now


class ClosedPlan(NamedTuple):
    """A closed loop: sentences a request, clients, and its window."""

    size: int
    connections: int
    window: Window


class StepPlan(NamedTuple):
    """One step of an open loop: `percent` of the capacity for so many seconds."""

    percent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """An open loop: sentences a request, steps in percent of the capacity, and how long a step is.

    A step takes `step` seconds, or as long as `requests` take to arrive; but none takes more than
    `longest_step`, else there is no open loop. `objective_ms` is the latency within which an answer is good.
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


_WINDOW = Window(warm_up=1.0, longest_warm_up=60.0, duration=10.0, requests=16, longest=120.0)
_PERCENTS = (25, 50, 75, 90, 110)
_OPEN = (
    OpenPlan(SINGLE, _PERCENTS, step=10.0, requests=40, longest_step=45.0, objective_ms=50.0),
    OpenPlan(BATCH, _PERCENTS, step=10.0, requests=40, longest_step=45.0, objective_ms=250.0),
)
FULL = Plan(
    rounds=2,
    # The server's queue has room for 16,384 tokens.
    closed_loops=(ClosedPlan(SINGLE, 16, _WINDOW), ClosedPlan(BATCH, 8, _WINDOW)),
    open_loops=dict.fromkeys(("student", "student-int8", "teacher", "paper-shape"), _OPEN),
    checked_sentences=8,
)
# One round of short windows, so that two tasks of all four systems take two minutes. Requests of 32 sentences
# come one at a time, because a slow system would take half a minute for four of them.
QUICK = Plan(
    rounds=1,
    closed_loops=(
        ClosedPlan(SINGLE, 16, Window(0.2, 0.5, duration=1.5, requests=2, longest=15.0)),
        ClosedPlan(BATCH, 1, Window(0.2, 0.5, duration=1.5, requests=1, longest=15.0)),
    ),
    open_loops={"student": (OpenPlan(SINGLE, (50,), 4.0, requests=1, longest_step=4.0, objective_ms=50.0),)},
    checked_sentences=2,
    skipped=(
        "quick run: the only open loop is the student's in fp32, one sentence a request, at 50 % of its "
        "capacity; requests of 32 sentences come one at a time, which a batching server does not fill",
    ),
)
