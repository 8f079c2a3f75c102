"""Requests that are made up: by schemathesis from the server's own OpenAPI description, and by hand."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.chaos.figures import Findings, ScenarioError
from benchmarks.chaos.hostile_requests import CASES, fault, send
from benchmarks.chaos.setup import Setup, progress
from loadtest.server import PROJECT, Server, own_process, tail

PATIENCE = 10  # seconds for an answer
ENOUGH, QUICK_ENOUGH = 10_000, 500  # requests
EXAMPLES, QUICK_EXAMPLES = 3000, 200  # for each endpoint, in each run
MOST_RUNS = 5  # each with a seed of its own, until there are enough requests
RUN_SECONDS = 1800.0  # for one run at most
FAILURE_LINES = 200  # that are shown, in one run

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
HOOKS = {"SCHEMATHESIS_HOOKS": "benchmarks.chaos.schemathesis_hooks", "PYTHONPATH": str(PROJECT)}
# A client that sends nothing more is sent away within the patience above.
SETTINGS = {"body_seconds": "4", "head_seconds": "4"}


@dataclass(slots=True)
class Fuzzed:
    """What runs of schemathesis sent and found."""

    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    asked_for_504: int = 0  # of the 504s, those whose request had a timeout of its own
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.unanswered

    def add(self, archive: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Takes in one run: every request with its answer (HAR), and what failed the checks."""
        for entry in archive["log"]["entries"]:
            status = entry.get("response", {}).get("status", 0)
            if status and entry["time"] < 1000 * PATIENCE:
                self.statuses[status] += 1
                names = {header["name"].lower() for header in entry["request"]["headers"]}
                self.asked_for_504 += status == 504 and "x-request-timeout" in names
            else:
                self.unanswered += 1
        for failure in report["failures"]:
            for operation in failure["operations"]:
                self.failures[f"{operation}: {failure['title']}"] += failure["count"]
        for error in report["errors"]:
            self.failures[f"error: {error.get('title', error)}"] += 1


def measure(setup: Setup) -> Findings:
    """At least 10,000 generated requests, then some dozen by hand; the worker has to live through them."""
    if find_spec("schemathesis") is None:
        raise ScenarioError("schemathesis is missing: make chaos installs it, or pip install '.[chaos]'")
    fuzzed = Fuzzed()
    with setup.serving(settings=SETTINGS) as server, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        workers = server.workers()
        for seed in range(1, MOST_RUNS + 1):
            fuzzed.add(*_schemathesis(setup, server, seed, Path(folder)))
            progress(f"seed {seed}: {fuzzed.requests:,} requests so far, {dict(fuzzed.statuses)}")
            if fuzzed.requests >= (QUICK_ENOUGH if setup.quick else ENOUGH):
                break
        faults = _by_hand(server)
        for name, wrong in faults.items():
            progress(f"by hand, {name}: {wrong}")
        survived = server.workers() == workers
        server.post("/ner", {"sentences": setup.sentences[:2]})
    by_hand_5xx = sum(wrong.startswith("status 5") for wrong in faults.values())
    figures = {
        "fuzz_requests": fuzzed.requests,
        "fuzz_5xx": by_hand_5xx + sum(n for status, n in fuzzed.statuses.items() if status >= 500),
        "fuzz_504_asked_for": fuzzed.asked_for_504,
        "fuzz_hung": fuzzed.unanswered + sum(wrong == "no answer" for wrong in faults.values()),
        "fuzz_nonconforming": fuzzed.failures.total(),
        "fuzz_failures": dict(fuzzed.failures.most_common()),
        "fuzz_statuses": {str(status): count for status, count in sorted(fuzzed.statuses.items())},
        "fuzz_by_hand": len(CASES),
        "fuzz_by_hand_wrong": len(faults),
        "fuzz_by_hand_faults": faults,
        "fuzz_workers_died": int(not survived),
    }
    return Findings(figures)


def _by_hand(server: Server) -> dict[str, str]:
    """The cases that went wrong, and how."""
    found = {}
    for case in CASES:
        if wrong := fault(case, send(server.address, case, PATIENCE)):
            found[case.name] = wrong
    return found


def _schemathesis(setup: Setup, server: Server, seed: int, folder: Path) -> tuple[Any, Any]:
    """One run in a process of its own: its archive of requests, and its report; prints what failed.

    It runs in `folder`, where it also keeps what it learnt, so that each run of ours begins with nothing.
    """
    archive, report, log = (folder / f"{seed}-{name}" for name in ("har.json", "report.json", "log"))
    options: dict[str, object] = {
        "phases": "examples,coverage,fuzzing",
        "checks": ",".join(CHECKS),
        "max-examples": QUICK_EXAMPLES if setup.quick else EXAMPLES,
        "seed": seed,
        "request-timeout": PATIENCE,
        "generation-database": "none",
        "suppress-health-check": "all",
        "warnings": "off",
        "report": "har,json",
        "report-har-path": archive,
        "report-json-path": report,
    }
    command: Sequence[str] = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
        *("--continue-on-failure", "--no-shrink", "--no-color"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with own_process(command, log, variables=HOOKS, folder=folder) as process:
        try:
            process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise ScenarioError(f"schemathesis did not end in {RUN_SECONDS:g} s") from None
    output = log.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(archive.read_bytes()), json.loads(report.read_bytes())
    except (OSError, ValueError) as error:
        raise ScenarioError(f"schemathesis left no report ({error}){tail(log)}") from error
    for line in failures_in(output)[:FAILURE_LINES]:
        progress(line)
    return found


def failures_in(output: str) -> list[str]:
    """What schemathesis wrote of errors and failures, with examples, between its progress and its summary."""
    lines = output.splitlines()
    headings = [place for place, line in enumerate(lines) if line.startswith("====")]
    summary = next((place for place in headings if " SUMMARY " in lines[place]), len(lines))
    return [line for line in lines[headings[0] : summary] if line.strip()] if headings else []
