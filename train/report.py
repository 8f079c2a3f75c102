"""The closing table of a run: teacher, student alone, students distilled."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

MAIN_METRICS = {"ner": ("f1", "agreement"), "parse": ("uas", "las", "agreement")}
"""What the table shows of a task, as far as it was measured; the last one measured is what gaps are of."""

HEADERS = (
    *("task", "system", "case", "objective", "test score", "gap recovered"),
    *("sentences/s (torch)", "parameters (M)", "seeds"),
)


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
    lines = []
    for (task, system, case, objective), metrics in sorted(values.items(), key=_order):
        measured = [metric for metric in MAIN_METRICS[task] if metric in metrics]
        recovered = None
        alone = values.get((task, "student", case, "none"))
        teacher = next((m for (t, s, _, _), m in values.items() if (t, s) == (task, "teacher")), None)
        if system == "student" and objective != "none" and alone and teacher and measured:
            recovered = gap_recovered(*(mean(found[measured[-1]]) for found in (teacher, alone, metrics)))
        is_teacher = system == "teacher"
        lines.append(
            [
                task,
                system,
                "" if is_teacher and case != "token" else case,
                "" if is_teacher else objective,
                ", ".join(f"{_title(metric)} {_spread(metrics[metric])}" for metric in measured),
                "" if recovered is None else f"{100 * recovered:.0f} %",
                _mean(metrics, "sent_per_s", 1, 0),
                _mean(metrics, "params", 1e6, 2),
                max(len(found) for found in metrics.values()),
            ]
        )
    return tabulate(lines, HEADERS, tablefmt="pipe", disable_numparse=True)


def _title(metric: str) -> str:
    return metric if metric == "agreement" else metric.upper()


def _mean(metrics: dict[str, list[float]], name: str, unit: float, digits: int) -> str:
    return f"{mean(metrics[name]) / unit:.{digits}f}" if name in metrics else ""


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _order(item: tuple[tuple[str, str, str, str], Any]) -> tuple[Any, ...]:
    task, system, case, objective = item[0]
    return task, system != "teacher", case, objective != "none", objective
