"""Clients that send a byte a second, and connections that say nothing: what the others notice of them."""

import asyncio
from collections.abc import Iterator
from typing import cast

from benchmarks.chaos.client import Address
from benchmarks.chaos.figures import Findings, ScenarioError, goodput, kinds, latency_ms, lateness_ms
from benchmarks.chaos.loads import Run, after, arrivals, closed_loop, drive, open_loop
from benchmarks.chaos.serving import Setup, serving
from benchmarks.chaos.traffic import uniform
from loadtest.processes import first_core, last_core, many_connections, open_files_limit, pinned
from loadtest.wire import Request

SLOW, SILENT, KEPT = 200, 500, 500  # the others are idle, from the beginning or after one request
COMING_SECONDS = 0.005  # between two that come: who comes at once times out at once, in the wild nobody does
BYTE_SECONDS = 1.0
CHECK_SECONDS = 1.0  # how often connections that the server closed are made again
LOAD = 0.3  # of the capacity, from the other clients
CONNECTIONS = 16
GREETING = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW_HEAD = (
    b"POST /ner HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)


class Sluggard(asyncio.Protocol):
    """A connection that sends a beginning, perhaps nothing; a slow one then sends a byte now and then."""

    def __init__(self, beginning: bytes) -> None:
        self.beginning = beginning
        self._transport: asyncio.Transport | None = None
        self._next: asyncio.TimerHandle | None = None
        self.answer = b""
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self.beginning)
        if self.beginning == SLOW_HEAD:
            self._dribble()

    def data_received(self, data: bytes) -> None:
        self.answer += data

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._next is not None:
            self._next.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _dribble(self) -> None:
        assert self._transport is not None
        self._next = asyncio.get_running_loop().call_later(BYTE_SECONDS, self._dribble)
        if not self._transport.is_closing():
            self._transport.write(b" ")


class Crowd:
    """All sluggards; each that the server sends away comes again."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._members: list[Sluggard] = []
        self.sent_away = 0
        self.timed_out = 0  # of these, with a 408
        self.not_let_in = 0

    def open(self) -> int:
        return sum(member.open for member in self._members)

    async def gather(self) -> None:
        for beginning in [SLOW_HEAD] * SLOW + [b""] * SILENT + [GREETING] * KEPT:
            await self._admit(beginning)

    async def stay(self) -> None:
        """Makes closed connections again, until it is cancelled; then closes all."""
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                gone = [member for member in self._members if not member.open]
                self._members = [member for member in self._members if member.open]
                for member in gone:
                    self.sent_away += 1
                    self.timed_out += member.answer.startswith(b"HTTP/1.1 408")
                    await self._admit(member.beginning)
        finally:
            for member in self._members:
                member.close()

    async def _admit(self, beginning: bytes) -> None:
        await asyncio.sleep(COMING_SECONDS)
        try:
            _, member = await asyncio.get_running_loop().create_connection(
                lambda: Sluggard(beginning), *self._address
            )
        except OSError:
            self.not_let_in += 1
        else:
            self._members.append(member)


def measure(setup: Setup) -> Findings:
    """The p99 of one-sentence requests at 30 % load, first alone and then among sluggards."""
    seconds = setup.seconds(30, 10)
    with serving(setup, cores=first_core()) as served, pinned(last_core()), many_connections():
        requests = uniform(setup.sentences, 1)
        best = drive(
            closed_loop(served.address, requests, connections=CONNECTIONS, until=after(setup.seconds(5, 2)))
        )
        if not goodput(best):
            raise ScenarioError(f"no request was accepted: {kinds(best.outcomes)}")
        times = arrivals(LOAD * goodput(best), seconds, seed=1)
        alone = drive(open_loop(served.address, requests, times, seconds=seconds))
        setup.say(f"alone: p99 {latency_ms(alone.outcomes, 99):.1f} ms, {kinds(alone.outcomes)}")
        crowd = Crowd(served.address)
        among, still_open = drive(_among(crowd, served.address, requests, times, seconds))
        p99, late = latency_ms(among.outcomes, 99), lateness_ms(among, 99)
        setup.say(f"among {still_open} sluggards: p99 {p99:.1f} ms, requests sent {late:.1f} ms late")
        limit = min(open_files_limit(worker) for worker in served.workers())
    figures = {
        "slow_p99_ratio": latency_ms(among.outcomes, 99) / latency_ms(alone.outcomes, 99),
        "slow_p99_ms": latency_ms(among.outcomes, 99),
        "slow_p99_alone_ms": latency_ms(alone.outcomes, 99),
        "slow_rps": len(times) / seconds,
        "slow_generator_late_p99_ms": lateness_ms(among, 99),
        "slow_generator_late_p99_alone_ms": lateness_ms(alone, 99),
        "slow_generator_cpu_share": among.cpu_share,
        "slow_failed": sum(not outcome.accepted for outcome in among.outcomes),
        "slow_outcomes": kinds(among.outcomes),
        "slow_connections": SLOW + SILENT + KEPT,
        "slow_connections_at_end": still_open,
        "slow_connections_not_let_in": crowd.not_let_in,
        "slow_connections_sent_away": crowd.sent_away,
        "slow_connections_sent_away_with_408": crowd.timed_out,
        "slow_open_files_limit": limit,
    }
    return Findings(figures, [*alone.remarks(), *among.remarks()])


async def _among(
    crowd: Crowd, address: Address, requests: Iterator[Request], times: list[float], seconds: float
) -> tuple[Run, int]:
    """The load with the crowd around it, and how many of the crowd were there in the end."""
    await crowd.gather()
    staying = asyncio.create_task(crowd.stay())
    try:
        run = await open_loop(address, requests, times, seconds=seconds)
        return run, crowd.open()
    finally:
        staying.cancel()
