"""The load generator: Locust in a process of its own, because it patches sockets.

It reads pickled jobs from its standard input and writes a pickled result for each. It ends with its input.

In a closed loop every Locust user sends its next request as soon as its last one was answered. In an open
loop every user is a Poisson source, and all have the same rate, so that their number is the load: a load
shape of Locust sets it step by step. A latency counts from the time at which the request was to arrive, so
that neither a server that stalls nor a late generator can hide it.
"""

import locust  # isort: skip  # patches sockets: before all that uses them

import math
import pickle
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count, cycle
from pathlib import Path

import gevent
from gevent.pool import Group
from locust.env import Environment
from locust.exception import StopUser

from loadtest.clock import Alarm, no_garbage_collection
from loadtest.generator import ClosedJob, OpenJob
from loadtest.http_client import Client, Exchange, Request
from loadtest.measurements import ClosedLoop, Step, closed_loop_of, step_of
from loadtest.plan import StepPlan, WindowClock
from loadtest.processes import CpuReading, many_connections
from loadtest.sentences import evenly_mixed, read_sentences, requests_of

PATIENCE = 300.0  # seconds for one answer
MOST_CONNECTIONS = 1000  # of an open loop
PAUSE_AFTER_FAILURE = 0.2  # seconds, so that a server that has died is not hammered
LOOK_SECONDS = 0.005  # at the clock, between answers
SOURCE_PERCENT = 5  # of the capacity, from each source; less where the steps ask for it
WARM_UP_SHARE = 0.1  # of each step, which does not count
SEED = 1  # of the arrivals, which are the same for every system at the same rate


def main() -> None:
    with many_connections():
        while True:
            try:
                job: ClosedJob | OpenJob = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            answer: object
            try:
                requests = all_requests(job.target.texts, job.size, job.target.path)
                with no_garbage_collection():
                    answer = (
                        closed_loop(job, requests) if isinstance(job, ClosedJob) else open_loop(job, requests)
                    )
            except (OSError, ValueError) as error:
                answer = RuntimeError(f"{type(error).__name__}: {error}")
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()


@cache
def all_requests(texts: Path, size: int, path: str) -> Sequence[Request]:
    """The requests of every system, the same in the same order."""
    return requests_of(evenly_mixed(read_sentences(texts)), size, path=path)


def closed_loop(job: ClosedJob, requests: Sequence[Request]) -> ClosedLoop:
    """Runs until the window closes and the requests under way then are answered.

    Every client has a request under way all through the window, so the window's edges cost nothing: see
    `sentences_within`.
    """
    target, users = job.target, job.loop.connections
    numbers, stream = count(), cycle(requests)
    exchanges: list[Exchange] = []
    clock = WindowClock(job.loop.window, users, time.monotonic())
    with Client(target.address, most_connections=users, patience=PATIENCE) as client:

        class User(locust.User):
            wait_time = locust.constant(0)

            @locust.task
            def send_on(self) -> None:
                # One task for all requests: Locust's way to the next task costs as much as a request.
                number, connection = next(numbers), client.connection()
                while clock.closed is None:
                    exchange = connection.send(next(stream))
                    exchanges.append(exchange)
                    clock.note(number, exchange.done, answered=not exchange.error)
                    if exchange.error:
                        gevent.sleep(PAUSE_AFTER_FAILURE)
                raise StopUser

        runner = Environment(user_classes=[User]).create_local_runner()
        try:
            runner.start(users, spawn_rate=users)
            while clock.opened is None:
                gevent.sleep(LOOK_SECONDS)
                clock.look(time.monotonic())
            before = CpuReading.now(target.processes)
            while clock.closed is None:
                gevent.sleep(LOOK_SECONDS)
                clock.look(time.monotonic())
            after = CpuReading.now(target.processes)
            runner.user_greenlets.join()
        finally:
            runner.quit()
    return closed_loop_of(
        exchanges,
        start=clock.opened,
        end=clock.closed,
        round_number=job.round,
        size=job.size,
        connections=users,
        cpu=before.until(after),
    )


class Steps(locust.LoadTestShape):
    """One step after the other, each for its time, then the end; `began` says when each began."""

    def __init__(self, steps: Sequence[StepPlan], percent: int) -> None:
        super().__init__()
        self._steps, self._percent = steps, percent
        self.began: list[float] = []

    def tick(self) -> tuple[int, float] | None:
        """Locust asks once a second: how many users there are to be, and how many may start a second."""
        now = time.monotonic()
        if not self.began or now - self.began[-1] >= self._steps[len(self.began) - 1].seconds:
            if len(self.began) == len(self._steps):
                return None
            self.began.append(now)
        users = self._steps[len(self.began) - 1].percent // self._percent
        return users, max(users, 1)


def open_loop(job: OpenJob, requests: Sequence[Request]) -> list[Step]:
    """Runs all steps and waits for the answers that are still to come."""
    percent = source_percent([step.percent for step in job.steps])
    rate, shape = job.capacity * percent / 100, Steps(job.steps, percent)
    numbers, stream, under_way = count(), cycle(requests), Group()
    exchanges: list[Exchange] = []
    with Client(job.target.address, most_connections=MOST_CONNECTIONS, patience=PATIENCE) as client:

        def send(request: Request, intended: float) -> None:
            exchanges.append(client.send(request, intended))

        class Source(locust.User):
            wait_time = locust.constant(0)

            @locust.task
            def arrive(self) -> None:
                with Alarm() as alarm:
                    for when in arrivals(rate, f"{SEED} {next(numbers)}"):
                        alarm.sleep_until(when)
                        under_way.spawn(send, next(stream), when)

        runner = Environment(user_classes=[Source], shape_class=shape).create_local_runner()
        try:
            runner.start_shape()
            readings = [_step_readings(shape, number, job) for number in range(len(job.steps))]
            if runner.shape_greenlet is not None:
                runner.shape_greenlet.join()
            under_way.join()
        finally:
            runner.quit()
            under_way.kill()
    return [
        step_of(
            exchanges,
            start=before.moment,
            end=after.moment,
            size=job.size,
            share=step.percent / 100,
            objective_ms=job.objective_ms,
            cpu=before.until(after),
        )
        for step, (before, after) in zip(job.steps, readings, strict=True)
    ]


def source_percent(percents: Sequence[int]) -> int:
    """The share of each source, so that every step is a whole number of sources.

    >>> source_percent([25, 50, 110]), source_percent([33, 50])
    (5, 1)
    """
    return math.gcd(SOURCE_PERCENT, *percents)


def arrivals(rate: float, seed: str) -> Iterator[float]:
    """The times of a Poisson process of `rate` a second that begins now, for ever."""
    chance, when = random.Random(seed), time.monotonic()
    while True:
        when += chance.expovariate(rate)
        yield when


def _step_readings(shape: Steps, number: int, job: OpenJob) -> tuple[CpuReading, CpuReading]:
    """Processor time at both ends of a step's window, when they have come."""
    while len(shape.began) <= number:
        gevent.sleep(LOOK_SECONDS)
    began, seconds = shape.began[number], job.steps[number].seconds
    gevent.sleep(max(began + WARM_UP_SHARE * seconds - time.monotonic(), 0))
    before = CpuReading.now(job.target.processes)
    gevent.sleep(max(began + seconds - time.monotonic(), 0))
    return before, CpuReading.now(job.target.processes)


if __name__ == "__main__":
    main()
