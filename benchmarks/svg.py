"""Matplotlib figures as SVG files: text stays text, and the same data gives the same bytes."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_svg(figure: "Figure") -> str:
    """The figure as the text of an SVG file."""
    import matplotlib  # slow to import, and only needed where something is drawn

    written = io.StringIO()
    without: Any = {"Date": None}
    with matplotlib.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata=without)
    return written.getvalue()
