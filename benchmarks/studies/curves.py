"""Scores against the amount of unlabelled sentences: the paper's figure 1."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.studies.plan import Curve, Run, Study
from benchmarks.studies.rows import Results
from benchmarks.studies.significance import Scored, differences, interval, over_shared_seeds, shared_seeds
from benchmarks.studies.tables import FEWEST_SEEDS, Cell, Cells
from structural_kd.files import write_whole
from train.tasks import TASKS


@dataclass(frozen=True)
class FilledCurve:
    """One panel: cells by line and amount, and how the difference of two lines changes."""

    curve: Curve
    lines: Mapping[str, Mapping[int, Cell]]
    levels: Mapping[str, Cell]

    def gain(self, amount: int) -> float | None:
        """Ours less theirs at an amount, in points, over the seeds that both have; None if there are none."""
        sides = self._sides(amount)
        shared = over_shared_seeds(*sides) if len(sides) == 2 else None
        return mean(shared[0].values) - mean(shared[1].values) if shared else None

    @property
    def change(self) -> tuple[float, tuple[float, float]] | None:
        """By how much the gain is larger at the largest amount than at the smallest, with its interval.

        Over the seeds that all four have; None where they are too few to tell anything.
        """
        sides = [*self._sides(self.curve.amounts[0]), *self._sides(self.curve.amounts[-1])]
        seeds = shared_seeds(sides)
        if len(sides) < 4 or len(seeds) < FEWEST_SEEDS:
            return None
        less, than, more, over = (side.of(seeds) for side in sides)
        change = mean(more.values) - mean(over.values) - mean(less.values) + mean(than.values)
        return change, interval(differences(more, over) - differences(less, than))

    def _sides(self, amount: int) -> list[Scored]:
        """The scores of ours and of theirs at an amount, as far as they are stored."""
        cells = [self.lines[name].get(amount) for name in (self.curve.ours, self.curve.theirs)]
        return [cell.scored for cell in cells if cell is not None]


def fill_curves(study: Study, runs: Mapping[str, Run], results: Results) -> list[FilledCurve]:
    """Every panel with the cells that are stored."""
    cells = Cells(runs, results)
    filled = []
    for curve in study.figure:
        lines: dict[str, dict[int, Cell]] = {name: {} for name in curve.lines}
        levels: dict[str, Cell] = {}
        for name, amount, query in curve.queries():
            cell = cells.find(f"figure: {curve.title}", query)
            if cell is not None and amount is not None:
                lines[name][amount] = cell
            elif cell is not None:
                levels[name] = cell
        filled.append(FilledCurve(curve, lines, levels))
    return filled


def draw(curves: Sequence[FilledCurve], file: Path) -> None:
    """The panels side by side, as SVG: mean over the seeds, and the standard deviation as a bar."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.artist import Artist

    across = len(curves) if len(curves) <= 4 else 3
    down = -(-len(curves) // across)
    picture, axes = pyplot.subplots(down, across, figsize=(3.3 * across, 3.1 * down), squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    styles = {name: ("os^Dv*"[i % 6], f"C{i % 10}") for i, name in enumerate(_names(curves))}
    for axis, filled in zip(axes.flat, curves, strict=False):
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
        axis.set_ylabel(_metric(filled))
        axis.grid(color="0.92")
    seen: dict[str, Artist] = {}
    for axis in axes.flat[: len(curves)]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    picture.legend(list(seen.values()), list(seen), loc="lower center", ncol=len(seen), frameon=False)
    picture.tight_layout(w_pad=2, rect=(0, 0.09 if down == 1 else 0.06, 1, 1))
    drawn = io.StringIO()
    picture.savefig(drawn, format="svg", metadata={"Date": None})
    pyplot.close(picture)
    write_whole(file, drawn.getvalue())


def _names(curves: Sequence[FilledCurve]) -> list[str]:
    return list(dict.fromkeys(name for filled in curves for name in filled.lines))


def _metric(filled: FilledCurve) -> str:
    tasks = {cell.scored.task for line in filled.lines.values() for cell in line.values()}
    return ", ".join(sorted(TASKS[task].metric.upper() for task in tasks))
