"""One picture: accuracy against speed, a point a system, a panel a task."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers.report import Row
from loadtest.figure import BLUE, PURPLE, VERMILION, as_svg, new_figure, plain_log_ticks


@dataclass(frozen=True)
class Look:
    """How a system's point is drawn, and where its label stands: (horizontal, vertical) points off it."""

    label: str
    colour: str
    marker: str
    place: tuple[float, float] = (0, 9)
    align: str = "center"


OURS, TEACHER, OTHER = BLUE, VERMILION, PURPLE
LOOKS: Mapping[str, Look] = {
    "ner_fp32": Look("student", OURS, "o", (-2, 9), "right"),
    "ner_int8": Look("student, int8", OURS, "^", (4, -16), "center"),
    "ner_teacher": Look("teacher", TEACHER, "s"),
    "parse_fp32": Look("student", OURS, "o", (-2, 9), "right"),
    "parse_int8": Look("student, int8", OURS, "^", (4, -16), "center"),
    "parse_teacher": Look("teacher", TEACHER, "s"),
    "spacy": Look("spaCy, both", OTHER, "D", (-2, -16), "right"),
    "spacy_ner": Look("spaCy, alone", OTHER, "d", (2, 9), "left"),
    "spacy_parse": Look("spaCy, alone", OTHER, "d", (2, 9), "left"),
    "udpipe": Look("UDPipe 1", OTHER, "P", (0, -16)),
    "crfsuite": Look("CRFsuite", OTHER, "X", (0, -16)),
}
PANELS = (("f1", "Named entities", "F1"), ("las", "Dependency trees", "LAS without punctuation"))


def accuracy_against_speed(rows: Mapping[str, Row]) -> str:
    """The picture as an SVG file; up and right is better."""
    figure = new_figure(4.2)
    for place, (metric, title, unit) in enumerate(PANELS, start=1):
        axes = figure.add_subplot(1, 2, place)
        for name, row in rows.items():
            points = getattr(row.scores, metric)
            if points is None:
                continue
            look, speed = LOOKS[name], row.speed.sentences_per_second
            axes.plot(speed, points, look.marker, color=look.colour, markersize=8)
            axes.annotate(
                look.label,
                (speed, points),
                xytext=look.place,
                textcoords="offset points",
                ha=look.align,
                fontsize=10,
            )
        axes.set_title(title, loc="left")
        axes.set_xlabel("sentences/s, one thread")
        axes.set_ylabel(unit)
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.18)
        plain_log_ticks(axes, "x", span=20)
        axes.grid(which="major", alpha=0.3)
        axes.set_axisbelow(True)
    return as_svg(figure)
