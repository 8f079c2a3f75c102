"""Three times as much as the server can do: what it accepts, how fast, and how it refuses the rest."""

from collections.abc import Iterator

from benchmarks.chaos.client import Address
from benchmarks.chaos.figures import (
    Figures,
    Findings,
    ScenarioError,
    goodput,
    is_proper_refusal,
    kinds,
    latency_ms,
    lateness_ms,
    sentences_per_second,
)
from benchmarks.chaos.loads import Run, after, arrivals, closed_loop, drive, open_loop
from benchmarks.chaos.serving import Served, Setup, serving
from benchmarks.chaos.traffic import mixed, uniform
from loadtest.processes import first_core, last_core, many_connections, pinned
from loadtest.wire import Request

CONNECTIONS = (4, 8, 16, 32, 64)  # of the closed loops that look for the peak
USUAL, FLOOD = 0.8, 3.0  # times the peak


def measure(setup: Setup) -> Findings:
    """The peak, 80 % of it, and three times of it: for requests of several sizes, and of one sentence."""
    figures: Figures = {}
    remarks: list[str] = []
    loads = {
        "overload": mixed(setup.sentences, seed=1),
        "overload_single": uniform(setup.sentences, 1),
    }
    for name, requests in loads.items():
        # A server of its own for each, so that neither finds the other's queue.
        with serving(setup, cores=first_core()) as served, pinned(last_core()), many_connections():
            found = _flood(setup, served, requests)
        figures |= {f"{name}_{key}": value for key, value in found.figures.items()}
        remarks += [f"{name}: {remark}" for remark in found.remarks]
    return Findings(figures, remarks)


def peak(setup: Setup, address: Address, requests: Iterator[Request]) -> tuple[Run, int]:
    """The closed loop with the most accepted answers a second, and how many connections it had."""
    runs = {}
    for connections in CONNECTIONS:
        load = closed_loop(address, requests, connections=connections, until=after(setup.seconds(5, 2)))
        runs[connections] = drive(load)
        setup.say(f"closed loop, {connections} connections: {goodput(runs[connections]):,.0f} answers/s")
    best = max(runs, key=lambda connections: goodput(runs[connections]))
    return runs[best], best


def _flood(setup: Setup, served: Served, requests: Iterator[Request]) -> Findings:
    best, connections = peak(setup, served.address, requests)
    capacity = goodput(best)
    if not capacity:
        raise ScenarioError(f"no request was accepted: {kinds(best.outcomes)}")
    seconds = setup.seconds(60, 10)
    usual = _offer(served.address, requests, USUAL * capacity, seconds)
    usual_p99 = latency_ms(usual.outcomes, 99)
    setup.say(f"{USUAL:.0%} of {capacity:,.0f}/s: p99 {usual_p99:.1f} ms, {kinds(usual.outcomes)}")
    flood = _offer(served.address, requests, FLOOD * capacity, seconds)
    flood_p99 = latency_ms(flood.outcomes, 99)
    setup.say(f"{FLOOD:.0%}: {goodput(flood):,.0f}/s, p99 {flood_p99:.1f} ms, {kinds(flood.outcomes)}")
    refusals = [outcome for outcome in flood.outcomes if not outcome.accepted]
    figures: Figures = {
        "peak_rps": capacity,
        "peak_connections": connections,
        "peak_sentences_per_second": sentences_per_second(best),
        "usual_p50_ms": latency_ms(usual.outcomes, 50),
        "usual_p99_ms": usual_p99,
        "usual_outcomes": kinds(usual.outcomes),
        "offered_rps": len(flood.outcomes) / seconds,
        "goodput_rps": goodput(flood),
        "goodput_share": goodput(flood) / capacity,
        "goodput_sentences_share": sentences_per_second(flood) / sentences_per_second(best),
        "p50_ms": latency_ms(flood.outcomes, 50),
        "p99_ms": flood_p99,
        "p99_ratio": flood_p99 / usual_p99 if usual_p99 else None,
        "refused": len(refusals),
        "bad_refusals": sum(not is_proper_refusal(outcome) for outcome in refusals),
        "outcomes": kinds(flood.outcomes),
        "generator_cpu_share": flood.cpu_share,
        "generator_late_p99_ms": lateness_ms(flood, 99),
    }
    return Findings(figures, [*best.remarks(), *usual.remarks(), *flood.remarks()])


def _offer(address: Address, requests: Iterator[Request], rate: float, seconds: float) -> Run:
    return drive(open_loop(address, requests, arrivals(rate, seconds, seed=1), seconds=seconds))
