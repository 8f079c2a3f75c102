"""Scores against the amount of unlabelled sentences: the paper's figure 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.plan import Curve, Study
from benchmarks.studies.rows import Results
from benchmarks.studies.runs import StudyRun
from benchmarks.studies.selection import select
from benchmarks.studies.significance import (
    ModelScores,
    differences,
    interval,
    over_shared_seeds,
    shared_seeds,
)
from benchmarks.studies.tables import FEWEST_SEEDS, StoredScores
from loadtest.figure import as_svg
from structural_kd.files import write_whole
from train.tasks import TASKS


@dataclass(frozen=True)
class FilledCurve:
    """One panel: scores by line and amount, and how the difference of two lines changes."""

    curve: Curve
    lines: Mapping[str, Mapping[int, ModelScores]]
    levels: Mapping[str, ModelScores]

    def gain(self, amount: int) -> float | None:
        """Ours less theirs at an amount, in points, over the seeds that both have; None if there are none."""
        sides = self._sides(amount)
        shared = over_shared_seeds(*sides) if len(sides) == 2 else None
        return shared[0].mean - shared[1].mean if shared else None

    @property
    def change(self) -> tuple[float, tuple[float, float]] | None:
        """By how much the gain is larger at the largest amount than at the smallest, with its interval.

        Over the seeds that all four have; None where they are fewer than three.
        """
        sides = [*self._sides(self.curve.amounts[0]), *self._sides(self.curve.amounts[-1])]
        seeds = shared_seeds(sides)
        if len(sides) < 4 or len(seeds) < FEWEST_SEEDS:
            return None
        less, than, more, over = (side.of(seeds) for side in sides)
        change = more.mean - over.mean - less.mean + than.mean
        return change, interval(differences(more, over) - differences(less, than))

    def _sides(self, amount: int) -> list[ModelScores]:
        """The scores of ours and of theirs at an amount, as far as they are stored."""
        cells = [self.lines[name].get(amount) for name in (self.curve.ours, self.curve.theirs)]
        return [cell for cell in cells if cell is not None]


def fill_curves(study: Study, runs: Mapping[str, StudyRun], results: Results) -> list[FilledCurve]:
    """Every panel with the scores that are stored."""
    stored = StoredScores(runs, results)
    filled = []
    for curve in study.figure:
        lines: dict[str, dict[int, ModelScores]] = {name: {} for name in curve.lines}
        levels: dict[str, ModelScores] = {}
        for name, amount, query in curve.queries():
            cell = stored.find(select(query, runs))
            if cell is not None and amount is not None:
                lines[name][amount] = cell
            elif cell is not None:
                levels[name] = cell
        filled.append(FilledCurve(curve, lines, levels))
    return filled


def draw(curves: Sequence[FilledCurve], file: Path) -> None:
    """The panels side by side, as SVG: mean over the seeds, and the standard deviation as a bar."""
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(curves), 3.4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    names = dict.fromkeys(name for filled in curves for name in filled.lines)
    styles = {name: ("os^Dv*"[i % 6], f"C{i % 10}") for i, name in enumerate(names)}
    handles: dict[str, Artist] = {}
    for axis, filled in zip(panels, curves, strict=True):
        axis.set_title(filled.curve.title, fontsize=9)
        for name, cells in filled.lines.items():
            marker, colour = styles[name]
            axis.errorbar(
                [amount / 1000 for amount in cells],
                [cell.mean for cell in cells.values()],
                yerr=[cell.spread or 0 for cell in cells.values()],
                marker=marker, color=colour, markersize=4, linewidth=1, capsize=2, label=name,
            )  # fmt: skip
        for name, cell in filled.levels.items():
            style = ":" if name != "teacher" else "--"
            axis.axhline(cell.mean, linestyle=style, color="0.4", linewidth=1, label=name)
        axis.set_xlabel("unlabelled sentences (thousand)")
        tasks = {cell.task for line in filled.lines.values() for cell in line.values()}
        axis.set_ylabel(", ".join(sorted(TASKS[task].metric.upper() for task in tasks)))
        axis.grid(color="0.92")
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncol=len(handles))
    write_whole(file, as_svg(figure))
