"""The load generator: Locust in a process of its own, because it patches sockets.

It reads pickled jobs from its standard input and writes a pickled result for each. It ends with its input.

In a closed loop every Locust user sends its next request as soon as its last one was answered. In an open
loop requests arrive at random, whatever became of the ones before.
"""

import locust  # isort: skip  # patches sockets: before all that uses them

import pickle
import sys
import time
from collections.abc import Sequence
from functools import cache
from itertools import count, cycle
from pathlib import Path

import gevent
from locust.env import Environment
from locust.exception import StopUser

from loadtest.clock import no_garbage_collection
from loadtest.generator import ClosedJob, OpenJob
from loadtest.http_client import Client, Exchange, Request
from loadtest.loads import arrivals, open_loop
from loadtest.measurements import ClosedLoop, Step, closed_loop_of, step_of
from loadtest.plan import WindowClock
from loadtest.processes import CpuReading, many_connections
from loadtest.sentences import evenly_mixed, read_sentences, requests_of

PATIENCE = 300.0  # seconds for one answer
MOST_CONNECTIONS = 1000  # of an open loop
PAUSE_AFTER_FAILURE = 0.2  # seconds, so that a server that has died is not hammered
LOOK_SECONDS = 0.005  # at the clock, between answers
WARM_UP_SHARE = 0.1  # of each step, which does not count


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
                if isinstance(job, ClosedJob):
                    answer = closed_loop(job, requests)
                else:
                    answer = open_loop_steps(job, requests)
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
    with (
        Client(target.address, most_connections=users, patience=PATIENCE) as client,
        no_garbage_collection(),
    ):

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


def open_loop_steps(job: OpenJob, requests: Sequence[Request]) -> list[Step]:
    """One step after the other, each once the answers of the one before have come."""
    stream, rows = cycle(requests), []
    for percent, seconds in job.steps:
        times = arrivals(job.capacity * percent / 100, seconds, seed=percent)
        readings = gevent.spawn(_readings, seconds, job.target.processes)
        load = open_loop(
            job.target.address,
            stream,
            times,
            seconds=seconds,
            most_connections=MOST_CONNECTIONS,
            patience=PATIENCE,
        )
        before, after = readings.get()
        rows.append(
            step_of(
                load.exchanges,
                start=before.moment,
                end=after.moment,
                size=job.size,
                share=percent / 100,
                objective_ms=job.objective_ms,
                cpu=before.until(after),
            )
        )
    return rows


def _readings(seconds: float, processes: Sequence[int]) -> tuple[CpuReading, CpuReading]:
    """Processor time at both ends of a step's window, which begins after the warm-up."""
    gevent.sleep(WARM_UP_SHARE * seconds)
    before = CpuReading.now(processes)
    gevent.sleep((1 - WARM_UP_SHARE) * seconds)
    return before, CpuReading.now(processes)


if __name__ == "__main__":
    main()
