"""A closed loop: every Locust user sends its next request as soon as its last one was answered."""

import time
from collections.abc import Iterator, Sequence
from itertools import cycle

import gevent
from locust import User, constant, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.connection import PATIENCE, Connection, tell, watched
from loadtest.jobs import ClosedJob
from loadtest.outcomes import Outcome, closed_figures
from loadtest.results import Closed
from loadtest.usage import Reading
from loadtest.window import WindowClock
from loadtest.wire import Request

PAUSE_AFTER_FAILURE = 0.2  # seconds, so that a server that has died is not hammered
LOOK_SECONDS = 0.005  # at the window, between answers


class Loop:
    """What the users of one loop share: the requests, of which each takes the next, and all outcomes."""

    def __init__(self, job: ClosedJob, requests: Sequence[Request]) -> None:
        self.port, self.path = job.target.port, job.target.path
        self.requests: Iterator[Request] = cycle(requests)
        self.clock = WindowClock(job.window, job.connections, time.monotonic())
        self.connections: list[Connection] = []
        self.outcomes: list[Outcome] = []

    def note(self, client: int, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.clock.note(client, outcome.done, answered=not outcome.failure)


def press(job: ClosedJob, requests: Sequence[Request]) -> Closed:
    """Runs the loop until its window closes and the requests under way then are answered.

    Every client has a request under way all through the window, so the window's edges cost nothing: see
    `sentences_within`.
    """
    loop = Loop(job, requests)
    environment = Environment(user_classes=[clients_of(loop)])

    def note(outcome: Outcome, client: int, **_: object) -> None:
        loop.note(client, outcome)

    environment.events.request.add_listener(note)
    runner = environment.create_local_runner()
    before = after = Reading.now(job.target.processes)
    try:
        with watched(loop.connections, PATIENCE):
            runner.start(job.connections, spawn_rate=job.connections)
            while loop.clock.opened is None:
                gevent.sleep(LOOK_SECONDS)
                loop.clock.look(time.monotonic())
            before = Reading.now(job.target.processes)
            while loop.clock.closed is None:
                gevent.sleep(LOOK_SECONDS)
                loop.clock.look(time.monotonic())
            after = Reading.now(job.target.processes)
            runner.user_greenlets.join()
    finally:
        runner.quit()
    return closed_figures(
        loop.outcomes,
        start=loop.clock.opened,
        end=loop.clock.closed,
        round_number=job.round,
        size=job.size,
        connections=job.connections,
        used=before.until(after),
    )


def clients_of(loop: Loop) -> type[User]:
    """The class of the loop's users."""

    class Client(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            self.number = len(loop.connections)
            self.connection = Connection(loop.port)
            loop.connections.append(self.connection)

        @task
        def ask_on(self) -> None:
            # One task for all requests: Locust's way from one task to the next costs as much as a request.
            while loop.clock.closed is None:
                outcome = self.connection.ask(next(loop.requests))
                tell(self.environment, loop.path, outcome, client=self.number)
                if outcome.failure:
                    gevent.sleep(PAUSE_AFTER_FAILURE)
            raise StopUser

    return Client
