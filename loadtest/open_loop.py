"""An open loop: requests arrive at random, whether or not the ones before were answered.

Each Locust user is a Poisson source of its own, and all have the same rate, so that their number is the load:
a load shape of Locust sets it step by step. A latency counts from the time at which the request was to
arrive, so that neither a server that stalls nor a late generator can hide it.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import count, cycle

import gevent
from gevent.pool import Group
from locust import LoadTestShape, User, constant, task
from locust.env import Environment

from loadtest.arrivals import gaps, source_percent
from loadtest.connection import PATIENCE, Pool, tell, watched
from loadtest.jobs import OpenJob, StepPlan
from loadtest.outcomes import Outcome, step_figures
from loadtest.results import Step
from loadtest.timer import Timer
from loadtest.usage import Reading
from loadtest.wire import Request

MOST_CONNECTIONS = 1000
SEED = 1  # of the arrivals, which are the same for every system at the same rate
WARM_UP_SHARE = 0.1  # of each step, which does not count


class Steps(LoadTestShape):
    """One step after the other, each for its time, then the end; `began` says when each began."""

    def __init__(self, steps: Sequence[StepPlan]) -> None:
        super().__init__()
        self._steps = steps
        self._one = source_percent([step.percent for step in steps])
        self.began: list[float] = []

    def tick(self) -> tuple[int, float] | None:
        """Locust asks once a second: how many users there are to be, and how many may start a second."""
        now = time.monotonic()
        if not self.began or now - self.began[-1] >= self._steps[len(self.began) - 1].seconds:
            if len(self.began) == len(self._steps):
                return None
            self.began.append(now)
        users = self._steps[len(self.began) - 1].percent // self._one
        return users, max(users, 1)


class Arrivals:
    """What the sources share: requests, connections, and all outcomes."""

    def __init__(self, job: OpenJob, requests: Sequence[Request]) -> None:
        percent = source_percent([step.percent for step in job.steps])
        self.rate = job.capacity * percent / 100  # of each source
        self.path = job.target.path
        self.requests: Iterator[Request] = cycle(requests)
        self.numbers = count()
        self.pool = Pool(job.target.port, MOST_CONNECTIONS)
        self.under_way = Group()
        self.outcomes: list[Outcome] = []


def press(job: OpenJob, requests: Sequence[Request]) -> list[Step]:
    """Runs all steps and waits for the answers that are still to come."""
    arrivals, shape = Arrivals(job, requests), Steps(job.steps)
    environment = Environment(user_classes=[sources_of(arrivals)], shape_class=shape)

    def note(outcome: Outcome, **_: object) -> None:
        arrivals.outcomes.append(outcome)

    environment.events.request.add_listener(note)
    runner = environment.create_local_runner()
    with watched(arrivals.pool.connections, PATIENCE):
        try:
            runner.start_shape()
            used = [
                _readings(shape, number, step, job.target.processes) for number, step in enumerate(job.steps)
            ]
            shape_ended = runner.shape_greenlet
            if shape_ended is not None:
                shape_ended.join()
            arrivals.under_way.join()
        finally:
            runner.quit()
            arrivals.under_way.kill()
    return [
        step_figures(
            arrivals.outcomes,
            start=before.moment,
            end=after.moment,
            size=job.size,
            share=step.percent / 100,
            objective_ms=job.objective_ms,
            used=before.until(after),
        )
        for step, (before, after) in zip(job.steps, used, strict=True)
    ]


def sources_of(arrivals: Arrivals) -> type[User]:
    """The class of the users that are Poisson sources."""

    class Source(User):
        wait_time = constant(0)

        @task
        def arrive(self) -> None:
            timer = Timer()
            ring = gevent.get_hub().loop.io(timer.number, 1)
            when = time.monotonic()
            try:
                for gap in gaps(arrivals.rate, f"{SEED} {next(arrivals.numbers)}"):
                    when += gap
                    if timer.set(when):
                        gevent.get_hub().wait(ring)
                        timer.rang()
                    else:  # late: the others have to come to their turn all the same
                        gevent.sleep(0)
                    arrivals.under_way.spawn(self.ask, next(arrivals.requests), when)
            finally:
                ring.close()
                timer.close()

        def ask(self, request: Request, intended: float) -> None:
            tell(self.environment, arrivals.path, arrivals.pool.ask(request, intended))

    return Source


def _readings(shape: Steps, number: int, step: StepPlan, processes: Sequence[int]) -> tuple[Reading, Reading]:
    """Processor time at both ends of a step's window, when they have come."""
    while len(shape.began) <= number:
        gevent.sleep(0.005)
    began = shape.began[number]
    gevent.sleep(max(began + WARM_UP_SHARE * step.seconds - time.monotonic(), 0))
    before = Reading.now(processes)
    gevent.sleep(max(began + step.seconds - time.monotonic(), 0))
    return before, Reading.now(processes)
