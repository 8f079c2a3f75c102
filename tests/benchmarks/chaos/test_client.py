"""The generator of load against small servers over real sockets."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise, repeat

import pytest

from benchmarks.chaos.alarm import Alarm
from benchmarks.chaos.client import Address, Outcome
from benchmarks.chaos.loads import Run, arrivals, closed_loop, drive, open_loop
from loadtest.server import free_port
from loadtest.wire import post

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ASK = post("/ner", b'{"sentences": [["a"]]}')
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"results":[]}'


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[Address]:
    """A server of one handler for each connection; it ends with the block, and so do its connections."""
    connections: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections)


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readexactly(len(ASK.content))


def answering(*answers: bytes, log: list[int] | None = None) -> Handler:
    """Sends one of `answers` for each request of a connection, and closes it after the last."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if log is not None:
            log.append(writer.get_extra_info("peername")[1])
        for answer in answers:
            await read_request(reader)
            writer.write(answer)

    return handle


def closed(handler: Handler, count: int, *, connections: int = 1, patience: float = 20.0) -> list[Outcome]:
    """The outcomes of `count` requests of a closed loop."""

    async def load() -> Run:
        async with listening(handler) as address:
            requests = iter([ASK] * count)
            return await closed_loop(
                address, requests, connections=connections, until=lambda: False, patience=patience
            )

    return drive(load()).outcomes


def opened(handler: Handler, times: list[float], *, most_connections: int = 100) -> Run:
    async def load() -> Run:
        async with listening(handler) as address:
            return await open_loop(
                address, repeat(ASK), times, seconds=0.0, most_connections=most_connections
            )

    return drive(load())


def test_a_connection_is_kept_for_the_next_request() -> None:
    seen: list[int] = []
    outcomes = closed(answering(*[ANSWER] * 5, log=seen), 5)
    assert [outcome.accepted for outcome in outcomes] == [True] * 5
    assert [outcome.port for outcome in outcomes] == seen * 5


def test_a_connection_that_the_server_ends_with_its_answer_is_followed_by_a_new_one() -> None:
    seen: list[int] = []
    last = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    outcomes = closed(answering(last, log=seen), 3)
    assert [outcome.accepted for outcome in outcomes] == [True] * 3
    assert [outcome.port for outcome in outcomes] == seen
    assert len(seen) == 3


def test_a_chunked_answer_in_pieces_is_one_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in (b"HTTP/1.1 200 OK\r\nTransfer-Enc", b"oding: chunked\r\n\r\n2\r\n{", b"}\r\n0\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    [outcome] = closed(handle, 1)
    assert outcome.accepted


def test_a_refusal_carries_its_code_and_when_to_come_again() -> None:
    body = b'{"code": "overloaded", "status": 429}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body)
    outcomes = closed(answering(head + body, ANSWER), 2)
    assert (outcomes[0].status, outcomes[0].code, outcomes[0].retry_after) == (429, "overloaded", "3")
    assert not outcomes[0].accepted
    assert (outcomes[1].status, outcomes[1].code, outcomes[1].retry_after) == (200, "", None)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broken"),
        (ANSWER[:-1], "broken"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "broken"),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_is_a_failure_and_the_next_request_goes_on(
    answer: bytes, failure: str
) -> None:
    first, second = closed(answering(answer), 2)
    assert first.failure == second.failure == failure
    assert not first.accepted


def test_a_reset_amid_an_answer_is_told_from_one_before_it() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        await read_request(reader)
        writer.transport.abort()

    outcomes = closed(handle, 2)
    assert [outcome.failure for outcome in outcomes] == ["", "reset"]


def test_a_server_that_never_answers_is_given_up_on() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client leaves

    outcomes = closed(handle, 2, patience=0.2)
    assert [outcome.failure for outcome in outcomes] == ["timeout"] * 2


def test_a_port_where_nobody_listens_is_refused_and_the_loop_ends_when_told() -> None:
    requests = iter([ASK] * 3)
    load = closed_loop(("127.0.0.1", free_port()), requests, connections=1, until=lambda: True)
    [outcome] = drive(load).outcomes
    assert outcome.failure == "refused"
    assert not outcome.sent


def test_a_client_makes_a_new_connection_after_as_many_requests_as_it_was_told() -> None:
    seen: list[int] = []

    async def load() -> Run:
        async with listening(answering(*[ANSWER] * 10, log=seen)) as address:
            requests = iter([ASK] * 6)
            return await closed_loop(
                address, requests, connections=1, until=lambda: False, requests_a_connection=2
            )

    outcomes = drive(load()).outcomes
    assert all(outcome.accepted for outcome in outcomes)
    assert [outcome.port for outcome in outcomes] == [port for port in seen for _ in range(2)]
    assert len(seen) == 3


def test_an_open_loop_sends_on_while_nothing_is_answered() -> None:
    """A server that answers nobody before all have asked: a loop that waits would wait for ever."""
    everyone = asyncio.Barrier(20)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await everyone.wait()
        writer.write(ANSWER)
        await reader.read()

    run = opened(handle, [0.0] * 20)
    assert [outcome.accepted for outcome in run.outcomes] == [True] * 20
    assert run.most_open == 20
    assert run.waited == 0


def test_a_latency_counts_from_the_intended_time_when_the_pool_is_the_bottleneck_and_it_says_so() -> None:
    run = opened(answering(*[ANSWER] * 10), [0.0] * 5, most_connections=1)
    assert [outcome.accepted for outcome in run.outcomes] == [True] * 5
    assert {outcome.intended for outcome in run.outcomes} == {run.started}
    for before, outcome in pairwise(run.outcomes):
        assert outcome.sent >= before.done  # it had to wait for the connection
        assert outcome.latency == outcome.done - run.started
    assert run.waited == 4
    assert "4 requests waited for one of 1 connections" in run.remarks()


def test_requests_that_wait_for_room_in_the_pool_go_on_when_connections_break() -> None:
    run = opened(answering(b""), [0.0] * 4, most_connections=1)
    assert [outcome.failure for outcome in run.outcomes] == ["reset"] * 4


def test_requests_that_wait_for_room_in_the_pool_end_when_nobody_listens() -> None:
    load = open_loop(("127.0.0.1", free_port()), repeat(ASK), [0.0] * 4, seconds=0.0, most_connections=1)
    assert [outcome.failure for outcome in drive(load).outcomes] == ["refused"] * 4


def test_a_busy_generator_makes_its_figures_invalid() -> None:
    assert Run(cpu_share=0.84).remarks() == []
    assert Run(cpu_share=0.9).remarks() == ["not valid: the generator used 90% of its core"]


def test_arrivals_are_those_of_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    times = arrivals(1000.0, 20.0, seed=1)
    assert times == arrivals(1000.0, 20.0, seed=1)
    assert times != arrivals(1000.0, 20.0, seed=2)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 20.0
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(0.001, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.001, rel=0.03)  # an exponential's is its mean
    a_second = [sum(second <= time < second + 1 for time in times) for second in range(20)]
    assert statistics.mean(a_second) == pytest.approx(1000, rel=0.03)


def test_an_alarm_never_rings_early_and_a_past_one_rings_at_once() -> None:
    async def sleep() -> list[tuple[float, float]]:
        with Alarm() as alarm:
            rang = []
            for delay in (-1.0, 0.0, 0.0003, 0.002):
                when = time.monotonic() + delay
                await alarm.sleep_until(when)
                rang.append((when, time.monotonic()))
            return rang

    for when, woke in drive(sleep()):
        assert woke >= when - 50e-6  # it does not set a timer for less than it takes to set one
