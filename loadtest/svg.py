"""Matplotlib figures as SVG that follows the reader's light or dark scheme.

Text stays text, and the same data gives the same bytes. Colours are drawn as stand-ins and become CSS
variables, so that a page, or the style in a stand-alone file, says what they are. Matplotlib is imported only
when something is drawn.
"""

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's hues, which people with any colour vision can tell apart, darker on light, lighter on dark.
LIGHT: Mapping[str, str] = {
    "ink": "#1b1f24",
    "faint": "#57606a",
    "grid": "#d0d7de",
    "ground": "#ffffff",
    "blue": "#0072b2",
    "green": "#00785a",
    "vermilion": "#b84a00",
    "purple": "#a0508a",
}
DARK: Mapping[str, str] = {
    "ink": "#e6edf3",
    "faint": "#9da7b3",
    "grid": "#3d444d",
    "ground": "#0d1117",
    "blue": "#56b4e9",
    "green": "#2ecc9b",
    "vermilion": "#ff8f4a",
    "purple": "#e39ccb",
}

# What to draw in: `drawn` puts the variables in its place.
STAND_INS: Mapping[str, str] = {name: f"#0a0b{index:02x}" for index, name in enumerate(LIGHT, start=1)}
INK, FAINT, GRID = STAND_INS["ink"], STAND_INS["faint"], STAND_INS["grid"]

SETTINGS: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loadtest",
    "font.family": ["sans-serif"],
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
WIDTH = 9.0  # inches
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def styled() -> AbstractContextManager[None]:
    """A context in which figures are drawn in the stand-in colours."""
    import matplotlib

    settings: Any = dict(SETTINGS)
    return matplotlib.rc_context(settings)


def drawn(figure: "Figure", name: str, title: str, description: str) -> str:
    """The figure as an <svg> element, which those who do not see it can read.

    Args:
        name: a word that begins all ids in it, because a page can hold several figures.
        title, description: what it shows, and its figures in words.
    """
    written = io.StringIO()
    with styled():
        nothing: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = _with_own_ids(text, name)
    for variable, stand_in in STAND_INS.items():
        text = text.replace(stand_in, f"var(--{variable})")
    text = re.sub(r"font-family: [^;\"]*", f"font-family: {FONT}", text)
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # in points; the view box gives the shape
    label = (
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    return f'{head} role="img" aria-labelledby="{name}-title">{label}{body.strip()}\n'


def variables() -> str:
    """CSS that gives every variable its colour in both schemes."""
    light, dark = (_declared(colours) for colours in (LIGHT, DARK))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def standalone(svg: str) -> str:
    """An <svg> element as a file of its own, with a size, on its own ground."""
    head, _, body = svg.partition(">")
    _, _, width, height = view_box(svg)
    ground = '<rect width="100%" height="100%" fill="var(--ground)"/>'
    size = f'width="{width * 4 / 3:.0f}" height="{height * 4 / 3:.0f}"'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head} {size}><style>{variables()}</style>{ground}{body}'


def view_box(svg: str) -> tuple[float, float, float, float]:
    """Left, top, width and height, in points."""
    found = re.search(r'viewBox="([^"]*)"', svg)
    if found is None:
        raise ValueError("the figure has no view box: it was not drawn by Matplotlib's SVG backend")
    left, top, width, height = map(float, found[1].split())
    return left, top, width, height


def _with_own_ids(text: str, name: str) -> str:
    """Ids that nothing refers to go; the others get a name of their own."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    return re.sub(r'(id="|href="#|url\(#)(?=[^"])', rf"\1{name}-", text)


def _declared(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def empty_figure(height: float) -> "Figure":
    """A figure of this height, in inches, as wide as a page, that makes room for its labels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def plain_ticks(axes: "Axes", which: str, *, few: float = 200) -> None:
    """Plain numbers on a logarithmic axis: powers of ten, and 2 and 5 of each where these are few.

    few: how many times its smallest value the largest one is at most, for the 2 and 5 to have room.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < few * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", color=FAINT, length=2)
