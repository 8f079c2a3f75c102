"""The report of a study: its tables beside the paper's, its figure, and the verdict on each claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from benchmarks.studies.curves import FilledCurve, draw, fill_curves
from benchmarks.studies.plan import Study
from benchmarks.studies.rows import Results, is_current
from benchmarks.studies.runs import StudyRun
from benchmarks.studies.significance import DOMINATES, Epsilons, ModelScores, aso_epsilons, interval
from benchmarks.studies.tables import (
    FEWEST_SEEDS,
    Difference,
    FilledTable,
    differences_of,
    fill_tables,
    pooled,
    recovered,
)
from structural_kd.files import write_whole

VERDICTS = {"better": "holds", "worse": "does not hold", "open": "can't be told here"}


def write_report(file: Path, study: Study, runs: Mapping[str, StudyRun], results: Results) -> list[Path]:
    """Draw the report and its figure beside the study's file, from its stored rows alone.

    Returns the files written.
    """
    tables = fill_tables(study, runs, results)
    curves = fill_curves(study, runs, results)
    claims = {claim: pooled(claim, tables) for claim in study.claims}
    differences = [d for table in tables for d in table.differences] + [d for d in claims.values() if d]
    orders = [d.order for d in differences]
    epsilons = aso_epsilons([*(d.scores for d in differences), *(order for order in orders if order)])
    written = [file.with_name(study.report or f"{file.stem}.md")]
    parts = [*_head(file, study, runs, results, tables), *_claims(study, tables, claims, epsilons)]
    if any(curve.lines[curve.curve.ours] for curve in curves):
        written.append(written[0].with_suffix(".svg"))
        draw(curves, written[-1])
        parts += _figure(curves, written[-1].name)
    for table in tables:
        parts += _table(table, epsilons)
    parts += ["## Sources", "The rows of each cell in `results.jsonl`, and the test score of each seed."]
    parts.append(sources(tables))
    write_whole(written[0], "\n\n".join(parts) + "\n")
    return written


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def _head(
    file: Path, study: Study, runs: Mapping[str, StudyRun], results: Results, tables: Sequence[FilledTable]
) -> list[str]:
    cells = [cell for table in tables for row in table.cells.values() for cell in row.values()]
    empty = sum(cell is None for cell in cells)
    fewer = sum(
        cell is not None and not cell.is_teacher and len(cell.values) < len(study.seeds) for cell in cells
    )
    hours = dict.fromkeys(("teacher", "student"), 0.0)
    for row in results.rows:
        if row["metric"] == "seconds" and is_current(row, runs):
            hours[row["system"]] += row["value"] / 3600
    parts = [
        f"# {study.title or file.stem}",
        f"Drawn by `python -m benchmarks.studies {file} --report` from [results.jsonl](results.jsonl) and "
        "[counts.jsonl](counts.jsonl); the numbers are theirs, the words are those of the study's file.",
        study.about.strip(),
        f"Training took {hours['student']:.1f} hours of one core for the students and "
        f"{hours['teacher']:.1f} for the teachers and their targets. The time of a job that was stopped is "
        "counted from its last start.",
    ]
    if empty or fewer:
        parts.append(
            f"**Not finished:** {empty} of {len(cells)} cells have no rows yet, and {fewer} have fewer than "
            f"{len(study.seeds)} seeds."
        )
    return parts


def _claims(
    study: Study,
    tables: Sequence[FilledTable],
    claims: Mapping[str, Difference | None],
    epsilons: Epsilons,
) -> list[str]:
    """A row a claim: the mean of its differences, and in how many of them ours is better or worse."""
    verdicts = {claim: VERDICTS[mean.verdict(epsilons)] for claim, mean in claims.items() if mean is not None}
    tally = Counter(verdicts.values())
    rows = []
    for claim, text in study.claims.items():
        mean = claims[claim]
        if mean is None:
            rows.append([text, "no rows yet, or no seed that all have", *[""] * 5])
            continue
        found = differences_of(claim, tables)
        each = Counter(d.verdict(epsilons) for d in found)
        counts = " / ".join(str(each[verdict]) for verdict in ("better", "open", "worse"))
        rows.append([text, f"**{verdicts[claim]}**", *_measured(mean, epsilons), _papers_mean(found), counts])
    headers = ["claim", "verdict", "mean difference", "95 % interval", "ε", "the paper's"]
    return [
        "## Claims",
        " · ".join(f"**{verdict}: {tally[verdict]}**" for verdict in VERDICTS.values()),
        "A claim's mean difference is the mean over all cells that it is about, with equal weights, over "
        "the seeds that all of them have. A claim *holds* if the 95 % interval lies above zero and ε is "
        f"below {DOMINATES}. It *does not hold* if the interval lies below zero and the ε of the opposite "
        f"order is below {DOMINATES}. Otherwise it *can't be told here*: that does not refute it, and its "
        "interval may contain the paper's gain. A teacher is trained once and has no ε: for a teacher "
        "against students, or against the modes of its own marginals, the interval alone decides, and two "
        f"teachers are never called different. Students with fewer than {FEWEST_SEEDS} seeds decide "
        "nothing. The intervals are about other seeds of the students and other test sentences, not about "
        "other teachers, labelled sentences or word vectors. Neither intervals nor ε are corrected for "
        "the number of comparisons. *The paper's* is the mean over the cells for which the paper has "
        "numbers; if some are missing, our mean over the same cells stands beside it.",
        _markdown([*headers, "better / open / worse"], rows),
    ]


def _papers_mean(cells: Sequence[Difference]) -> str:
    """The paper's mean over the cells that it has; if these are not all, how many, and ours of the same."""
    both = [(d.value, d.paper) for d in cells if d.paper is not None]
    if not both:
        return ""
    ours, theirs = (fmean(values) for values in zip(*both, strict=True))
    if len(both) == len(cells):
        return f"{theirs:+.2f}"
    return f"{theirs:+.2f} ({len(both)} of {len(cells)} cells; ours of them {ours:+.2f})"


def _figure(curves: Sequence[FilledCurve], picture: str) -> list[str]:
    """The picture, and how the difference of two of its lines changes with the amount."""
    rows = []
    for filled in curves:
        curve = filled.curve
        gains = [(amount, filled.gain(amount)) for amount in curve.amounts]
        listed = ", ".join(f"{amount:,}: {gain:+.2f}" for amount, gain in gains if gain is not None)
        moved, verdict = "", "open"
        if filled.change is not None:
            change, (low, high) = filled.change
            moved = f"{change:+.2f} ({low:+.2f} to {high:+.2f})"
            verdict = "shrinks" if high < 0 else "grows" if low > 0 else "open"
        rows.append([curve.title, f"{curve.ours} − {curve.theirs}: {listed}", moved, verdict, curve.paper])
    return [
        "## Figure 1: the amount of unlabelled sentences",
        f"![Score against the amount of unlabelled sentences]({picture})",
        "Means over the seeds; bars are standard deviations. *Change* is the gain at the largest amount "
        "minus the gain at the smallest, over the seeds that all four scores have, with its 95 % interval.",
        _markdown(["panel", "gain at each amount", "change", "", "the paper's gain"], rows),
    ]


def _table(filled: FilledTable, epsilons: Epsilons) -> list[str]:
    columns = list(filled.table.columns)
    rows = []
    for row in filled.table.rows:
        cells = filled.cells[row.label]
        scores = [
            _score(cells.get(column), recovered(cells, column), filled.table.digits) for column in columns
        ]
        rows.append([row.label, *scores])
        if row.paper:
            values = row.paper.values
            scores = [f"*{values[column]:.2f}*" if column in values else "" for column in columns]
            rows.append([f"*the paper: {row.paper.of}*", *scores])
    parts = [f"## {filled.table.title}", filled.table.note.strip(), _markdown(["", *columns], rows)]
    if filled.differences:
        headers = ["", "difference", "points", "95 % interval", "ε", "", "the paper's"]
        compared = [
            [
                d.label,
                f"{d.comparison.ours} − {d.comparison.theirs}",
                *_measured(d, epsilons),
                d.verdict(epsilons),
                "" if d.paper is None else f"{d.paper:+.2f}",
            ]
            for d in filled.differences
        ]
        parts.append(_markdown(headers, compared))
    return [part for part in parts if part]


def _score(cell: ModelScores | None, share: float | None, digits: int) -> str:
    if cell is None:
        return ""
    spread = "" if cell.spread is None else f" ± {cell.spread:.{digits}f}"
    gap = "" if share is None else f" ({round(100 * share)} %)"
    return f"{cell.mean:.{digits}f}{spread}{gap}"


def _measured(found: Difference, epsilons: Epsilons) -> list[str]:
    """A difference, its interval and its ε."""
    low, high = interval(found.draws)
    epsilon = epsilons[found.scores]
    return [
        f"{found.value:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        "" if epsilon is None else f"{epsilon:.2f}",
    ]


def sources(tables: Sequence[FilledTable]) -> str:
    """A table of where each cell comes from: the keys of its rows, and the score of each seed."""
    shorts = Counter(filled.table.title.partition(":")[0] for filled in tables)
    rows = []
    for filled in tables:
        short = filled.table.title.partition(":")[0]
        title = short if shorts[short] == 1 else filled.table.title
        for label, cells in filled.cells.items():
            for column, cell in cells.items():
                if cell is not None:
                    scores = ", ".join(f"{value:.{filled.table.digits}f}" for value in cell.values)
                    rows.append([title, f"{label}: {column}", f"`{cell.run}`", cell.model, scores])
    return _markdown(["table", "cell", "run", "student, objective", "scores"], rows)
