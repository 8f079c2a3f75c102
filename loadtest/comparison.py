"""The systems take turns, round by round: start a server, check it, press it, stop it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.check import CheckError, check_answers, check_model
from loadtest.generator import ClosedJob, Generator, OpenJob, Target
from loadtest.measurements import ClosedLoop, Step, System
from loadtest.plan import Plan
from loadtest.processes import children
from loadtest.sentences import evenly_mixed
from loadtest.server import serving
from loadtest.systems import Candidate
from loadtest.verdict import BUSY, sentences_a_request

# The same for every system: no request of a slow one is refused or given up on because of its time, the queue
# has room for what the clients of a closed loop send at once, and a server that is told to stop does not wait
# for a load balancer to notice.
SETTINGS = {"request_seconds": "300", "max_queue_tokens": "16384", "drain_seconds": "0"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is the same for every system: the sentences of the file `texts`, the server and its core."""

    plan: Plan
    texts: Path
    sentences: Sequence[list[str]]
    command: Sequence[str]
    core: int
    generator: Generator

    def run(self, candidates: Sequence[Candidate]) -> "Compared":
        """Measures every system in every round, one server at a time.

        Raises:
            ServerError, CheckError, GeneratorError: a system cannot be measured.
        """
        records = [_Record(candidate) for candidate in candidates]
        skipped = list(self.plan.skipped)
        turns = [(number, record) for number in range(1, self.plan.rounds + 1) for record in records]
        for index, (number, record) in enumerate(turns, start=1):
            name = record.candidate.bundle.name
            print(f"[{index}/{len(turns)}] round {number}, {record.title}: {name}", flush=True)
            skipped += self._measure(record, number)
            if record.settings != records[0].settings:
                raise CheckError(f"/info: other settings than the first server's: {record.settings}")
        return Compared(tuple(record.system() for record in records), tuple(skipped), records[0].settings)

    def _measure(self, record: "_Record", number: int) -> list[str]:
        """One server of one system in one round; returns what was skipped."""
        bundle, plan = record.candidate.bundle, self.plan
        with serving(
            {bundle.served_as: bundle.folder}, command=self.command, cores={self.core}, settings=SETTINGS
        ) as server:
            record.settings = check_model(server, bundle)
            sample = evenly_mixed(self.sentences)[: plan.checked_sentences]
            record.checked = check_answers(server, bundle, sample)
            _print(f"ready after {server.start_seconds:.1f} s; {record.checked}")
            processes = (server.process.pid, *children(server.process.pid, recursive=True))
            target = Target(server.address, f"/{bundle.task}", self.texts.resolve(), processes)
            for loop in plan.closed_loops:
                row: ClosedLoop = self.generator.run(ClosedJob(target, number, loop))
                record.closed.append(row)
                _print(
                    f"{sentences_a_request(loop.size)}: {row.sentences_per_second:,.1f} sentences/s, "
                    f"{row.requests} requests in {row.seconds:.1f} s, p99 {row.latency.p99:,.1f} ms"
                    f"{_cautions(row)}"
                )
            return self._open_loops(record, target) if number == plan.rounds else []

    def _open_loops(self, record: "_Record", target: Target) -> list[str]:
        skipped = []
        for loop in self.plan.open_loops.get(record.candidate.key, ()):
            size = sentences_a_request(loop.size)
            capacity = record.system().speed(loop.size) / loop.size
            steps = loop.steps(capacity)
            if isinstance(steps, str):
                _print(f"left out: {size}, open loop: {steps}")
                skipped.append(f"{record.title}, {size}, open loop: {steps}")
                continue
            rows: list[Step] = self.generator.run(
                OpenJob(target, loop.size, capacity, steps, loop.objective_ms)
            )
            record.steps += rows
            for row in rows:
                refused = f", {row.refused} refused" if row.refused else ""
                _print(
                    f"{size}, {row.share:.0%} of {capacity:,.1f} requests/s: p50 {row.latency.p50:,.1f} ms, "
                    f"p99 {row.latency.p99:,.1f} ms{refused}{_cautions(row)}"
                )
        return skipped


@dataclass(frozen=True, slots=True)
class Compared:
    """All systems, what was skipped, and the settings of the server, which were the same for all."""

    systems: tuple[System, ...]
    skipped: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(slots=True)
class _Record:
    """What was measured of one system so far."""

    candidate: Candidate
    checked: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    closed: list[ClosedLoop] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.candidate.bundle.task}, {self.candidate.key}"

    def system(self) -> System:
        bundle = self.candidate.bundle
        return System(
            key=self.candidate.key,
            task=bundle.task,
            name=bundle.name,
            kind=bundle.kind,
            parameters=bundle.parameters,
            precision=bundle.precision,
            has_accuracy=bundle.has_accuracy,
            scores=bundle.scores,
            checked=self.checked,
            closed=tuple(self.closed),
            steps=tuple(self.steps),
        )


def _cautions(row: ClosedLoop | Step) -> str:
    failed = f"; {row.failures} FAILED: {row.reasons}" if row.failures else ""
    busy = f"; the generator was busy: {row.generator_cpu:.0%}" if row.generator_cpu > BUSY else ""
    return failed + busy


def _print(line: str) -> None:
    print(f"    {line}", flush=True)
