"""Three times as much as the server can do: what it accepts, how fast, and how it refuses the rest."""

from collections.abc import Iterator

from benchmarks.chaos.figures import (
    Figures,
    Findings,
    ScenarioError,
    goodput,
    is_proper_refusal,
    latency_ms,
    lateness_ms,
    outcomes,
    sentences_per_second,
)
from benchmarks.chaos.request_streams import mixed, uniform
from benchmarks.chaos.setup import Setup, progress
from loadtest.http_client import Address, Request
from loadtest.loads import Load, after, arrivals, closed_loop, open_loop
from loadtest.processes import many_connections, pinned, split_cores

CONNECTIONS = (4, 8, 16, 32, 64)  # of the closed loops that look for the peak
USUAL, FLOOD = 0.8, 3.0  # times the peak


def measure(setup: Setup) -> Findings:
    """The peak, 80 % of it, and three times of it: for requests of several sizes, and of one sentence."""
    figures: Figures = {}
    remarks: list[str] = []
    server_core, own_core = split_cores()
    streams = {"overload": mixed(setup.sentences, seed=1), "overload_single": uniform(setup.sentences, 1)}
    for name, requests in streams.items():
        # A server of its own for each, so that neither finds the other's queue.
        with setup.serving(core=server_core) as server, pinned(own_core), many_connections():
            found = _flood(setup, server.address, requests)
        figures |= {f"{name}_{key}": value for key, value in found.figures.items()}
        remarks += [f"{name}: {remark}" for remark in found.remarks]
    return Findings(figures, remarks)


def _flood(setup: Setup, address: Address, requests: Iterator[Request]) -> Findings:
    best, connections = _peak(setup, address, requests)
    capacity = goodput(best)
    if not capacity:
        raise ScenarioError(f"no request was accepted: {outcomes(best.exchanges)}")
    seconds = setup.seconds(60, 10)
    usual = _offer(address, requests, USUAL * capacity, seconds)
    usual_p99 = latency_ms(usual.exchanges, 99)
    progress(f"{USUAL:.0%} of {capacity:,.0f}/s: p99 {usual_p99:.1f} ms, {outcomes(usual.exchanges)}")
    flood = _offer(address, requests, FLOOD * capacity, seconds)
    flood_p99 = latency_ms(flood.exchanges, 99)
    progress(f"{FLOOD:.0%}: {goodput(flood):,.0f}/s, p99 {flood_p99:.1f} ms, {outcomes(flood.exchanges)}")
    refusals = [each for each in flood.exchanges if each.error]
    figures: Figures = {
        "peak_rps": capacity,
        "peak_connections": connections,
        "peak_sentences_per_second": sentences_per_second(best),
        "usual_p50_ms": latency_ms(usual.exchanges, 50),
        "usual_p99_ms": usual_p99,
        "usual_outcomes": outcomes(usual.exchanges),
        "offered_rps": len(flood.exchanges) / seconds,
        "goodput_rps": goodput(flood),
        "goodput_share": goodput(flood) / capacity,
        "goodput_sentences_share": sentences_per_second(flood) / sentences_per_second(best),
        "p50_ms": latency_ms(flood.exchanges, 50),
        "p99_ms": flood_p99,
        "p99_ratio": flood_p99 / usual_p99 if usual_p99 else None,
        "refused": len(refusals),
        "bad_refusals": sum(not is_proper_refusal(each) for each in refusals),
        "outcomes": outcomes(flood.exchanges),
        "generator_cpu_share": flood.cpu_share,
        "generator_late_p99_ms": lateness_ms(flood, 99),
    }
    return Findings(figures, [*best.remarks(), *usual.remarks(), *flood.remarks()])


def _peak(setup: Setup, address: Address, requests: Iterator[Request]) -> tuple[Load, int]:
    """The closed loop with the most good answers a second, and how many connections it had."""
    loads = {}
    for connections in CONNECTIONS:
        until = after(setup.seconds(5, 2))
        loads[connections] = closed_loop(address, requests, connections=connections, until=until)
        progress(f"closed loop, {connections} connections: {goodput(loads[connections]):,.0f} answers/s")
    best = max(loads, key=lambda connections: goodput(loads[connections]))
    return loads[best], best


def _offer(address: Address, requests: Iterator[Request], rate: float, seconds: float) -> Load:
    return open_loop(address, requests, arrivals(rate, seconds, seed=1), seconds=seconds)
