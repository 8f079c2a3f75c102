"""SIGTERM under load: whatever was sent on a connection gets its answer."""

import asyncio
import signal
import subprocess
import time

from benchmarks.chaos.client import Outcome
from benchmarks.chaos.figures import Findings, kinds
from benchmarks.chaos.loads import closed_loop, drive
from benchmarks.chaos.serving import Served, Setup, serving
from benchmarks.chaos.traffic import mixed

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
    every: list[Outcome] = []
    failed: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    refused, bad_exits, longest = 0, 0, 0.0
    for number in range(1, rounds + 1):
        for way, requests_a_connection in WAYS.items():
            with serving(setup, workers=2, settings=SETTINGS) as served:
                outcomes, signalled, took = drive(_stop_under_load(setup, served, requests_a_connection))
                status = served.process.poll()
            failures = [each for each in outcomes if is_failure(each, signalled)]
            failed[way] += failures
            every += outcomes
            refused += sum(each.status == 503 for each in outcomes)
            bad_exits += status != 0
            longest = max(longest, took)
            setup.say(
                f"stop {number}, {way}: {len(failures)} of {len(outcomes)} failed, "
                f"exit status {status} after {took:.1f} s"
            )
    figures = {
        "drain_rounds": rounds * len(WAYS),
        "drain_requests": len(every),
        "drain_failed": sum(map(len, failed.values())),
        "drain_refused": refused,
        "drain_bad_exits": bad_exits,
        "drain_longest_s": longest,
        "drain_outcomes": kinds(every),
    }
    figures |= {f"drain_failed_{way}": len(outcomes) for way, outcomes in failed.items()}
    figures |= {f"drain_failures_{way}": kinds(outcomes) for way, outcomes in failed.items()}
    return Findings(figures)


def is_failure(outcome: Outcome, signalled: float) -> bool:
    """Whether a request got no whole answer, or a wrong one, though the server had taken its connection.

    After the signal a connection may be refused. One that the kernel took and nobody ever read counts as
    taken: a client can not tell.
    """
    if outcome.failure == "refused":
        return outcome.done < signalled
    return bool(outcome.failure) or (outcome.status != 200 and outcome.status not in REFUSALS)


async def _stop_under_load(
    setup: Setup, served: Served, requests_a_connection: int | None
) -> tuple[list[Outcome], float, float]:
    """All outcomes, the time of the signal, and how many seconds the server took to end."""
    over = asyncio.Event()
    load = asyncio.create_task(
        closed_loop(
            served.address,
            mixed(setup.sentences, seed=1),
            connections=CONNECTIONS,
            requests_a_connection=requests_a_connection,
            until=over.is_set,
        )
    )
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        signalled = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        grace = DRAIN_SECONDS + GRACEFUL_SECONDS + SPARE_SECONDS
        try:
            await asyncio.to_thread(served.process.wait, grace)
        except subprocess.TimeoutExpired:
            setup.say(f"the server still runs after {grace:g} s")
        took = time.monotonic() - signalled
    finally:
        over.set()
    run = await load
    return run.outcomes, signalled, took
