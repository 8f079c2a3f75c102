"""The result as one HTML page: no script, nothing from outside, light and dark, for desk, phone and paper."""

from collections.abc import Iterator, Sequence
from html import escape

from loadtest.figures import goodput_curves, latency_curves, speed_bars
from loadtest.report import TITLE
from loadtest.results import Result
from loadtest.svg import variables
from loadtest.tables import (
    NO_ACCURACY,
    Table,
    closed_loops,
    conditions,
    milliseconds,
    moment,
    open_loops,
    table7,
    times,
)
from loadtest.verdict import REQUIRED, TASKS, Paper, Target, by_task, figures, problems, remarks, task_figures

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NAMES = {
    "http_vs_paper_shape": "faster than the teacher of the paper's size",
    "http_int8_vs_paper_shape": "faster in int8",
    "http_single_vs_paper_shape": "faster, one sentence a request",
    "params_vs_paper_shape": "smaller than the teacher of the paper's size",
    "http_vs_run_teacher": "faster than the run's own teacher",
    "p99_ms_at_half": "p99 at half the capacity, one sentence a request",
}

STYLE = """\
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem;
  color: var(--ink); background: var(--ground);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
p, ul { max-width: 46rem; }
li { margin: .25rem 0; overflow-wrap: anywhere; }
.faint, figcaption, .note { color: var(--faint); }
.alarm { border: 2px solid var(--vermilion); border-radius: .5rem; padding: 0 1rem; margin: 1rem 0; }
.alarm h2 { color: var(--vermilion); margin: .75rem 0 .5rem; }
.glance {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
  gap: .75rem; margin: 1.25rem 0; padding: 0; max-width: none; list-style: none;
}
.glance li { border: 1px solid var(--grid); border-radius: .5rem; padding: .75rem 1rem; margin: 0; }
.glance strong { display: block; font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.glance span { display: block; }
.glance .met { color: var(--green); font-weight: 600; }
.glance .missed { color: var(--vermilion); font-weight: 600; }
.scroll { overflow-x: auto; margin: 1rem 0 .25rem; }
.scroll:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: start; font-weight: 600; font-size: 1rem; padding-bottom: .4rem; }
th, td { padding: .35rem .6rem; text-align: end; border-bottom: 1px solid var(--grid); }
caption span { display: block; position: sticky; left: 0; max-width: min(46rem, calc(100vw - 2rem)); }
thead th { vertical-align: bottom; color: var(--faint); font-weight: 600; line-height: 1.25; }
tr > :first-child { min-width: 8rem; text-align: start; }
tr > :first-child { position: sticky; left: 0; background: var(--ground); }
tbody th { font-weight: 500; }
td { white-space: nowrap; }
details { margin: 1.5rem 0; }
summary { cursor: pointer; font-weight: 600; }
.note { margin: 0 0 1.5rem; font-size: .9rem; }
figure { margin: 1.5rem 0; }
figure svg { display: block; width: 100%; min-width: 38rem; height: auto; }
figcaption { max-width: 46rem; font-size: .9rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, .glance li, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  figure svg { min-width: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .25rem; }
  tr > :first-child { min-width: 0; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""


def as_html(result: Result) -> str:
    """The whole page, a file of its own."""
    body = "\n".join(_body(result))
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(TITLE)}</title>
<style>
{variables()}{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _body(result: Result) -> Iterator[str]:
    here = result.conditions
    quick = ", a quick run: rough figures" if here.quick else ""
    yield f'<header><h1>{escape(TITLE)}</h1><p class="faint">{moment(here.date)}{quick}</p></header>'
    yield "<main>"
    if wrong := problems(result):
        heading = "<h2>These figures are not valid</h2>"
        yield f'<section class="alarm">{heading}{_list(wrong)}</section>'
    yield from _glance(result)
    yield "<section><h2>Speed, size and accuracy</h2>"
    yield from map(_table, table7(result))
    yield from _figure(
        speed_bars(result),
        "Sentences a second with 32 a request, on a logarithmic scale; the paper's bars are hollow. "
        "In brackets: how many times the slowest system of the same group.",
        has_shape=any(not system.has_accuracy for system in result.systems),
    )
    yield "</section>"
    yield "<section><h2>Latency</h2>"
    has_shape = any(system.steps and not system.has_accuracy for system in result.systems)
    yield from _figure(
        latency_curves(result),
        "How long requests take while they arrive at random, from the time at which each was to arrive. "
        "Filled markers are the 99th percentile, hollow ones the median; both scales are logarithmic.",
        has_shape=has_shape,
    )
    yield from _figure(
        goodput_curves(result),
        f"Requests that were answered within the objective ({_objectives(result)}), as a share of those "
        "that were offered.",
        has_shape=has_shape,
    )
    every = "".join(map(_table, (open_loops(result), closed_loops(result))))
    yield f"<details><summary>Every measurement</summary>{every}</details>"
    yield "</section>"
    if said := remarks(result):
        yield f"<section><h2>Remarks</h2>{_list(said)}</section>"
    yield f"<section><h2>Conditions</h2>{_list(conditions(result))}</section>"
    yield "</main>"


def _glance(result: Result) -> Iterator[str]:
    """The ratios in large type, each with the paper's and whether it is what was aimed at."""
    found = figures(result)
    if not found:
        return
    tasks = {task: task_figures(systems) for task, systems in by_task(result).items()}
    worse = "; where there are two tasks, the worse one is shown large" if len(tasks) > 1 else ""
    yield "<section><h2>At a glance</h2>"
    yield f'<p class="faint">The student, behind the same server as the teachers{worse}.</p>'
    yield '<ul class="glance">'
    for key, target in REQUIRED.items():
        if key in found:
            of_tasks = {TASKS[task]: each[key] for task, each in tasks.items() if key in each}
            yield _card(key, target, found[key], of_tasks)
    yield "</ul>"
    if any(not system.has_accuracy for system in result.systems):
        yield f'<p class="note">{escape(NO_ACCURACY)}</p>'
    yield "</section>"


def _card(key: str, target: Target, figure: float, of_tasks: dict[str, float]) -> str:
    paper = Paper()
    papers = {
        "http_vs_paper_shape": [f"the paper {times(paper.faster)}"],
        "params_vs_paper_shape": [f"the paper {times(paper.smaller)}"],
    }
    met = target.met(figure)
    aim = (
        f"{'at least' if target.at_least else 'at most'} {target.value:g}{'×' if target.at_least else ' ms'}"
    )
    beside = [f"{task.lower()} {_shown(target, value)}" for task, value in of_tasks.items()]
    beside += papers.get(key, [])
    lines = [
        f"<strong>{_shown(target, figure)}</strong>",
        f"<span>{escape(NAMES[key])}</span>",
        f'<span class="faint">{escape("; ".join(beside))}</span>',
        f'<span class="{"met" if met else "missed"}">{"met" if met else "not met"}: {aim}</span>',
    ]
    return f"<li>{''.join(lines)}</li>"


def _shown(target: Target, figure: float) -> str:
    return times(figure) if target.at_least else f"{milliseconds(figure)} ms"


def _table(table: Table) -> str:
    """A table that scrolls in its own box, which the keyboard can reach."""
    if not table.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns[1:])
    corner = f'<th scope="col">{escape(table.columns[0])}</th>' if table.columns[0] else "<td></td>"
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(table.caption)}" tabindex="0"><table>'
        f"<caption><span>{escape(table.caption)}</span></caption><thead><tr>{corner}{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _figure(svg: str, caption: str, *, has_shape: bool) -> Iterator[str]:
    if svg:
        note = f" {NO_ACCURACY}" if has_shape else ""
        yield (
            f'<figure><div class="scroll" role="region" aria-label="Figure" tabindex="0">{svg}</div>'
            f"<figcaption>{escape(caption + note)}</figcaption></figure>"
        )


def _objectives(result: Result) -> str:
    found = {(step.sentences_a_request, step.objective_ms) for each in result.systems for step in each.steps}
    return ", ".join(
        f"{objective:g} ms with {'1 sentence' if size == 1 else f'{size} sentences'}"
        for size, objective in sorted(found)
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
