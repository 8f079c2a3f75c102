"""A closed loop, whose clients wait for their answers, and an open one, whose requests come when they come.

In the open loop a latency counts from the intended time of sending, so that a server that stalls can not
hide it by making its clients wait before they ask.
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from benchmarks.chaos.alarm import Alarm
from benchmarks.chaos.client import Address, Connection, Failure, Outcome, Pool
from loadtest.verdict import BUSY
from loadtest.wire import Request

PAUSE_AFTER_REFUSAL = 0.02  # seconds before a client of a closed loop connects again

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """All requests of a load, and how the generator itself did."""

    outcomes: list[Outcome] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0  # of the time in which requests were sent
    cpu_share: float = 0.0  # of one core, for the generator
    most_open: int = 0  # connections at once
    waited: int = 0  # requests that had to wait because the pool was at its bound

    def remarks(self) -> list[str]:
        """Why a figure from this load may not be the server's doing; empty where it is."""
        found = []
        if self.cpu_share > BUSY:
            found.append(f"not valid: the generator used {self.cpu_share:.0%} of its core")
        if self.waited:
            found.append(f"{self.waited} requests waited for one of {self.most_open} connections")
        return found


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The times of a Poisson process of `rate` a second, from 0 to `seconds`.

    >>> arrivals(2.0, 1.0, seed=3) == arrivals(2.0, 1.0, seed=3)
    True
    """
    chance = random.Random(seed)
    times, now = [], chance.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += chance.expovariate(rate)
    return times


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds from now are over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


async def open_loop(
    address: Address,
    requests: Iterator[Request],
    times: Sequence[float],
    *,
    seconds: float,
    most_connections: int = 2000,
    patience: float = 30.0,
) -> Run:
    """Sends a request at each of `times` (seconds from now), whether or not the ones before were answered."""
    run = Run()
    pool = Pool(address, most_connections, patience)

    async def one(request: Request, intended: float) -> None:
        try:
            connection = await pool.take()
        except OSError as error:
            run.outcomes.append(_not_sent(request, intended, error))
            return
        run.outcomes.append(await connection.ask(request, intended))
        pool.give(connection)

    with _measured(run, pool) as start, Alarm() as alarm:
        watch = asyncio.create_task(pool.watch())
        try:
            async with asyncio.TaskGroup() as group:
                for offset in times:
                    await alarm.sleep_until(start + offset)
                    group.create_task(one(next(requests), start + offset))
                await alarm.sleep_until(start + seconds)
                run.ended = time.monotonic()
        finally:
            await _cancelled(watch)
    return run


async def closed_loop(
    address: Address,
    requests: Iterator[Request],
    *,
    connections: int,
    until: Callable[[], bool],
    requests_a_connection: int | None = None,
    patience: float = 30.0,
) -> Run:
    """Keeps `connections` clients busy, each sending as soon as its last answer came.

    Ends when `until` says so or `requests` are used up, and waits for the answers that are still to come. A
    client closes its connection after `requests_a_connection` and makes a new one.
    """
    run = Run()
    pool = Pool(address, connections, patience)

    async def client() -> None:
        connection: Connection | None = None
        for request in requests:
            if connection is None or not connection.usable or connection.asked == requests_a_connection:
                if connection is not None:
                    connection.close()
                    pool.give(connection)
                try:
                    connection = await pool.connect()
                except OSError as error:
                    connection = None
                    run.outcomes.append(_not_sent(request, time.monotonic(), error))
                    await asyncio.sleep(PAUSE_AFTER_REFUSAL)
                    if until():
                        return
                    continue
            run.outcomes.append(await connection.ask(request))
            if until():
                return

    with _measured(run, pool):
        watch = asyncio.create_task(pool.watch())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(connections):
                    group.create_task(client())
        finally:
            await _cancelled(watch)
    return run


def drive(load: Coroutine[Any, Any, T]) -> T:
    """Runs a scenario's loads on an event loop that is fast enough for them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)


@contextmanager
def _measured(run: Run, pool: Pool) -> Iterator[float]:
    """Fills in a run's own figures; gives the time that it starts. Garbage is collected after it."""
    gc.collect()
    gc.disable()
    run.started, cpu = time.monotonic(), time.process_time()
    try:
        yield run.started
    finally:
        gc.enable()
        now = time.monotonic()
        run.ended = run.ended or now
        run.cpu_share = (time.process_time() - cpu) / max(now - run.started, 1e-9)
        run.most_open, run.waited = pool.most_open, pool.waited


def _not_sent(request: Request, intended: float, error: OSError) -> Outcome:
    failure: Failure = "timeout" if isinstance(error, TimeoutError) else "refused"
    return Outcome(request, intended, done=time.monotonic(), failure=failure)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
