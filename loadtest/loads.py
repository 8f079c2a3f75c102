"""A closed loop, whose clients wait for their answers, and an open one, whose requests come when they come.

In the open loop a latency counts from the intended time of sending, so that a server that stalls can not
hide it by making its clients wait before they send.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.util import wrap_errors

from loadtest.clock import Alarm, no_garbage_collection
from loadtest.http_client import Address, Client, Exchange, Request
from loadtest.verdict import BUSY

PATIENCE = 30.0  # seconds for one answer
PAUSE_AFTER_REFUSAL = 0.02  # seconds before a client of a closed loop connects again

T = TypeVar("T")


@dataclass(slots=True)
class Load:
    """All requests of a load, and how the generator itself did."""

    exchanges: list[Exchange] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0  # of the time in which requests were sent
    cpu_share: float = 0.0  # of one core, for the generator
    most_open: int = 0  # connections at once
    waited: int = 0  # requests that had to wait because all connections were busy

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


def open_loop(
    address: Address,
    requests: Iterator[Request],
    times: Sequence[float],
    *,
    seconds: float,
    most_connections: int = 2000,
    patience: float = PATIENCE,
) -> Load:
    """Sends a request at each of `times` (seconds from now), whether or not the ones before were answered."""
    load, under_way = Load(), Group()

    def send(request: Request, intended: float) -> None:
        load.exchanges.append(client.send(request, intended))

    with (
        Client(address, most_connections=most_connections, patience=patience) as client,
        _measured(load, client),
        Alarm() as alarm,
    ):
        for offset in times:
            alarm.sleep_until(load.started + offset)
            under_way.spawn(send, next(requests), load.started + offset)
        alarm.sleep_until(load.started + seconds)
        load.ended = time.monotonic()
        under_way.join(raise_error=True)
    return load


def closed_loop(
    address: Address,
    requests: Iterator[Request],
    *,
    connections: int,
    until: Callable[[], bool] = lambda: False,
    requests_a_connection: int | None = None,
    patience: float = PATIENCE,
    load: Load | None = None,
) -> Load:
    """Keeps `connections` clients busy, each sending as soon as its last answer came.

    Ends when `until` says so or `requests` are used up, and waits for the answers that are still to come. A
    client closes its connection after `requests_a_connection` and makes a new one. `load` is filled in while
    it goes on.
    """
    load = load or Load()
    users = Group()

    def send_on() -> None:
        connection = client.connection()
        for request in requests:
            if connection.requests == requests_a_connection:
                connection.close()
            exchange = connection.send(request)
            load.exchanges.append(exchange)
            if not exchange.sent:
                gevent.sleep(PAUSE_AFTER_REFUSAL)
            if until():
                return

    with (
        Client(address, most_connections=connections, patience=patience) as client,
        _measured(load, client),
    ):
        for _ in range(connections):
            users.spawn(send_on)
        users.join(raise_error=True)
    return load


@contextmanager
def under_load(
    address: Address,
    requests: Iterator[Request],
    *,
    connections: int,
    requests_a_connection: int | None,
    before: float,
) -> Iterator[Load]:
    """A closed loop that goes on during the block, which begins `before` seconds later.

    The load is complete when the block is over.
    """
    load, over = Load(), Event()
    loop = gevent.spawn(
        closed_loop,
        address,
        requests,
        connections=connections,
        until=over.is_set,
        requests_a_connection=requests_a_connection,
        load=load,
    )
    try:
        gevent.sleep(before)
        yield load
    finally:
        over.set()
        loop.get()


def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Calls a function that blocks, while loads go on."""
    # An exception is returned and raised here: raised in a thread, gevent would print it too.
    result: T | Exception = gevent.get_hub().threadpool.apply(wrap_errors(Exception, function), arguments)
    if isinstance(result, Exception):
        raise result
    return result


@contextmanager
def _measured(load: Load, client: Client) -> Iterator[None]:
    """Fills in a load's own figures."""
    with no_garbage_collection():
        load.started, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            now = time.monotonic()
            load.ended = load.ended or now
            load.cpu_share = (time.process_time() - cpu) / max(now - load.started, 1e-9)
            load.most_open, load.waited = client.most_open, client.waited
