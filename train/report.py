"""The closing table of a run: teacher, student alone, students distilled."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

MAIN_METRICS = {"ner": ("f1",), "parse": ("uas", "las")}


def gap_recovered(teacher: float, alone: float, distilled: float) -> float | None:
    """The share of the teacher–student gap that distillation closes; None where there is no gap."""
    return (distilled - alone) / (teacher - alone) if teacher > alone else None


def results_table(rows: Sequence[dict[str, Any]], split: str = "test") -> str:
    """Rows of ``results.jsonl`` as a Markdown table: means over seeds, with the standard deviation."""
    values: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["split"] == split:
            key = (row["task"], row["system"], row["case"], row["objective"])
            values[key][row["metric"]].append(row["value"])
    lines = [
        "| task | system | case | objective | test score | gap recovered | sentences/s (torch) | "
        "parameters (M) | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (task, system, case, objective), metrics in sorted(values.items(), key=_order):
        scores = ", ".join(f"{m.upper()} {_spread(metrics[m])}" for m in MAIN_METRICS[task])
        chosen = MAIN_METRICS[task][-1]
        share = None
        alone = values.get((task, "student", case, "none"))
        teachers = [m for (t, s, _, _), m in values.items() if (t, s) == (task, "teacher")]
        if system == "student" and objective != "none" and alone and teachers:
            share = gap_recovered(mean(teachers[0][chosen]), mean(alone[chosen]), mean(metrics[chosen]))
        recovered = "" if share is None else f"{100 * share:.0f} %"
        name = "" if system == "teacher" else objective
        shown = "" if system == "teacher" else case
        lines.append(
            f"| {task} | {system} | {shown} | {name} | {scores} | {recovered} | "
            f"{mean(metrics['sent_per_s']):.0f} | {metrics['params'][0] / 1e6:.2f} | {len(metrics[chosen])} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _order(item: tuple[tuple[str, str, str, str], Any]) -> tuple[Any, ...]:
    task, system, case, objective = item[0]
    return task, system != "teacher", case, objective != "none", objective
