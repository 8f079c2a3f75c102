"""The result as JSON and as Markdown, in the form of the paper's table 7."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loadtest.results import Result
from loadtest.tables import Table, closed_loops, conditions, headline, open_loops, table7
from loadtest.verdict import REQUIRED, Paper, by_task, figures, problems, remarks, task_figures

TITLE = "Speed and size of teacher and student (table 7)"


def as_json(result: Result) -> dict[str, Any]:
    """Everything: the figures at the top level, then how they were judged, then every measurement."""
    found, paper = figures(result), Paper()
    return {
        **found,
        "valid": not problems(result),
        "problems": problems(result),
        "remarks": remarks(result),
        "required": {
            key: {
                "meaning": target.meaning,
                "at_least" if target.at_least else "at_most": target.value,
                "figure": found.get(key),
                "met": target.met(found[key]) if key in found else None,
            }
            for key, target in REQUIRED.items()
        },
        "tasks": {task: task_figures(systems) for task, systems in by_task(result).items()},
        "paper": {**asdict(paper), "faster": paper.faster, "smaller": paper.smaller},
        "conditions": asdict(result.conditions),
        "systems": [asdict(system) for system in result.systems],
        "skipped": list(result.skipped),
    }


def as_markdown(result: Result) -> str:
    """Problems first, then the ratios, table 7, latencies and conditions."""
    lines = [f"# {TITLE}", ""]
    if wrong := problems(result):
        lines += ["**These figures are not valid:**", "", *(f"- {each}" for each in wrong), ""]
    for table in (headline(result), *table7(result), closed_loops(result), open_loops(result)):
        if table.rows:
            lines += _table(table)
    if said := remarks(result):
        lines += ["Remarks:", "", *(f"- {each}" for each in said), ""]
    lines += ["Conditions:", "", *(f"- {each}" for each in conditions(result))]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    rule = ["---", *("---:" for _ in table.columns[1:])]
    note = [table.note, ""] if table.note else []
    return [f"**{table.caption}**", "", *map(_row, (table.columns, rule, *table.rows)), "", *note]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
