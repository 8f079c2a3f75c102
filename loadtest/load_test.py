"""The systems take turns, round by round: start a server, check it, load it, stop it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from loadtest.check import CheckError, check_answers, check_model
from loadtest.generator import ClosedJob, Generator, OpenJob, Target
from loadtest.measurements import ClosedLoop, MeasuredSystem, Step
from loadtest.plan import Plan
from loadtest.processes import children
from loadtest.sentences import evenly_mixed
from loadtest.server import Server, serving
from loadtest.systems import Bundle, Candidate
from loadtest.verdict import BUSY, sentences_a_request

# The same for every system: no request of a slow one is refused or given up on because of its time, the queue
# has room for what the clients of a closed loop send at once, and a server that has to stop does not wait
# for a load balancer to notice.
SETTINGS = {"request_seconds": "300", "max_queue_tokens": "16384", "drain_seconds": "0"}


@dataclass(frozen=True, slots=True)
class LoadTest:
    """What is the same for every system: the sentences of the file `texts`, the server and its core."""

    plan: Plan
    texts: Path
    sentences: Sequence[list[str]]
    command: Sequence[str]
    core: int
    generator: Generator

    def run(self, candidates: Sequence[Candidate]) -> tuple[list[MeasuredSystem], list[str], dict[str, Any]]:
        """Measures every system in every round, one server at a time.

        Returns:
            The systems, what was skipped, and the server's settings, which were the same for all.

        Raises:
            ServerError, CheckError, GeneratorError: a system cannot be measured.
        """
        systems = [_unmeasured(candidate) for candidate in candidates]
        skipped, settings = list(self.plan.skipped), None
        turns = list(product(range(1, self.plan.rounds + 1), zip(candidates, systems, strict=True)))
        for index, (number, (candidate, system)) in enumerate(turns, start=1):
            print(f"[{index}/{len(turns)}] round {number}, {system.title}: {system.name}", flush=True)
            bundle = candidate.bundle
            with serving(
                {bundle.served_as: bundle.folder}, command=self.command, cores={self.core}, settings=SETTINGS
            ) as server:
                settings = self._check(server, bundle, system, settings)
                processes = (server.process.pid, *children(server.process.pid, recursive=True))
                target = Target(server.address, f"/{bundle.task}", self.texts.resolve(), processes)
                self._closed_loops(system, target, number)
                if number == self.plan.rounds:
                    skipped += self._open_loops(system, target)
        return systems, skipped, settings or {}

    def _check(
        self, server: Server, bundle: Bundle, system: MeasuredSystem, before: dict[str, Any] | None
    ) -> dict[str, Any]:
        """The server's settings, the same as `before`, once it is sure that its answers are the bundle's."""
        settings = check_model(server, bundle)
        if before not in (None, settings):
            raise CheckError(f"/info: other settings than the first server's: {settings}")
        sample = evenly_mixed(self.sentences)[: self.plan.checked_sentences]
        system.checked = check_answers(server, bundle, sample)
        _print(f"ready after {server.start_seconds:.1f} s; {system.checked}")
        return settings

    def _closed_loops(self, system: MeasuredSystem, target: Target, number: int) -> None:
        for loop in self.plan.closed_loops:
            row: ClosedLoop = self.generator.run(ClosedJob(target, number, loop))
            system.closed.append(row)
            _print(
                f"{sentences_a_request(loop.size)}: {row.sentences_per_second:,.1f} sentences/s, "
                f"{row.requests} requests in {row.seconds:.1f} s, p99 {row.latency.p99:,.1f} ms"
                f"{_cautions(row)}"
            )

    def _open_loops(self, system: MeasuredSystem, target: Target) -> list[str]:
        """Returns what was skipped."""
        skipped = []
        for loop in self.plan.open_loops.get(system.key, ()):
            size, capacity = sentences_a_request(loop.size), system.speed(loop.size) / loop.size
            steps = loop.steps(capacity)
            if isinstance(steps, str):
                skipped.append(f"{system.title}, {size}, open loop: {steps}")
                _print(f"left out: {size}, open loop: {steps}")
                continue
            job = OpenJob(target, loop.size, capacity, steps, loop.objective_ms)
            rows: list[Step] = self.generator.run(job)
            system.steps += rows
            for row in rows:
                refused = f", {row.refused} refused" if row.refused else ""
                _print(
                    f"{size}, {row.share:.0%} of {capacity:,.1f} requests/s: p50 {row.latency.p50:,.1f} ms, "
                    f"p99 {row.latency.p99:,.1f} ms{refused}{_cautions(row)}"
                )
        return skipped


def _unmeasured(candidate: Candidate) -> MeasuredSystem:
    bundle = candidate.bundle
    return MeasuredSystem(
        key=candidate.key,
        task=bundle.task,
        name=bundle.name,
        kind=bundle.kind,
        parameters=bundle.parameters,
        precision=bundle.precision,
        has_accuracy=bundle.has_accuracy,
        scores=bundle.test_scores,
    )


def _cautions(row: ClosedLoop | Step) -> str:
    failed = f"; {row.failures} FAILED: {row.reasons}" if row.failures else ""
    busy = f"; the generator was busy: {row.generator_cpu:.0%}" if row.generator_cpu > BUSY else ""
    return failed + busy


def _print(line: str) -> None:
    print(f"    {line}", flush=True)
