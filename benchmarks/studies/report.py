"""The report of a study: its tables beside the paper's, its figure, and what became of each claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.studies.curves import FilledCurve, draw, fill_curves
from benchmarks.studies.plan import Run, Study
from benchmarks.studies.rows import Results, is_current
from benchmarks.studies.significance import DOMINATES, Pair, aso_epsilons, interval
from benchmarks.studies.tables import (
    FEWEST_SEEDS,
    Cell,
    Difference,
    FilledTable,
    bearing_on,
    fill,
    pooled,
    recovered,
)
from structural_kd.files import write_whole

VERDICTS = {"better": "holds", "worse": "does not hold", "open": "can't be told here"}

Epsilons = Mapping[Pair, float | None]


def write_report(file: Path, study: Study, runs: Mapping[str, Run], results: Results) -> list[Path]:
    """Draw the report and its figure beside the study's file, from its stored rows alone.

    Returns the files written.
    """
    tables = fill(study, runs, results)
    curves = fill_curves(study, runs, results)
    claims = {claim: pooled(claim, tables) for claim in study.claims}
    differences = [d for table in tables for d in table.differences] + [d for d in claims.values() if d]
    orders = [d.order for d in differences]
    epsilons = aso_epsilons([*(d.scores for d in differences), *(order for order in orders if order)])
    written = [file.with_name(study.report or f"{file.stem}.md")]
    parts = [_head(file, study, runs, results, tables), _claims(study, tables, claims, epsilons)]
    if any(curve.lines[curve.curve.ours] for curve in curves):
        written.append(written[0].with_suffix(".svg"))
        draw(curves, written[-1])
        parts.append(_figure(curves, written[-1].name))
    parts += [_table(table, epsilons) for table in tables]
    parts.append(where_cells_come_from(tables))
    write_whole(written[0], "\n\n".join(parts) + "\n")
    return written


def _head(
    file: Path, study: Study, runs: Mapping[str, Run], results: Results, tables: Sequence[FilledTable]
) -> str:
    cells = [cell for table in tables for row in table.rows for cell in row.cells.values()]
    empty = sum(cell is None for cell in cells)
    students = [cell for cell in cells if cell is not None and not cell.scored.is_teacher]
    fewer = sum(len(cell.scored.values) < len(study.seeds) for cell in students)
    seconds = dict.fromkeys(("teacher", "student"), 0.0)
    for row in results.rows:
        if row["metric"] == "seconds" and is_current(row, runs):
            seconds[row["system"]] += row["value"]
    lines = [
        f"# {study.title or file.stem}",
        f"Drawn by `python -m benchmarks.studies {file} --report` from [results.jsonl](results.jsonl) and "
        "[counts.jsonl](counts.jsonl); nothing in it is typed but what the study's file says.",
        study.about.strip(),
        f"Training took {seconds['student'] / 3600:.1f} hours of one core for the students and "
        f"{seconds['teacher'] / 3600:.1f} for the teachers and their targets (a job that was stopped counts "
        "from where it went on).",
    ]
    if empty or fewer:
        lines.append(
            f"**Not finished:** {empty} of {len(cells)} cells have no rows yet, and {fewer} have fewer than "
            f"{len(study.seeds)} seeds."
        )
    return "\n\n".join(lines)


def _claims(
    study: Study,
    tables: Sequence[FilledTable],
    claims: Mapping[str, Difference | None],
    epsilons: Epsilons,
) -> str:
    """A line a claim: the mean of its differences, and in how many of them ours is better or worse."""
    found = {claim: VERDICTS[mean.verdict(epsilons)] for claim, mean in claims.items() if mean is not None}
    tally = Counter(found.values())
    lines = [
        "## Claims",
        "",
        " · ".join(f"**{said}: {tally[said]}**" for said in VERDICTS.values()),
        "",
        "Of each claim the differences of all its cells are averaged, each counting the same, over the seeds "
        f"that all have. It *holds* where the 95 % interval lies above zero and ε is below {DOMINATES}; it "
        "*does not hold* where the opposite shows as clearly, the interval below zero and the ε of the other "
        f"order below {DOMINATES}; otherwise it *can't be told here*. An open claim is not refuted: its "
        "interval may contain the paper's gain. A teacher is trained once and has no ε: against students, "
        "and against its own modes, the interval decides alone, and two teachers are never told apart. "
        f"Fewer than {FEWEST_SEEDS} seeds tell nothing. Intervals are of other seeds of the students and "
        "other test sentences, not of other teachers, labelled sentences or word vectors; neither they nor ε "
        "are corrected for the number of comparisons. *The paper's* is the mean of the cells that it has; "
        "where it has not all of them, our mean of the same cells stands beside it.",
        "",
        "| claim | verdict | mean difference | 95 % interval | ε | the paper's | better / open / worse |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim, text in study.claims.items():
        mean = claims[claim]
        if mean is None:
            lines.append(f"| {text} | no rows yet, or no seed that all have | | | | | |")
            continue
        cells = bearing_on(claim, tables)
        said = [d.verdict(epsilons) for d in cells]
        each = " / ".join(str(said.count(one)) for one in ("better", "open", "worse"))
        lines.append(
            f"| {text} | **{found[claim]}** | {_points(mean, epsilons)} | {_papers(cells)} | {each} |"
        )
    return "\n".join(lines)


def _papers(cells: Sequence[Difference]) -> str:
    """The paper's mean of the cells that it has; if these are not all, how many, and ours of the same."""
    both = [(d.value, d.paper) for d in cells if d.paper is not None]
    if not both:
        return ""
    ours, theirs = (fmean(values) for values in zip(*both, strict=True))
    beside = (
        "" if len(both) == len(cells) else f" ({len(both)} of {len(cells)} cells; ours of them {ours:+.2f})"
    )
    return f"{theirs:+.2f}{beside}"


def _figure(curves: Sequence[FilledCurve], picture: str) -> str:
    """The picture, and how the difference of two of its lines changes with the amount."""
    lines = [
        "## Figure 1: the amount of unlabelled sentences",
        "",
        f"![Score against the amount of unlabelled sentences]({picture})",
        "",
        "Means over the seeds, bars are standard deviations. *Change* is the gain at the largest amount less "
        "that at the smallest, over the seeds that all four have, with its 95 % interval.",
        "",
        "| panel | gain at each amount | change | | the paper's gain |",
        "|---|---|---|---|---|",
    ]
    for filled in curves:
        curve = filled.curve
        gains = [(amount, filled.gain(amount)) for amount in curve.amounts]
        told = ", ".join(f"{amount:,}: {gain:+.2f}" for amount, gain in gains if gain is not None)
        cells = f"{curve.ours} − {curve.theirs}: {told}"
        if filled.change is None:
            lines.append(f"| {curve.title} | {cells} | | open | {curve.paper} |")
            continue
        change, (low, high) = filled.change
        said = "shrinks" if high < 0 else "grows" if low > 0 else "open"
        moved = f"{change:+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(f"| {curve.title} | {cells} | {moved} | {said} | {curve.paper} |")
    return "\n".join(lines)


def _table(filled: FilledTable, epsilons: Epsilons) -> str:
    columns = list(filled.table.columns)
    lines = [f"## {filled.table.title}", ""]
    if filled.table.note:
        lines += [filled.table.note.strip(), ""]
    lines += ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in filled.rows:
        shown = [
            _score(row.cells.get(column), recovered(row, column), filled.table.digits) for column in columns
        ]
        lines.append(f"| {row.row.label} | " + " | ".join(shown) + " |")
        if row.row.paper:
            said = row.row.paper.values
            texts = [f"*{said[column]:.2f}*" if column in said else "" for column in columns]
            lines.append(f"| *the paper: {row.row.paper.of}* | " + " | ".join(texts) + " |")
    if filled.differences:
        lines += [
            "",
            "| | difference | points | 95 % interval | ε | | the paper's |",
            "|---|---|---|---|---|---|---|",
            *(_difference(found, epsilons) for found in filled.differences),
        ]
    return "\n".join(lines)


def _score(cell: Cell | None, share: float | None, digits: int) -> str:
    if cell is None:
        return ""
    spread = "" if cell.spread is None else f" ± {cell.spread:.{digits}f}"
    gap = "" if share is None else f" ({round(100 * share)} %)"
    return f"{cell.mean:.{digits}f}{spread}{gap}"


def _difference(found: Difference, epsilons: Epsilons) -> str:
    said = found.verdict(epsilons)
    pair = f"{found.comparison.ours} − {found.comparison.theirs}"
    return f"| {found.label} | {pair} | {_points(found, epsilons)} | {said} | {_signed(found.paper)} |"


def _signed(points: float | None) -> str:
    return "" if points is None else f"{points:+.2f}"


def _points(found: Difference, epsilons: Epsilons) -> str:
    """A difference with its interval and ε, as three cells."""
    low, high = interval(found.draws)
    epsilon = epsilons[found.scores]
    told = "" if epsilon is None else f"{epsilon:.2f}"
    return f"{found.value:+.2f} | {low:+.2f} to {high:+.2f} | {told}"


def where_cells_come_from(tables: Sequence[FilledTable]) -> str:
    """Where each cell comes from: the keys of its rows, and the score of each seed."""
    lines = [
        "## Where each cell comes from",
        "",
        "The keys of its rows in `results.jsonl`, and the test score of each seed.",
        "",
        "| table | cell | run | student, objective | scores |",
        "|---|---|---|---|---|",
    ]
    shorts = Counter(filled.table.title.partition(":")[0] for filled in tables)
    for filled in tables:
        short = filled.table.title.partition(":")[0]
        short, digits = short if shorts[short] == 1 else filled.table.title, filled.table.digits
        for row in filled.rows:
            for column, cell in row.cells.items():
                if cell is not None:
                    scores = ", ".join(f"{value:.{digits}f}" for value in cell.scored.values)
                    lines.append(
                        f"| {short} | {row.row.label}: {column} | `{cell.run}` | {cell.what} | {scores} |"
                    )
    return "\n".join(lines)
