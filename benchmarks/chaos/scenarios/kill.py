"""kill -9 for one of two workers under load: what fails, and how soon everything is as before."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass

from benchmarks.chaos.client import Outcome
from benchmarks.chaos.figures import Findings, kinds, recovered_at
from benchmarks.chaos.loads import Run, closed_loop, drive
from benchmarks.chaos.serving import Served, Setup, serving
from benchmarks.chaos.traffic import uniform
from loadtest.processes import client_ports

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


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: when it was, who was held by whom, and when the next worker answered."""

    moment: float
    survivors_ports: frozenset[int]
    back: float | None


def measure(setup: Setup) -> Findings:
    """Several kills, one after another, of a server with two workers."""
    rounds = 1 if setup.quick else 3
    recoveries: list[float | None] = []
    beyond: list[Outcome] = []
    held = 0
    remarks: list[str] = []
    outcomes: list[Outcome] = []
    with serving(setup, workers=WORKERS) as served:
        for number in range(1, rounds + 1):
            run, kill = drive(_kill_under_load(setup, served))
            before = _goodput_before(run, kill)
            good_again = recovered_at(run.outcomes, kill.moment, RECOVERED * before)
            recovery = None
            if kill.back is None:
                remarks.append(f"kill {number}: no new worker answered in {GIVE_UP_SECONDS:g} s")
            elif good_again is None:
                remarks.append(f"kill {number}: {before:.0f} answers/s before, never again so many")
            else:
                recovery = max(kill.back, good_again) - kill.moment
                setup.say(f"kill {number}: as before after {recovery:.2f} s")
            recoveries.append(recovery)
            failed = [each for each in run.outcomes if each.failure or each.status >= 500]
            unexpected = [each for each in failed if not was_held(each, kill)]
            held += len(failed) - len(unexpected)
            beyond += unexpected
            outcomes += run.outcomes
            remarks += run.remarks()
            setup.say(f"kill {number}: {len(failed)} failed, {len(unexpected)} of them beyond held")
    figures = {
        "kill_rounds": rounds,
        "kill_recovery_s": None if None in recoveries else max(filter(None, recoveries)),
        "kill_recoveries_s": recoveries,
        "kill_failed_held": held,
        "kill_failed_beyond_held": len(beyond),
        "kill_failures_beyond_held": kinds(beyond),
        "kill_outcomes": kinds(outcomes),
    }
    return Findings(figures, remarks)


def was_held(outcome: Outcome, kill: Kill) -> bool:
    """Whether the killed worker may have had the request, so that nothing could have saved it."""
    early = outcome.intended <= kill.moment + HELD_SECONDS
    return early and outcome.port not in kill.survivors_ports


async def _kill_under_load(setup: Setup, served: Served) -> tuple[Run, Kill]:
    over = asyncio.Event()
    load = asyncio.create_task(
        closed_loop(
            served.address,
            uniform(setup.sentences, SENTENCES),
            connections=CONNECTIONS,
            requests_a_connection=REQUESTS_A_CONNECTION,
            until=over.is_set,
        )
    )
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        victim, *others = served.workers()
        ports = frozenset(port for worker in others for port in client_ports(worker, served.port))
        moment = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        back = await _new_worker_answers(served, known={victim, *others})
        await asyncio.sleep(AFTER_SECONDS)
    finally:
        over.set()
    return await load, Kill(moment, ports, back)


async def _new_worker_answers(served: Served, known: set[int]) -> float | None:
    """When a new worker took a connection: it does so only after its bundles are loaded."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while (now := time.monotonic()) < give_up:
        workers = served.workers()
        new = [worker for worker in workers if worker not in known]
        try:
            if len(workers) >= WORKERS and any(client_ports(worker, served.port) for worker in new):
                return now
        except FileNotFoundError:
            pass  # one ended between the two looks
        await asyncio.sleep(LOOK_SECONDS)
    return None


def _goodput_before(run: Run, kill: Kill) -> float:
    start = run.started + SETTLE_SECONDS
    done = [each for each in run.outcomes if each.accepted and start <= each.done < kill.moment]
    return len(done) / (kill.moment - start)
