"""The closing table of a run: teacher, student alone, students distilled."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from train.evaluation import AGREEMENT, UNSEEN
from train.results import GAP, KEPT, gap_recovered
from train.tasks import TASKS

Values = Mapping[str, Sequence[float]]
"""The values of a system by metric, one a seed."""

HEADERS = (
    *("task", "system", "case", "score", "kept %", "gap %", "agreement", "unseen"),
    *("sent/s", "size (M)", "seeds"),
)

LEGEND = """\
- alone: the student without a teacher (objective none); below it the students of each other objective;
- kept: the score in percent of the teacher's; gap: how much of the way from the student alone to the teacher
  distillation has come;
- agreement: F1 or LAS with the teacher's predictions in the place of gold; unseen: F1 of the entities with a
  word, or LAS of the words, that the students' training text never had;
- sent/s: sentences a second in torch on this machine, to compare the rows by; size: weights in millions,
  word vectors and encoder included."""


def results_table(rows: Sequence[dict[str, Any]], split: str = "test") -> str:
    """Rows of ``results.jsonl`` as a Markdown table: means over seeds, with the standard deviation.

    The gap is that of the means; its standard deviation is that of the seeds' own.
    """
    values: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["split"] == split:
            key = (row["task"], row["system"], row["case"], row["objective"])
            values[key][row["metric"]].append(row["value"])
    lines = []
    for (task, system, case, objective), metrics in sorted(values.items(), key=_order):
        main = TASKS[task].metric
        recovered = None
        alone = values.get((task, "student", case, "none"), {}).get(main)
        teacher = next(
            (m.get(main) for (t, s, _, _), m in values.items() if (t, s) == (task, "teacher")), None
        )
        if system == "student" and objective != "none" and alone and teacher and main in metrics:
            recovered = gap_recovered(mean(teacher), mean(alone), mean(metrics[main]))
        is_teacher = system == "teacher"
        lines.append(
            [
                task,
                system if is_teacher else {"none": "alone"}.get(objective, objective),
                "" if is_teacher and case != "token" else case,
                f"{main.upper()} {_spread(metrics, main, 2)}" if main in metrics else "",
                _spread(metrics, KEPT),
                "" if recovered is None else f"{100 * recovered:.0f}{_deviation(metrics, GAP, 0)}",
                _spread(metrics, AGREEMENT),
                _spread(metrics, UNSEEN + main),
                _mean(metrics, "sent_per_s", 1, 0),
                _mean(metrics, "params", 1e6, 2),
                max(len(found) for found in metrics.values()),
            ]
        )
    return tabulate(lines, HEADERS, tablefmt="pipe", disable_numparse=True)


def _mean(metrics: Values, name: str, unit: float, digits: int) -> str:
    return f"{mean(metrics[name]) / unit:.{digits}f}" if name in metrics else ""


def _spread(metrics: Values, name: str, digits: int = 1) -> str:
    return _mean(metrics, name, 1, digits) + _deviation(metrics, name, digits)


def _deviation(metrics: Values, name: str, digits: int) -> str:
    found = metrics.get(name, ())
    return f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""


def _order(item: tuple[tuple[str, str, str, str], Any]) -> tuple[Any, ...]:
    task, system, case, objective = item[0]
    return task, system != "teacher", case, objective != "none", objective
