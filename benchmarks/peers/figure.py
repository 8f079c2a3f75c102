"""One picture: accuracy against speed, a point a system, a panel a task."""

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.peers.report import Measured
from loadtest.figure import BLUE, PURPLE, VERMILION, as_svg, new_figure, plain_log_ticks

OURS, TEACHER, OTHER = BLUE, VERMILION, PURPLE


class Marker(NamedTuple):
    """How a system's point is drawn; its label stands (horizontal, vertical) points off it."""

    label: str
    colour: str
    shape: str
    offset: tuple[float, float] = (0, 9)
    align: str = "center"


MARKERS: Mapping[str, Marker] = {
    "ner_fp32": Marker("student", OURS, "o", (-2, 9), "right"),
    "ner_int8": Marker("student, int8", OURS, "^", (4, -16)),
    "ner_teacher": Marker("teacher", TEACHER, "s"),
    "parse_fp32": Marker("student", OURS, "o", (-2, 9), "right"),
    "parse_int8": Marker("student, int8", OURS, "^", (4, -16)),
    "parse_teacher": Marker("teacher", TEACHER, "s"),
    "spacy": Marker("spaCy, both", OTHER, "D", (-2, -16), "right"),
    "spacy_ner": Marker("spaCy, alone", OTHER, "d", (2, 9), "left"),
    "spacy_parse": Marker("spaCy, alone", OTHER, "d", (2, 9), "left"),
    "udpipe": Marker("UDPipe 1", OTHER, "P", (0, -16)),
    "crfsuite": Marker("CRFsuite", OTHER, "X", (0, -16)),
}
PANELS = (("f1", "Named entities", "F1"), ("las", "Dependency trees", "LAS without punctuation"))


def accuracy_against_speed(rows: Mapping[str, Measured]) -> str:
    """The picture as the text of an SVG file; up and right is better."""
    figure = new_figure(4.2)
    for axes, (metric, title, unit) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for name, row in rows.items():
            points, speed, marker = getattr(row.scores, metric), row.speed.sentences_per_second, MARKERS[name]
            if points is not None:
                axes.plot(speed, points, marker.shape, color=marker.colour, markersize=8)
                axes.annotate(
                    marker.label,
                    (speed, points),
                    xytext=marker.offset,
                    textcoords="offset points",
                    ha=marker.align,
                )
        axes.set(title=title, xlabel="sentences/s, one thread", ylabel=unit, xscale="log")
        axes.margins(x=0.2, y=0.18)
        plain_log_ticks(axes, "x")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    return as_svg(figure)
