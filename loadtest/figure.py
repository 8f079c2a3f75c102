"""Matplotlib figures as SVG files; text stays text, and the same data gives the same bytes."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib is imported only when something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's hues, which differ for people with any colour vision.
BLUE, GREEN, VERMILION, PURPLE = "#0072b2", "#009e73", "#d55e00", "#cc79a7"
WIDTH = 9.0  # inches


def new_figure(height: float) -> "Figure":
    """An empty figure of this height, in inches, that makes room for its labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def as_svg(figure: "Figure") -> str:
    """The figure as the text of an SVG file."""
    import matplotlib

    written = io.StringIO()
    without: Any = {"Date": None, "Creator": None}  # which would change from day to day
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "figure"}):
        figure.savefig(written, format="svg", metadata=without)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def plain_log_ticks(axes: "Axes", which: str, *, span: float = 200.0) -> None:
    """Plain numbers on a logarithmic axis: powers of ten, and 2 and 5 of each where it spans less."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < span * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
