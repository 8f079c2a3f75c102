"""What HTTP costs: the served engine against the engine in process and an endpoint that does nothing."""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.client import Address
from benchmarks.chaos.figures import Figures, Findings, ScenarioError, kinds, sentences_per_second
from benchmarks.chaos.loads import Run, after, closed_loop, drive
from benchmarks.chaos.serving import Setup, serving
from benchmarks.chaos.traffic import uniform
from loadtest.processes import first_core, last_core, pinned
from loadtest.sentences import Input
from loadtest.server import free_port, own_process

ROUNDS = 3
IN_PROCESS_BATCHES = (8, 32)
IN_PROCESS_SECONDS = 300.0  # patience
START_SECONDS = 30.0

Rates = Mapping[tuple[str, int], float]
"""Sentences a second, by what was measured and its number of connections (or sentences a batch)."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one size, tried with several numbers of connections, of which the best counts."""

    name: str
    size: int
    connections: tuple[int, ...]
    kind: Input = "tokens"


LOADS = (
    Load("empty", 1, (16, 32, 64)),
    Load("single", 1, (16, 32, 64)),
    Load("batch", 32, (4, 8, 16)),
    Load("single_texts", 1, (16,)),
    Load("batch_texts", 32, (8,)),
)


def measure(setup: Setup) -> Findings:
    """Medians of rounds that measure everything in turn; the server and the engine have one core."""
    rounds: list[Rates] = []
    remarks: list[str] = []
    with serving(setup, cores=first_core()) as served, _empty_endpoint() as empty, pinned(last_core()):
        for number in range(1, (1 if setup.quick else ROUNDS) + 1):
            rates: dict[tuple[str, int], float] = {}
            for size in IN_PROCESS_BATCHES:
                rates["in_process", size] = _in_process(setup, size)
            for load in LOADS:
                address = empty if load.name == "empty" else served.address
                for connections in load.connections:
                    run = _press(setup, address, load, connections)
                    rates[load.name, connections] = sentences_per_second(run)
                    remarks += [f"{load.name}, {connections}: {remark}" for remark in run.remarks()]
                    if failed := [each for each in run.outcomes if not each.accepted]:
                        remarks.append(f"{load.name}, {connections}: not accepted: {kinds(failed)}")
            rounds.append(rates)
            shown = ", ".join(f"{name} {count}: {rate:,.0f}" for (name, count), rate in rates.items())
            setup.say(f"round {number}, sentences/s: {shown}")
    medians = {key: statistics.median(rates[key] for rates in rounds) for key in rounds[0]}
    return Findings(costs(medians), remarks)


def costs(rates: Rates) -> Figures:
    """The figures of the report.

    One sentence a request is ideal where it takes the time of the empty endpoint and of the engine, one
    after the other, and no more.
    """
    best = {
        name: max((rate, count) for (other, count), rate in rates.items() if other == name)
        for name, _ in rates
    }
    engine, engine_32 = (rates["in_process", size] for size in IN_PROCESS_BATCHES)
    empty, single, batch = best["empty"][0], best["single"][0], best["batch"][0]
    return {
        "http_single_vs_ideal": single / (1 / (1 / empty + 1 / engine)),
        "http_batch_vs_inprocess": batch / engine,
        "http_batch_vs_inprocess_32": batch / engine_32,
        "http_empty_rps": empty,
        "http_empty_connections": best["empty"][1],
        "http_inprocess_sentences_per_second": engine,
        "http_inprocess_32_sentences_per_second": engine_32,
        "http_single_rps": single,
        "http_single_connections": best["single"][1],
        "http_single_texts_rps": best["single_texts"][0],
        "http_batch_sentences_per_second": batch,
        "http_batch_connections": best["batch"][1],
        "http_batch_texts_sentences_per_second": best["batch_texts"][0],
    }


def _press(setup: Setup, address: Address, load: Load, connections: int) -> Run:
    requests = uniform(setup.sentences, load.size, kind=load.kind)
    pressed = closed_loop(address, requests, connections=connections, until=after(setup.seconds(5, 1)))
    return drive(pressed)


def _in_process(setup: Setup, size: int) -> float:
    """Sentences a second of the engine without a server, on the core that the server has."""
    words = ["speed", "--bundle", str((setup.bundles / "ner").resolve()), "--batch", str(size)]
    words += ["--sentences", str(setup.texts.resolve())]
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        log = Path(temporary) / "speed.log"
        with own_process([sys.executable, "-m", "structural_kd", *words], log, cores=first_core()) as process:
            try:
                process.wait(IN_PROCESS_SECONDS)
            except subprocess.TimeoutExpired:
                raise ScenarioError(f"bundle speed did not end in {IN_PROCESS_SECONDS:g} s") from None
        said = log.read_text(encoding="utf-8", errors="replace")
    try:
        return float(json.loads(said[said.index("{") :])["sentences_per_second"])
    except (ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"bundle speed gave no figure ({error!r}); it said:\n{said}") from None


@contextmanager
def _empty_endpoint() -> Iterator[Address]:
    """Serves an endpoint of /ner's schema that does nothing, on the core that the server has."""
    address = ("127.0.0.1", free_port())
    words = ["uvicorn", "benchmarks.chaos.empty_endpoint:app", "--port", str(address[1]), "--no-access-log"]
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        log = Path(temporary) / "empty.log"
        with own_process([sys.executable, "-m", *words], log, cores=first_core()) as process:
            give_up = time.monotonic() + START_SECONDS
            while not _listens(address):
                if process.poll() is not None or time.monotonic() > give_up:
                    said = log.read_text(encoding="utf-8", errors="replace")
                    raise ScenarioError(f"benchmarks.chaos.empty_endpoint does not listen; it said:\n{said}")
                time.sleep(0.1)
            yield address


def _listens(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
