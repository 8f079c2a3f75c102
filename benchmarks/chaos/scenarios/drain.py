"""SIGTERM under load: whatever was sent on a connection gets its answer."""

import signal
import subprocess
import time

from benchmarks.chaos.figures import Findings, outcomes
from benchmarks.chaos.request_streams import mixed
from benchmarks.chaos.setup import Setup, progress
from loadtest.http_client import Exchange
from loadtest.loads import in_thread, under_load
from loadtest.server import Server

CONNECTIONS = 16
BEFORE_SECONDS = 1.5  # of load before the signal
DRAIN_SECONDS, GRACEFUL_SECONDS = 1, 10
SPARE_SECONDS = 5.0  # beyond both for the processes to end
WAYS = {"keep_alive": None, "connection_per_request": 1}
REFUSALS = (429, 503)

SETTINGS = {"drain_seconds": str(DRAIN_SECONDS), "graceful_seconds": str(GRACEFUL_SECONDS)}


def measure(setup: Setup) -> Findings:
    """Several stops of a server with two workers; clients keep their connections, or make one a request."""
    rounds = 1 if setup.quick else 5
    every: list[Exchange] = []
    failed: dict[str, list[Exchange]] = {way: [] for way in WAYS}
    refused, bad_exits, longest = 0, 0, 0.0
    for number in range(1, rounds + 1):
        for way, requests_a_connection in WAYS.items():
            with setup.serving(workers=2, settings=SETTINGS) as server:
                exchanges, signalled, took = _stop_under_load(setup, server, requests_a_connection)
                status = server.process.poll()
            failures = [each for each in exchanges if is_failure(each, signalled)]
            failed[way] += failures
            every += exchanges
            refused += sum(each.status == 503 for each in exchanges)
            bad_exits += status != 0
            longest = max(longest, took)
            progress(
                f"stop {number}, {way}: {len(failures)} of {len(exchanges)} failed, "
                f"exit status {status} after {took:.1f} s"
            )
    figures = {
        "drain_rounds": rounds * len(WAYS),
        "drain_requests": len(every),
        "drain_failed": sum(map(len, failed.values())),
        "drain_refused": refused,
        "drain_bad_exits": bad_exits,
        "drain_longest_s": longest,
        "drain_outcomes": outcomes(every),
    }
    figures |= {f"drain_failed_{way}": len(exchanges) for way, exchanges in failed.items()}
    figures |= {f"drain_failures_{way}": outcomes(exchanges) for way, exchanges in failed.items()}
    return Findings(figures)


def is_failure(exchange: Exchange, signalled: float) -> bool:
    """Whether a request got no whole answer, or a wrong one, though the server had taken its connection.

    After the signal a connection may be refused. One that the kernel took and nobody ever read counts as
    taken: a client can not know.
    """
    if exchange.failure == "refused":
        return exchange.done < signalled
    return bool(exchange.error) and exchange.status not in REFUSALS


def _stop_under_load(
    setup: Setup, server: Server, requests_a_connection: int | None
) -> tuple[list[Exchange], float, float]:
    """All exchanges, the time of the signal, and how many seconds the server took to end."""
    with under_load(
        server.address,
        mixed(setup.sentences, seed=1),
        connections=CONNECTIONS,
        requests_a_connection=requests_a_connection,
        before=BEFORE_SECONDS,
    ) as load:
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        grace = DRAIN_SECONDS + GRACEFUL_SECONDS + SPARE_SECONDS
        try:
            in_thread(server.process.wait, grace)
        except subprocess.TimeoutExpired:
            progress(f"the server still runs after {grace:g} s")
        took = time.monotonic() - signalled
    return load.exchanges, signalled, took
