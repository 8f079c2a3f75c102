"""The result as JSON, and as Markdown in the form of the paper's table 7 with one figure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from loadtest.figure import BLUE, GREEN, PURPLE, VERMILION, as_svg, new_figure, plain_log_ticks
from loadtest.markdown import bullets, table
from loadtest.measurements import ClosedLoop, MeasuredSystem, Result, Step
from loadtest.plan import BATCH, SINGLE
from loadtest.verdict import (
    REQUIRED,
    TASKS,
    TITLES,
    PaperTable7,
    by_task,
    figures,
    problems,
    ratio,
    remarks,
    sentences_a_request,
    task_figures,
)

TITLE = "Speed and size of teacher and student (table 7)"
NOTHING = "–"
MAIN_METRICS = ("f1", "uas", "las")
NO_ACCURACY = (
    "The teacher of the paper's size has random weights: it is exact for speed and size, and has no accuracy."
)
COLOURS: Mapping[str, str] = {
    "paper-shape": PURPLE,
    "teacher": VERMILION,
    "student": BLUE,
    "student-int8": GREEN,
}


def as_json(result: Result) -> dict[str, Any]:
    """Everything: the figures at the top level, then how they were judged, then every measurement."""
    found, paper, wrong = figures(result), PaperTable7(), problems(result)
    return {
        **found,
        "valid": not wrong,
        "problems": wrong,
        "remarks": remarks(result),
        "required": {
            key: {
                "meaning": goal.meaning,
                "at_least" if goal.at_least else "at_most": goal.value,
                "figure": found.get(key),
                "met": goal.met(found[key]) if key in found else None,
            }
            for key, goal in REQUIRED.items()
        },
        "tasks": {task: task_figures(systems) for task, systems in by_task(result).items()},
        "paper": {**asdict(paper), "faster": paper.faster, "smaller": paper.smaller},
        "conditions": asdict(result.conditions),
        "systems": [asdict(system) for system in result.systems],
        "skipped": result.skipped,
    }


def as_markdown(result: Result) -> str:
    """Problems first, then the ratios, table 7, its figure, latencies and conditions."""
    parts = [f"# {TITLE}"]
    if wrong := problems(result):
        parts += ["**These figures are not valid:**", bullets(wrong)]
    if any(not system.has_accuracy for system in result.systems):
        parts.append(NO_ACCURACY)
    if figures(result):
        parts += ["## Our ratios beside the paper's", _ratios(result)]
    for task, systems in by_task(result).items():
        parts += [f"## {TASKS[task]}", _table7(systems)]
    parts.append("![Sentences a second of every system, and the paper's](table7.svg)")
    if any(system.closed for system in result.systems):
        parts += [
            "## Closed loops",
            "Every connection sends as soon as it was answered; latencies in ms.",
            _measurements(result.systems, lambda system: system.closed, CLOSED_COLUMNS),
        ]
    if any(system.steps for system in result.systems):
        parts += [
            "## Open loops",
            "Poisson arrivals, latency from the intended arrival; latencies in ms, rates a second.",
            _measurements(result.systems, lambda system: system.steps, STEP_COLUMNS),
        ]
    if found := remarks(result):
        parts += ["## Remarks", bullets(found)]
    parts += ["## Conditions", bullets(list(_conditions(result)))]
    return "\n\n".join(parts) + "\n"


def as_figure(result: Result) -> str:
    """Sentences a second with 32 a request, on a logarithmic scale, the paper's two beside ours; SVG."""
    paper = PaperTable7()
    bars = [
        (f"{TASKS[task]}: {TITLES[key].lower()}", speed, COLOURS[key])
        for task, systems in by_task(result).items()
        for key in TITLES
        if key in systems and (speed := systems[key].speed(BATCH))
    ]
    bars += [
        ("The paper: teacher", paper.teacher_speed, COLOURS["paper-shape"]),
        ("The paper: student", paper.student_speed, COLOURS["student"]),
    ]
    labels, speeds, colours = zip(*bars, strict=True)
    figure = new_figure(0.4 * len(bars) + 0.8)
    axes = figure.add_subplot()
    drawn = axes.barh(labels, speeds, color=colours)
    axes.bar_label(drawn, [_number(speed) for speed in speeds], padding=4)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 2, max(speeds) * 4)
    axes.set_xlabel("sentences/s, 32 a request")
    plain_log_ticks(axes, "x")
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure)


def _ratios(result: Result) -> str:
    """The goals beside what was found in each task, and the paper's own ratio."""
    paper, found = PaperTable7(), figures(result)
    papers = {"http_vs_paper_shape": paper.faster, "params_vs_paper_shape": paper.smaller}
    tasks = {task: task_figures(systems) for task, systems in by_task(result).items()}
    rows = [
        (
            goal.meaning,
            *(
                (_times if goal.at_least else _ms)(each[key]) if key in each else NOTHING
                for each in tasks.values()
            ),
            _times(papers.get(key)),
            f"{'at least' if goal.at_least else 'at most'} {goal.value:g}",
            "yes" if goal.met(found[key]) else "no",
        )
        for key, goal in REQUIRED.items()
        if key in found
    ]
    return table(("", *(TASKS[task] for task in tasks), "Paper", "Aim", "Met"), rows)


def _table7(systems: Mapping[str, MeasuredSystem]) -> str:
    """Speed, size and accuracy of one task, the paper's own figures in the last two rows."""
    paper, shape, teacher = PaperTable7(), systems.get("paper-shape"), systems.get("teacher")

    def against(system: MeasuredSystem, other: MeasuredSystem | None, size: int) -> str:
        return _times(ratio(system.speed(size), other.speed(size)) if other else None)

    rows = [
        (
            TITLES[key],
            _number(system.speed(BATCH)),
            against(system, shape, BATCH),
            against(system, teacher, BATCH),
            _number(system.speed(SINGLE)),
            against(system, shape, SINGLE),
            f"{system.parameters / 1e6:.2f}",
            _times(ratio(shape.parameters, system.parameters) if shape else None),
            _accuracy(system),
        )
        for key in TITLES
        if (system := systems.get(key))
    ]
    for role, speed, faster, parameters, smaller in (
        ("teacher", paper.teacher_speed, 1.0, paper.teacher_parameters, 1.0),
        ("student", paper.student_speed, paper.faster, paper.student_parameters, paper.smaller),
    ):
        speeds = (f"{speed:.2f}", _times(faster), NOTHING, NOTHING, NOTHING)
        rows.append((f"Paper: {role}", *speeds, f"{parameters:.2f}", _times(smaller), NOTHING))
    headers = (
        "System",
        "Sentences/s, 32 a request",
        "against the paper's size",
        "against the run's teacher",
        "Sentences/s, 1 a request",
        "against the paper's size",
        "Parameters (M)",
        "smaller than the paper's size",
        "Test score",
    )
    return table(headers, rows)


CLOSED_COLUMNS: Mapping[str, Callable[[ClosedLoop], str]] = {
    "Sentences a request": lambda row: str(row.sentences_a_request),
    "Round": lambda row: str(row.round),
    "Connections": lambda row: str(row.connections),
    "Sentences/s": lambda row: _number(row.sentences_per_second),
    "Requests": lambda row: f"{row.requests:,}",
    "p50": lambda row: _ms(row.latency.p50),
    "p95": lambda row: _ms(row.latency.p95),
    "p99": lambda row: _ms(row.latency.p99),
    "Server CPU": lambda row: f"{row.server_cpu:.0%}",
    "Generator CPU": lambda row: f"{row.generator_cpu:.0%}",
    "Failed": lambda row: f"{row.failures:,}",
}
STEP_COLUMNS: Mapping[str, Callable[[Step], str]] = {
    "Sentences a request": lambda row: str(row.sentences_a_request),
    "Of capacity": lambda row: f"{row.share:.0%}",
    "Offered": lambda row: _number(row.offered_per_second),
    "Answered": lambda row: _number(row.completed_per_second),
    "p50": lambda row: _ms(row.latency.p50),
    "p95": lambda row: _ms(row.latency.p95),
    "p99": lambda row: _ms(row.latency.p99),
    "Objective": lambda row: f"{row.objective_ms:g}",
    "Within it": lambda row: _number(row.goodput_per_second),
    "Refused": lambda row: f"{row.refused:,}",
    "Failed": lambda row: f"{row.failures:,}",
    "Generator CPU": lambda row: f"{row.generator_cpu:.0%}",
}


def _measurements(
    systems: Iterable[MeasuredSystem],
    rows_of: Callable[[MeasuredSystem], Sequence[Any]],
    columns: Mapping[str, Callable[[Any], str]],
) -> str:
    """A row for each measurement, those with one sentence a request first."""
    rows = [
        (f"{TASKS[system.task]}, {TITLES[system.key].lower()}", *(shown(row) for shown in columns.values()))
        for system in systems
        for row in sorted(rows_of(system), key=lambda row: row.sentences_a_request)
    ]
    return table(("System", *columns), rows)


def _conditions(result: Result) -> Iterator[str]:
    """How the figures came about, in sentences."""
    here, machine = result.conditions, result.conditions.machine
    moment = datetime.fromisoformat(here.date).astimezone(UTC)
    yield (
        f"Measured at {moment:%H:%M UTC, %-d %B %Y} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB of memory, {machine['system']}."
    )
    yield (
        f"One server at a time: workers: {here.workers}, threads of each: {here.threads}, on the cores "
        f"{_listed(here.server_cores)}; the generator (Locust) on the cores {_listed(here.generator_cores)}."
    )
    yield (
        "Every system is served by the same code with ONNX Runtime; before it was measured, the server was "
        "checked to answer with that system's own model."
    )
    yield (
        f"Rounds, in which the systems take turns: {here.rounds}; speeds are medians over rounds; the "
        "warm-up does not count."
    )
    yield (
        f"{here.sentence_count:,} sentences of {here.mean_tokens:.1f} tokens on average ({here.sentences}), "
        "in one order for all systems; every stretch of it has the same mix of lengths. They come again and "
        "again, and a bundle's word tables hold the words of its run's corpus: words that a server has met "
        "before, as after a while of work."
    )
    loops = {(row.sentences_a_request, row.connections) for each in result.systems for row in each.closed}
    if loops:
        sizes = (f"{number} connections with {sentences_a_request(size)}" for size, number in sorted(loops))
        yield f"Closed loops: {', '.join(sizes)}."
    if here.settings:
        yield f"Server settings: {_pairs(here.settings)}."
    if here.versions:
        yield f"Versions: {_pairs(here.versions)}."
    for system in result.systems:
        yield f"Checked: {system.task}, {system.key}: {system.name}, {system.precision}; {system.checked}."
    yield "The paper: Wang et al. 2021, table 7 (case 2a, English CoNLL), on its own hardware."


def _accuracy(system: MeasuredSystem) -> str:
    """Test scores, or why there are none."""
    if not system.has_accuracy:
        return "none: random weights"
    shown = [
        f"{metric.upper()} {system.scores[metric]:.1f}" for metric in MAIN_METRICS if metric in system.scores
    ]
    return ", ".join(shown) or NOTHING


def _number(value: float) -> str:
    """As many digits as mean something.

    >>> _number(1234.6), _number(34.56), _number(3.456)
    ('1,235', '34.6', '3.46')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(value: float | None) -> str:
    """A ratio.

    >>> _times(24.21), _times(1.0), _times(None)
    ('24.2×', '1×', '–')
    """
    if value is None:
        return NOTHING
    return "1×" if value == 1 else f"{_number(value)}×"


def _ms(value: float) -> str:
    """A latency.

    >>> _ms(6205.5), _ms(8.71)
    ('6,206', '8.7')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
