"""What HTTP costs: the served engine against the engine in process and an endpoint that does nothing."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.chaos.figures import Figures, Findings, ScenarioError, outcomes, sentences_per_second
from benchmarks.chaos.request_streams import uniform
from benchmarks.chaos.setup import Setup, progress
from loadtest.loads import after, closed_loop
from loadtest.processes import pinned, split_cores
from loadtest.sentences import Input
from loadtest.server import own_process, running, tail

ROUNDS = 3
EMPTY_ENDPOINT = (sys.executable, "-m", "uvicorn", "benchmarks.chaos.empty_endpoint:app", "--no-access-log")
IN_PROCESS_BATCHES = (8, 32)
IN_PROCESS_SECONDS = 300.0  # patience

Rates = Mapping[tuple[str, int], float]
"""Sentences a second, by what was measured and its number of connections (or sentences a batch)."""


class SizedLoad(NamedTuple):
    """Requests of one size, tried with several numbers of connections, of which the best counts."""

    name: str
    size: int
    connections: tuple[int, ...]
    kind: Input = "tokens"


LOADS = (
    SizedLoad("empty", 1, (16, 32, 64)),
    SizedLoad("single", 1, (16, 32, 64)),
    SizedLoad("batch", 32, (4, 8, 16)),
    SizedLoad("single_texts", 1, (16,), "texts"),
    SizedLoad("batch_texts", 32, (8,), "texts"),
)


def measure(setup: Setup) -> Findings:
    """Medians of rounds that measure everything in turn; the server and the engine have one core."""
    rounds: list[Rates] = []
    remarks: list[str] = []
    server_core, own_core = split_cores()
    with (
        setup.serving(core=server_core) as server,
        running(EMPTY_ENDPOINT, cores={server_core}) as empty,
        pinned(own_core),
    ):
        for number in range(1, (1 if setup.quick else ROUNDS) + 1):
            rates = {
                ("in_process", size): _in_process(setup, size, server_core) for size in IN_PROCESS_BATCHES
            }
            for name, size, counts, kind in LOADS:
                address = empty.address if name == "empty" else server.address
                for count in counts:
                    requests = uniform(setup.sentences, size, kind=kind)
                    until = after(setup.seconds(5, 1))
                    load = closed_loop(address, requests, connections=count, until=until)
                    rates[name, count] = sentences_per_second(load)
                    remarks += [f"{name}, {count}: {remark}" for remark in load.remarks()]
                    if failed := [each for each in load.exchanges if each.error]:
                        remarks.append(f"{name}, {count}: not accepted: {outcomes(failed)}")
            rounds.append(rates)
            shown = ", ".join(f"{name} {count}: {rate:,.0f}" for (name, count), rate in rates.items())
            progress(f"round {number}, sentences/s: {shown}")
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


def _in_process(setup: Setup, size: int, core: int) -> float:
    """Sentences a second of the engine without a server, on one core."""
    words = ["speed", "--bundle", str((setup.bundles / "ner").resolve()), "--batch", str(size)]
    words += ["--sentences", str(setup.texts.resolve())]
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        log = Path(temporary) / "speed.log"
        command = [sys.executable, "-m", "structural_kd", *words]
        with own_process(command, log, cores={core}) as process:
            try:
                process.wait(IN_PROCESS_SECONDS)
            except subprocess.TimeoutExpired:
                raise ScenarioError(f"structural_kd speed took over {IN_PROCESS_SECONDS:g} s") from None
        output = log.read_text(encoding="utf-8", errors="replace")
        try:
            return float(json.loads(output[output.index("{") :])["sentences_per_second"])
        except (ValueError, KeyError, TypeError) as error:
            raise ScenarioError(f"structural_kd speed gave no figure ({error!r}){tail(log)}") from None
