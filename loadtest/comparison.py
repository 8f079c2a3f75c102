"""The systems take turns, round by round: start a server, check it, press it, stop it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.check import CheckError, check_answers, check_model
from loadtest.jobs import ClosedJob, OpenJob, Target
from loadtest.plan import USUAL_SPEEDS, USUAL_STARTS, ClosedPlan, OpenPlan, Plan
from loadtest.pressing import Generator
from loadtest.results import Closed, Step, System
from loadtest.sentences import Input
from loadtest.server import running
from loadtest.systems import Contestant
from loadtest.verdict import BUSY, sentences_a_request, speed


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for every system.

    `sample` are the sentences of the check, `texts` is the file that the generator reads; `say` gets lines
    of progress and `keep` the rows of each loop as soon as it is over.
    """

    plan: Plan
    texts: str
    kind: Input
    sample: Sequence[list[str]]
    command: Sequence[str]
    cores: set[int] | None
    workers: int
    threads: int
    start_timeout: float
    say: Callable[[str], None]
    keep: Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Measured:
    """What is known of one system so far."""

    contestant: Contestant
    checked: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    start_seconds: float | None = None

    @property
    def where(self) -> str:
        return f"{self.contestant.bundle.task}, {self.contestant.key}"

    def speed(self, size: int) -> float:
        """Sentences a second of the closed loops with `size` a request, the median over rounds; 0 if none."""
        return speed(self.system(), size)

    def system(self) -> System:
        bundle = self.contestant.bundle
        return System(
            key=self.contestant.key,
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


@dataclass(frozen=True, slots=True)
class Compared:
    """All systems, what was skipped, and the settings of the server, which were the same for all."""

    systems: tuple[System, ...]
    skipped: tuple[str, ...]
    settings: dict[str, Any]


def compare(contestants: Sequence[Contestant], generator: Generator, setting: Setting) -> Compared:
    """Measures every system in every round, one server at a time.

    Raises:
        ServerError, CheckError, GeneratorError: a system cannot be measured.
    """
    plan = setting.plan
    systems = [Measured(contestant) for contestant in contestants]
    skipped = list(plan.skipped)
    visits = [(number, measured) for number in range(1, plan.rounds + 1) for measured in systems]
    for index, (number, measured) in enumerate(visits):
        left = sum(expected_seconds(plan, other, number) for number, other in visits[index:])
        setting.say(
            f"[{index + 1}/{len(visits)}] round {number}, {measured.where}: "
            f"{measured.contestant.bundle.name} ({in_words(left)} left)"
        )
        skipped += _visit(measured, number, generator, setting)
        if measured.settings != systems[0].settings:
            raise CheckError(f"/info: other settings than the first server's: {measured.settings}")
    return Compared(tuple(measured.system() for measured in systems), tuple(skipped), systems[0].settings)


def expected_seconds(plan: Plan, measured: Measured, number: int) -> float:
    """About how long a visit takes: by what was measured of the system, else by what is usual."""
    key = measured.contestant.key
    speeds = [speed for loop in plan.closed_loops if (speed := measured.speed(loop.size))]
    speed = min(speeds) if speeds else USUAL_SPEEDS.get(key, 30.0)
    start = measured.start_seconds or USUAL_STARTS.get(key, 5.0)
    return plan.visit_seconds(key, speed, start, last=number == plan.rounds)


def in_words(seconds: float) -> str:
    """A rough time.

    >>> in_words(40), in_words(100), in_words(4000)
    ('about 40 s', 'about 2 min', 'about 67 min')
    """
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _visit(measured: Measured, number: int, generator: Generator, setting: Setting) -> list[str]:
    """One server of one system in one round; returns what was skipped."""
    plan, bundle = setting.plan, measured.contestant.bundle
    with running(
        bundle,
        command=setting.command,
        workers=setting.workers,
        threads=setting.threads,
        timeout=setting.start_timeout,
        cores=setting.cores,
    ) as served:
        measured.start_seconds = served.start_seconds
        measured.settings = check_model(served.url, bundle)
        measured.checked = check_answers(served.url, bundle, setting.sample, setting.kind)
        setting.say(f"    ready after {served.start_seconds:.1f} s; {measured.checked}")
        target = Target(served.port, f"/{bundle.task}", setting.texts, setting.kind, served.processes)
        for loop in plan.closed_loops:
            measured.closed.append(_closed(measured, loop, number, target, generator, setting))
        if number < plan.rounds:
            return []
        opened = plan.open_loops.get(measured.contestant.key, ())
        return [said for loop in opened for said in _open(measured, loop, target, generator, setting)]


def _closed(
    measured: Measured,
    loop: ClosedPlan,
    number: int,
    target: Target,
    generator: Generator,
    setting: Setting,
) -> Closed:
    connections = loop.connections * setting.workers
    row = generator.closed(ClosedJob(target, number, loop.size, connections, loop.window))
    _keep(setting, measured, "closed", row)
    setting.say(
        f"    {sentences_a_request(loop.size)}: {row.sentences_per_second:,.1f} sentences/s, {row.requests} "
        f"requests in {row.seconds:.1f} s, p99 {row.latency.p99:,.1f} ms{_cautions(row)}"
    )
    return row


def _open(
    measured: Measured, loop: OpenPlan, target: Target, generator: Generator, setting: Setting
) -> Iterator[str]:
    capacity = measured.speed(loop.size) / loop.size
    steps = loop.steps(capacity)
    if isinstance(steps, str):
        said = f"{measured.where}, {sentences_a_request(loop.size)}, open loop: {steps}"
        setting.say(f"    left out: {sentences_a_request(loop.size)}, open loop: {steps}")
        yield said
        return
    for row in generator.open(OpenJob(target, loop.size, capacity, steps, loop.objective_ms)):
        measured.steps.append(row)
        _keep(setting, measured, "step", row)
        refused = f", {row.refused} refused" if row.refused else ""
        setting.say(
            f"    {sentences_a_request(loop.size)}, {row.share:.0%} of {capacity:,.1f} requests/s: p50 "
            f"{row.latency.p50:,.1f} ms, p99 {row.latency.p99:,.1f} ms{refused}{_cautions(row)}"
        )


def _cautions(row: Closed | Step) -> str:
    failed = f"; {row.failures} FAILED: {row.reasons}" if row.failures else ""
    busy = f"; the generator was busy: {row.generator_cpu:.0%}" if row.generator_cpu > BUSY else ""
    return failed + busy


def _keep(setting: Setting, measured: Measured, kind: str, row: Closed | Step) -> None:
    bundle = measured.contestant.bundle
    about = {"row": kind, "system": measured.contestant.key, "task": bundle.task, "name": bundle.name}
    setting.keep({**about, "time": round(time.time(), 1), **asdict(row)})
