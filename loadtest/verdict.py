"""What a load test shows: the ratios that are aimed at, what makes it invalid, and what to bear in mind."""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loadtest.measurements import ClosedLoop, MeasuredSystem, Result, Step
from loadtest.plan import BATCH, SINGLE

BUSY = 0.85  # share of a core: beyond it a generator may be what limits a figure
FEW_REQUESTS = 30  # fewer make a figure rough
FEW_FOR_P99 = 100  # of fewer, the longest one is the 99th percentile
SATURATED = 0.85  # of the cores that it may use: a server that uses less had time to spare
FOREIGN = 0.2  # cores that neither the server nor the generator used, beyond which there is a remark
ROUNDS_APART = 1.2  # the fastest round over the slowest, beyond which there is a remark
NEVER_REFUSED_SHARE = 0.75  # of the capacity: up to it a server takes every request, if it is as fast then
FULL = 0.95  # of the cores that it may use: a server that uses more has nothing left
HALF = 0.5

TITLES: Mapping[str, str] = {
    "paper-shape": "Teacher of the paper's size",
    "teacher": "Teacher of the run",
    "student": "Student",
    "student-int8": "Student, int8",
}
TASKS: Mapping[str, str] = {"ner": "Named entities", "parse": "Dependency trees"}


@dataclass(frozen=True, slots=True)
class PaperTable7:
    """Wang et al. 2021, table 7: case 2a on the English CoNLL test set, on their hardware."""

    teacher_speed: float = 27.76  # sentences a second
    student_speed: float = 672.20
    teacher_parameters: float = 233.40  # millions
    student_parameters: float = 9.46

    @property
    def faster(self) -> float:
        return self.student_speed / self.teacher_speed

    @property
    def smaller(self) -> float:
        return self.teacher_parameters / self.student_parameters


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to be: `at_least` a value, or else at most."""

    meaning: str
    value: float
    at_least: bool = True

    def met(self, figure: float) -> bool:
        return figure >= self.value if self.at_least else figure <= self.value


REQUIRED: Mapping[str, Goal] = {
    "http_vs_paper_shape": Goal("Speed against the teacher of the paper's size, 32 sentences a request", 300),
    "http_int8_vs_paper_shape": Goal("The same for the student in int8", 600),
    "http_single_vs_paper_shape": Goal("Speed against the same teacher, one sentence a request", 150),
    "params_vs_paper_shape": Goal("Size: how many times fewer parameters than the same teacher", 20),
    "http_vs_run_teacher": Goal("Speed against the run's own teacher, 32 sentences a request", 35),
    "p99_ms_at_half": Goal("p99 in ms at half the capacity, one sentence a request", 15, at_least=False),
}


def ratio(one: float, other: float) -> float | None:
    """None where there is nothing to divide by.

    >>> ratio(6.0, 2.0), ratio(6.0, 0.0)
    (3.0, None)
    """
    return one / other if other else None


def by_task(result: Result) -> dict[str, dict[str, MeasuredSystem]]:
    """The systems by task and key."""
    found: dict[str, dict[str, MeasuredSystem]] = {}
    for system in result.systems:
        found.setdefault(system.task, {})[system.key] = system
    return found


def task_figures(systems: Mapping[str, MeasuredSystem]) -> dict[str, float]:
    """The figures of `REQUIRED` for one task; those whose systems were not measured are left out."""
    student, shape, teacher = (systems.get(key) for key in ("student", "paper-shape", "teacher"))
    int8 = systems.get("student-int8")
    found: dict[str, float | None] = {}
    if student and shape:
        found["http_vs_paper_shape"] = ratio(student.speed(BATCH), shape.speed(BATCH))
        found["http_single_vs_paper_shape"] = ratio(student.speed(SINGLE), shape.speed(SINGLE))
        found["params_vs_paper_shape"] = ratio(shape.parameters, student.parameters)
    if int8 and shape:
        found["http_int8_vs_paper_shape"] = ratio(int8.speed(BATCH), shape.speed(BATCH))
    if student and teacher:
        found["http_vs_run_teacher"] = ratio(student.speed(BATCH), teacher.speed(BATCH))
    if student:
        found["p99_ms_at_half"] = max(
            (step.latency.p99 for step in student.steps if _is_half(step)), default=None
        )
    return {key: value for key in REQUIRED if (value := found.get(key)) is not None}


def figures(result: Result) -> dict[str, float]:
    """The figures of `REQUIRED`, of both tasks the worse one."""
    of_tasks = [task_figures(systems) for systems in by_task(result).values()]
    worse: dict[str, float] = {}
    for key, goal in REQUIRED.items():
        values = [each[key] for each in of_tasks if key in each]
        if values:
            worse[key] = min(values) if goal.at_least else max(values)
    return worse


def problems(result: Result) -> list[str]:
    """What makes figures invalid: failed or missing answers, refusals below saturation, a busy generator."""
    found = []
    for row, where in _measurements(result):
        if row.failures:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in row.reasons.items())
            found.append(f"{where}: {row.failures} requests failed ({reasons})")
        if not (row.requests if isinstance(row, ClosedLoop) else row.completed_per_second):
            found.append(f"{where}: no request was answered")
        if isinstance(row, Step) and _refused_early(row) and not _was_saturated(row, result):
            found.append(f"{where}: {row.refused} of {row.requests} requests were refused")
        if row.generator_cpu > BUSY:
            found.append(
                f"{where}: the generator was the bottleneck, it used {row.generator_cpu:.0%} of its core"
            )
    for system in result.systems:
        if not system.closed:
            found.append(f"{system.title}: nothing was measured")
    return found


def remarks(result: Result) -> list[str]:
    """What a reader has to know, though it makes nothing invalid."""
    found = []
    for key in dict.fromkeys(system.key for system in result.systems if not system.has_accuracy):
        found.append(f"{key} has random weights: exact for speed and size, no accuracy")
    if result.conditions.quick:
        found.append("a quick run: short windows, one round, rough figures")
    if set(result.conditions.server_cores) & set(result.conditions.generator_cores):
        found.append("server and generator shared a core: what limits a figure is not known")
    if (foreign := max((row.foreign_cpu for row, _ in _measurements(result)), default=0.0)) > FOREIGN:
        found.append(f"other processes used up to {foreign:.1f} cores while it measured: not a quiet machine")
    usable = _usable_cores(result)
    for row, where in _measurements(result):
        if isinstance(row, Step) and _refused_early(row) and _was_saturated(row, result):
            found.append(
                f"{where}: {row.refused} of {row.requests} requests were refused, since the server was "
                f"saturated ({row.server_cpu:.0%} of a core): it was slower then than in its closed loop"
            )
    for system in result.systems:
        for size in (SINGLE, BATCH):
            rows = [row for row in system.closed if row.sentences_a_request == size]
            where = f"{system.title}, {sentences_a_request(size)}"
            if (answered := sum(row.requests for row in rows)) and answered < FEW_REQUESTS:
                found.append(f"{where}: {answered} requests in all rounds, so its figure is rough")
            speeds = [row.sentences_per_second for row in rows if row.sentences_per_second]
            used = statistics.median([row.server_cpu for row in rows] or [math.inf])
            if used < SATURATED * usable:
                found.append(f"{where}: the server used {used:.0%} of a core, it could have done more")
            if speeds and max(speeds) > ROUNDS_APART * min(speeds):
                found.append(f"{where}: rounds differ, {min(speeds):,.1f} to {max(speeds):,.1f} sentences/s")
        steps = [step for step in system.steps if step.requests < FEW_FOR_P99]
        if steps:
            fewest = min(step.requests for step in steps)
            found.append(
                f"{system.title}: steps of {fewest} requests and more, so their p99 is about "
                "the longest of them"
            )
    return found + [f"left out: {each}" for each in result.skipped]


def sentences_a_request(size: int) -> str:
    """
    >>> sentences_a_request(1), sentences_a_request(32)
    ('1 sentence a request', '32 sentences a request')
    """
    return "1 sentence a request" if size == 1 else f"{size} sentences a request"


def _usable_cores(result: Result) -> int:
    """Cores that the server's threads can use."""
    return min(result.conditions.workers * result.conditions.threads, len(result.conditions.server_cores))


def _refused_early(step: Step) -> bool:
    """Whether requests were refused at a load that the closed loop's capacity should carry."""
    return step.refused > 0 and step.share <= NEVER_REFUSED_SHARE


def _was_saturated(step: Step, result: Result) -> bool:
    """Whether it had nothing left all the same: machines are not always as fast; then refusing is right."""
    return step.server_cpu >= FULL * _usable_cores(result)


def _is_half(step: Step) -> bool:
    return (
        step.sentences_a_request == SINGLE
        and math.isclose(step.share, HALF)
        and step.latency.p99 > 0  # where nothing was answered there is none
    )


def _measurements(result: Result) -> Iterator[tuple[ClosedLoop | Step, str]]:
    for system in result.systems:
        rows: list[ClosedLoop | Step] = [*system.closed, *system.steps]
        for row in rows:
            when = f"round {row.round}" if isinstance(row, ClosedLoop) else f"{row.share:.0%} of the capacity"
            size = sentences_a_request(row.sentences_a_request)
            yield row, f"{system.title}, {size}, {when}"
