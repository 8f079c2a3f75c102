"""The result in the form of the paper's table 7, as JSON, Markdown and HTML."""

import html
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadtest.bundles import Bundle
from loadtest.measure import FEW_REQUESTS, Load, Measurement

# Wang et al. 2021, table 7: case 2a on the English CoNLL test set.
PAPER = {"teacher": (27.76, 233.40), "student": (672.20, 9.46)}
PACKAGES = ("fastapi", "gunicorn", "locust", "numpy", "onnxruntime", "onnxruntime-gpu", "uvicorn")
TASKS = {"ner": "Named entities", "parse": "Dependency trees"}


@dataclass(frozen=True, slots=True)
class Row:
    """One system of one task."""

    bundle: Bundle
    measurement: Measurement
    checked: str  # what the check before the measurement saw


@dataclass(frozen=True, slots=True)
class Comparison:
    """Teacher and student of one task."""

    teacher: Row
    student: Row

    @property
    def task(self) -> str:
        return self.student.bundle.task

    @property
    def faster(self) -> float:
        """Sentences a second, student over teacher; infinite where the teacher answered nothing."""
        return ratio(
            self.student.measurement.sentences_per_second, self.teacher.measurement.sentences_per_second
        )

    @property
    def smaller(self) -> float:
        """Parameters of the teacher over the student's."""
        return ratio(self.teacher.bundle.parameters, self.student.bundle.parameters)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which the figures were measured."""

    load: Load
    workers: int
    threads: int
    sentences: str  # the file, as it was given
    sentence_count: int
    mean_tokens: float
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]


def conditions(
    load: Load, *, workers: int, threads: int, path: Path, sentences: Sequence[Sequence[str]]
) -> Conditions:
    """The settings of a run together with this machine, the date and the versions installed here."""
    return Conditions(
        load=load,
        workers=workers,
        threads=threads,
        sentences=str(path),
        sentence_count=len(sentences),
        mean_tokens=sum(map(len, sentences)) / len(sentences),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine={"cpu": _cpu_model(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        versions={"python": platform.python_version()} | _versions(),
    )


def problems(comparisons: Sequence[Comparison]) -> list[str]:
    """Why the figures are not valid; empty where they are."""
    found = []
    for comparison in comparisons:
        for system, row in (("teacher", comparison.teacher), ("student", comparison.student)):
            where, seen = f"{comparison.task}, {system}", row.measurement
            if seen.failures:
                reasons = "; ".join(f"{count} × {reason}" for reason, count in seen.reasons.items())
                found.append(f"{where}: {seen.failures} requests failed ({reasons})")
            if not seen.requests:
                found.append(f"{where}: no request was answered in {seen.seconds:.0f} s")
    return found


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """What a reader should know of figures that are valid."""
    return [
        f"{comparison.task}, {system}: only {row.measurement.requests} requests were answered; "
        f"the figure is rough, a longer --duration is better"
        for comparison in comparisons
        for system, row in (("teacher", comparison.teacher), ("student", comparison.student))
        if 0 < row.measurement.requests < FEW_REQUESTS
    ]


def as_json(comparisons: Sequence[Comparison], under: Conditions) -> dict[str, Any]:
    """The whole result; `tasks` has, for each task, teacher, student and the two ratios."""
    return {
        "valid": not problems(comparisons),
        "problems": problems(comparisons),
        "remarks": remarks(comparisons),
        "tasks": {
            comparison.task: {
                "teacher": _row_as_json(comparison.teacher),
                "student": _row_as_json(comparison.student),
                "faster": finite(comparison.faster),
                "smaller": finite(comparison.smaller),
            }
            for comparison in comparisons
        },
        "paper": {
            system: {"sentences_per_second": speed, "parameters": round(millions * 1e6)}
            for system, (speed, millions) in PAPER.items()
        },
        "conditions": asdict(under),
    }


def as_markdown(comparisons: Sequence[Comparison], under: Conditions) -> str:
    """Table 7 with a pair of columns for each task, beside the paper's, then latencies and conditions."""
    lines = ["# Speed and size of teacher and student (table 7)", ""]
    if found := problems(comparisons):
        lines += ["**These figures are not valid:**", "", *(f"- {problem}" for problem in found), ""]
    lines += _markdown_table(*table(comparisons))
    lines += ["", "Time of a request in milliseconds:", "", *_markdown_table(*latencies(comparisons)), ""]
    lines += [f"- {remark}" for remark in remarks(comparisons)]
    lines += [f"- {line}" for line in described(comparisons, under)]
    return "\n".join(lines) + "\n"


def as_html(comparisons: Sequence[Comparison], under: Conditions, pages: Sequence[str] = ()) -> str:
    """The same as a page of its own; `pages` are file names of Locust's reports beside it."""
    found = problems(comparisons)
    notes = [*remarks(comparisons), *described(comparisons, under)]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Table 7</title>',
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;border-bottom:1px solid #ccc}"
        "td+td,th+th{text-align:right}.invalid{color:#a00;font-weight:bold}</style>",
        "<h1>Speed and size of teacher and student (table 7)</h1>",
        *(f'<p class="invalid">Not valid: {html.escape(problem)}</p>' for problem in found),
        _html_table(*table(comparisons)),
        "<p>Time of a request in milliseconds:</p>",
        _html_table(*latencies(comparisons)),
        "<ul>",
        *(f"<li>{html.escape(note)}</li>" for note in notes),
        *(f'<li><a href="{html.escape(page)}">{html.escape(page)}</a></li>' for page in pages),
        "</ul></html>",
    ]
    return "\n".join(parts) + "\n"


def table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of table 7: Teacher, Student and their ratio."""
    header, teacher, student, ratios = [""], ["Teacher"], ["Student"], ["Ratio"]
    for comparison in comparisons:
        name = TASKS[comparison.task]
        header += [f"{name}: speed (sentences/second)", f"{name}: # param (M)"]
        teacher += _cells(comparison.teacher)
        student += _cells(comparison.student)
        ratios += [f"{comparison.faster:.1f}× faster", f"{comparison.smaller:.1f}× smaller"]
    (slow, big), (fast, small) = PAPER["teacher"], PAPER["student"]
    header += ["Paper: speed (sentences/second)", "Paper: # param (M)"]
    teacher += [f"{slow:.2f}", f"{big:.2f}"]
    student += [f"{fast:.2f}", f"{small:.2f}"]
    ratios += [f"{fast / slow:.1f}× faster", f"{big / small:.1f}× smaller"]
    return header, [teacher, student, ratios]


def latencies(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the latency table, one row a system."""
    header = ["", "p50", "p95", "p99", "requests/second", "requests", "failed"]
    rows = []
    for comparison in comparisons:
        for system, row in (("teacher", comparison.teacher), ("student", comparison.student)):
            seen = row.measurement
            times = [f"{value:.1f}" if seen.requests else "–" for value in (seen.p50, seen.p95, seen.p99)]
            counts = [f"{seen.requests_per_second:.1f}", str(seen.requests), str(seen.failures)]
            rows.append([f"{TASKS[comparison.task]}, {system}", *times, *counts])
    return header, rows


def described(comparisons: Sequence[Comparison], under: Conditions) -> list[str]:
    """The conditions in words."""
    load, machine = under.load, under.machine
    lines = [
        f"{load.users} users in a closed loop, {load.batch} sentences a request, as {load.input}; "
        f"{load.duration} s each after {load.warm_up} s of warm-up; "
        f"the same requests in the same order for teacher and student",
        f"{under.sentence_count} sentences of {under.mean_tokens:.1f} tokens on average, {under.sentences}",
        f"server: {under.workers} workers with {under.threads} threads, on the machine that Locust runs on: "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"{under.date}; " + ", ".join(f"{name} {number}" for name, number in under.versions.items()),
    ]
    for comparison in comparisons:
        for system, row in (("teacher", comparison.teacher), ("student", comparison.student)):
            lines.append(f"{comparison.task}, {system}: {row.bundle.name}; check: {row.checked}")
    return [*lines, "paper: Wang et al. 2021, table 7 (case 2a, English CoNLL), on its own hardware"]


def ratio(above: float, below: float) -> float:
    """above / below; infinite over zero, and 0 where both are zero."""
    if below:
        return above / below
    return float("inf") if above else 0.0


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 3) if value != float("inf") else None


def _cells(row: Row) -> list[str]:
    return [f"{row.measurement.sentences_per_second:.2f}", f"{row.bundle.parameters / 1e6:.2f}"]


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "bundle": row.bundle.name,
        "folder": str(row.bundle.folder),
        "parameters": row.bundle.parameters,
        "check": row.checked,
        **{
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(row.measurement).items()
        },
    }


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # one of the two runtimes is never there
    return found
