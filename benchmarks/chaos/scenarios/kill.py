"""kill -9 for one of two workers under load: what fails, and how soon everything is as before."""

import os
import signal
import time
from typing import NamedTuple

import gevent
import psutil

from benchmarks.chaos.figures import Findings, outcomes, recovered_at
from benchmarks.chaos.request_streams import uniform
from benchmarks.chaos.setup import Setup, progress
from loadtest.http_client import Exchange
from loadtest.loads import Load, under_load
from loadtest.processes import client_ports
from loadtest.server import Server

WORKERS = 2
CONNECTIONS = 16
SENTENCES = 8  # a request, always: the goodput is followed second by second
# Clients come back with new connections now and then, so that the new worker gets its share.
REQUESTS_A_CONNECTION = 20
BEFORE_SECONDS, SETTLE_SECONDS = 4.0, 1.0  # of load before the kill, and of these to begin with
AFTER_SECONDS = 8.0  # of load once the new worker answers
GIVE_UP_SECONDS = 30.0
LOOK_SECONDS = 0.05
HELD_SECONDS = 0.05  # a request sent up to so long after the kill may still have met the worker
RECOVERED = 0.9  # of the goodput before


class Kill(NamedTuple):
    """When it was, the clients' ports that the other worker held, and when the next worker answered."""

    moment: float
    survivors_ports: frozenset[int]
    back: float | None


def measure(setup: Setup) -> Findings:
    """Several kills, one after another, of a server with two workers."""
    rounds = 1 if setup.quick else 3
    recoveries: list[float | None] = []
    beyond: list[Exchange] = []
    held = 0
    remarks: list[str] = []
    exchanges: list[Exchange] = []
    with setup.serving(workers=WORKERS) as server:
        for number in range(1, rounds + 1):
            load, kill = _kill_under_load(setup, server)
            before = _goodput_before(load, kill)
            good_again = recovered_at(load.exchanges, kill.moment, RECOVERED * before)
            recovery = None
            if kill.back is None:
                remarks.append(f"kill {number}: no new worker answered in {GIVE_UP_SECONDS:g} s")
            elif good_again is None:
                remarks.append(f"kill {number}: {before:.0f} answers/s before, never again so many")
            else:
                recovery = max(kill.back, good_again) - kill.moment
                progress(f"kill {number}: as before after {recovery:.2f} s")
            recoveries.append(recovery)
            failed = [each for each in load.exchanges if each.failure or each.status >= 500]
            unexpected = [each for each in failed if not was_held(each, kill)]
            held += len(failed) - len(unexpected)
            beyond += unexpected
            exchanges += load.exchanges
            remarks += load.remarks()
            progress(f"kill {number}: {len(failed)} failed, {len(unexpected)} of them beyond held")
    figures = {
        "kill_rounds": rounds,
        "kill_recovery_s": None if None in recoveries else max(filter(None, recoveries)),
        "kill_recoveries_s": recoveries,
        "kill_failed_held": held,
        "kill_failed_beyond_held": len(beyond),
        "kill_failures_beyond_held": outcomes(beyond),
        "kill_outcomes": outcomes(exchanges),
    }
    return Findings(figures, remarks)


def was_held(exchange: Exchange, kill: Kill) -> bool:
    """Whether the killed worker may have had the request, so that nothing could have saved it."""
    early = exchange.intended <= kill.moment + HELD_SECONDS
    return early and exchange.port not in kill.survivors_ports


def _kill_under_load(setup: Setup, server: Server) -> tuple[Load, Kill]:
    with under_load(
        server.address,
        uniform(setup.sentences, SENTENCES),
        connections=CONNECTIONS,
        requests_a_connection=REQUESTS_A_CONNECTION,
        before=BEFORE_SECONDS,
    ) as load:
        victim, *others = server.workers()
        ports = frozenset(port for worker in others for port in client_ports(worker, server.port))
        moment = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        back = _new_worker_answers(server, known={victim, *others})
        gevent.sleep(AFTER_SECONDS)
    return load, Kill(moment, ports, back)


def _new_worker_answers(server: Server, known: set[int]) -> float | None:
    """When a new worker took a connection: it does so only after its bundles are loaded."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while (now := time.monotonic()) < give_up:
        workers = server.workers()
        new = [worker for worker in workers if worker not in known]
        try:
            if len(workers) >= WORKERS and any(client_ports(worker, server.port) for worker in new):
                return now
        except psutil.NoSuchProcess:
            pass  # one ended between the two looks
        gevent.sleep(LOOK_SECONDS)
    return None


def _goodput_before(load: Load, kill: Kill) -> float:
    start = load.started + SETTLE_SECONDS
    done = [each for each in load.exchanges if not each.error and start <= each.done < kill.moment]
    return len(done) / (kill.moment - start)
