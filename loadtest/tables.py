"""The tables of the report, as text in cells; Markdown and the page show the same ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loadtest.plan import BATCH, SINGLE
from loadtest.results import Result, System
from loadtest.verdict import (
    REQUIRED,
    TASKS,
    TITLES,
    Paper,
    by_task,
    figures,
    ratio,
    sentences_a_request,
    speed,
    task_figures,
)

NOTHING = "–"
MAIN_METRICS = ("f1", "uas", "las")
NO_ACCURACY = (
    "The teacher of the paper's size has random weights: it is exact for speed and size, and has no accuracy."
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows, and what has to be said with it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def number(value: float) -> str:
    """As many digits as mean something.

    >>> number(1234.6), number(34.56), number(3.456)
    ('1,235', '34.6', '3.46')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float | None) -> str:
    """A ratio.

    >>> times(24.21), times(1.0), times(None)
    ('24.2×', '1×', '–')
    """
    if value is None:
        return NOTHING
    return "1×" if value == 1 else f"{number(value)}×"


def milliseconds(value: float) -> str:
    """A latency.

    >>> milliseconds(6205.5), milliseconds(8.71)
    ('6,206', '8.7')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def moment(date: str) -> str:
    """A time as people write it.

    >>> moment("2026-01-31T12:00:05+00:00")
    '12:00 UTC, 31 January 2026'
    """
    return f"{datetime.fromisoformat(date).astimezone(UTC):%H:%M UTC, %-d %B %Y}"


def headline(result: Result) -> Table:
    """What was aimed at beside what was found, both tasks, and the paper's own ratio."""
    paper, found = Paper(), figures(result)
    own = {"http_vs_paper_shape": paper.faster, "params_vs_paper_shape": paper.smaller}
    tasks = {task: task_figures(systems) for task, systems in by_task(result).items()}
    rows = []
    for key, target in REQUIRED.items():
        if key not in found:
            continue
        shown = times if target.at_least else milliseconds
        rows.append(
            (
                target.meaning,
                *(shown(each[key]) if key in each else NOTHING for each in tasks.values()),
                times(own.get(key)),
                f"{'at least' if target.at_least else 'at most'} {target.value:g}",
                "yes" if target.met(found[key]) else "no",
            )
        )
    columns = ("", *(TASKS[task] for task in tasks), "Paper", "Aim", "Met")
    return Table("Our ratios beside the paper's", columns, rows, _note(result.systems))


def table7(result: Result) -> Iterator[Table]:
    """Speed, size and accuracy: a table a task, the paper's own figures in its last two rows."""
    paper = Paper()
    for task, systems in by_task(result).items():
        shape, teacher = systems.get("paper-shape"), systems.get("teacher")
        rows: list[tuple[str, ...]] = []
        for key in TITLES:
            if key not in systems:
                continue
            system = systems[key]
            rows.append(
                (
                    TITLES[key],
                    number(speed(system, BATCH)),
                    times(_against(system, shape, BATCH)),
                    times(_against(system, teacher, BATCH)),
                    number(speed(system, SINGLE)),
                    times(_against(system, shape, SINGLE)),
                    f"{system.parameters / 1e6:.2f}",
                    times(ratio(shape.parameters, system.parameters) if shape else None),
                    accuracy(system),
                )
            )
        rows += [
            _papers("teacher", paper.teacher_speed, 1, paper.teacher_parameters, 1),
            _papers("student", paper.student_speed, paper.faster, paper.student_parameters, paper.smaller),
        ]
        yield Table(
            TASKS[task],
            (
                "System",
                "Sentences/s, 32 a request",
                "against the paper's size",
                "against the run's teacher",
                "Sentences/s, 1 a request",
                "against the paper's size",
                "Parameters (M)",
                "smaller than the paper's size",
                "Test score",
            ),
            rows,
            _note(list(systems.values())),
        )


def accuracy(system: System) -> str:
    """Test scores, or why there are none."""
    if not system.has_accuracy:
        return "none: random weights"
    shown = {metric: value for metric, value in system.scores.items() if metric in MAIN_METRICS}
    return ", ".join(f"{metric.upper()} {value:.1f}" for metric, value in shown.items()) or NOTHING


def closed_loops(result: Result) -> Table:
    """Latencies under saturation, and who was busy."""
    rows = [
        (
            f"{TASKS[system.task]}, {TITLES[system.key].lower()}",
            f"{row.sentences_a_request}",
            f"{row.round}",
            f"{row.connections}",
            number(row.sentences_per_second),
            f"{row.requests:,}",
            milliseconds(row.latency.p50),
            milliseconds(row.latency.p95),
            milliseconds(row.latency.p99),
            f"{row.server_cpu:.0%}",
            f"{row.generator_cpu:.0%}",
            f"{row.failures:,}",
        )
        for system in result.systems
        for row in sorted(system.closed, key=lambda row: (row.sentences_a_request, row.round))
    ]
    return Table(
        "Closed loops: every connection sends as soon as it was answered (latencies in ms)",
        (
            "System",
            "Sentences a request",
            "Round",
            "Connections",
            "Sentences/s",
            "Requests",
            "p50",
            "p95",
            "p99",
            "Server CPU",
            "Generator CPU",
            "Failed",
        ),
        rows,
        _note(system for system in result.systems if system.closed),
    )


def open_loops(result: Result) -> Table:
    """Latencies while requests arrive at random."""
    rows = [
        (
            f"{TASKS[system.task]}, {TITLES[system.key].lower()}",
            f"{row.sentences_a_request}",
            f"{row.share:.0%}",
            number(row.offered_per_second),
            number(row.completed_per_second),
            milliseconds(row.latency.p50),
            milliseconds(row.latency.p95),
            milliseconds(row.latency.p99),
            f"{row.objective_ms:g}",
            number(row.goodput_per_second),
            f"{row.refused:,}",
            f"{row.failures:,}",
            f"{row.generator_cpu:.0%}",
        )
        for system in result.systems
        for row in system.steps
    ]
    return Table(
        "Open loops: Poisson arrivals, latency from the intended arrival (latencies in ms, rates a second)",
        (
            "System",
            "Sentences a request",
            "Of capacity",
            "Offered",
            "Answered",
            "p50",
            "p95",
            "p99",
            "Objective",
            "Within it",
            "Refused",
            "Failed",
            "Generator CPU",
        ),
        rows,
        _note(system for system in result.systems if system.steps),
    )


def conditions(result: Result) -> list[str]:
    """How the figures came about, in sentences."""
    here = result.conditions
    machine = [
        str(here.machine.get("cpu", "an unknown processor")),
        f"{here.machine.get('cores', '?')} cores",
    ]
    if "memory_gb" in here.machine:
        machine.append(f"{here.machine['memory_gb']} GB of memory")
    if "system" in here.machine:
        machine.append(str(here.machine["system"]))
    sizes = ", ".join(
        f"{_counted(connections, 'connection')} with {sentences_a_request(size)}"
        for size, connections in sorted(
            {(row.sentences_a_request, row.connections) for each in result.systems for row in each.closed}
        )
    )
    said = [
        f"Measured at {moment(here.date)} on {', '.join(machine)}.",
        f"One server at a time: {_counted(here.workers, 'worker')} of {_counted(here.threads, 'thread')} on "
        f"{_cores(here.server_cores)}; the generator (Locust) on {_cores(here.generator_cores)}.",
        "Every system is served by the same code with ONNX Runtime; before it was measured, the server was "
        "checked to answer with that system's own model.",
        f"{_counted(here.rounds, 'round')}, in which the systems take turns; speeds are medians over rounds; "
        "the warm-up does not count.",
        f"{here.sentence_count:,} sentences of {here.mean_tokens:.1f} tokens on average ({here.sentences}), "
        "in one order for all systems; every stretch of it has the same mix of lengths. They come again and "
        "again, and a bundle's word tables hold the words of its run's corpus: words that a server has met "
        "before, as after a while of work.",
    ]
    if sizes:
        said.append(f"Closed loops: {sizes}.")
    if here.settings:
        said.append(f"Server settings: {_pairs(here.settings)}.")
    if here.versions:
        said.append(f"Versions: {_pairs(here.versions)}.")
    for system in result.systems:
        said.append(
            f"Checked: {system.task}, {system.key}: {system.name}, {system.precision}; {system.checked}."
        )
    return [*said, "The paper: Wang et al. 2021, table 7 (case 2a, English CoNLL), on its own hardware."]


def _papers(who: str, speed: float, faster: float, parameters: float, smaller: float) -> tuple[str, ...]:
    return (
        f"Paper: {who}",
        f"{speed:.2f}",
        times(faster),
        NOTHING,
        NOTHING,
        NOTHING,
        f"{parameters:.2f}",
        times(smaller),
        NOTHING,
    )


def _note(systems: Iterable[System]) -> str:
    return NO_ACCURACY if any(not system.has_accuracy for system in systems) else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _cores(cores: Sequence[int]) -> str:
    return f"{'core' if len(cores) == 1 else 'cores'} {', '.join(map(str, cores))}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _against(system: System, other: System | None, size: int) -> float | None:
    return ratio(speed(system, size), speed(other, size)) if other else None
