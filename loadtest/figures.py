"""The pictures of the report: how fast each system is, and how long requests wait as the load grows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.plan import BATCH
from loadtest.results import Result, Step
from loadtest.svg import FAINT, INK, STAND_INS, drawn, empty_figure, plain_ticks, standalone, styled
from loadtest.tables import milliseconds, number, times
from loadtest.verdict import TASKS, TITLES, Paper, by_task, ratio, sentences_a_request, speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_HEIGHT = 3.2
GAP = 0.6  # between groups of bars, in bars


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and dashes of a system, so that it can be told without its colour."""

    colour: str
    marker: str
    dashes: Any


LOOKS: Mapping[str, Look] = {
    "paper-shape": Look(STAND_INS["purple"], "D", (0, (1, 1.5))),
    "teacher": Look(STAND_INS["vermilion"], "s", (0, (5, 1.5, 1, 1.5))),
    "student": Look(STAND_INS["blue"], "o", "-"),
    "student-int8": Look(STAND_INS["green"], "^", (0, (4, 2))),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """Sentences a second, and how many times the slowest of the group; `own`, or the paper's."""

    label: str
    speed: float
    faster: float
    look: Look
    own: bool = True


@dataclass(frozen=True, slots=True)
class Curve:
    """What a line shows of a step; `hollow` lines are thinner, with hollow markers."""

    label: str
    value: Callable[[Step], float]
    hollow: bool = False


def speed_bars(result: Result) -> str:
    """Sentences a second with 32 a request, on a logarithmic scale, the paper's two beside ours; <svg>."""
    groups = _groups(result)
    bars = [bar for group in groups for bar in group]
    with styled():
        figure = empty_figure(0.36 * (len(bars) + GAP * len(groups)) + 0.7)
        axes = figure.add_subplot()
        places = [index + GAP * group for index, group in enumerate(_numbers(groups))]
        for place, bar in zip(places, bars, strict=True):
            axes.barh(
                place,
                bar.speed,
                height=0.66,
                facecolor=bar.look.colour if bar.own else "none",
                edgecolor=bar.look.colour,
                linewidth=1.5,
            )
            axes.annotate(
                f"{number(bar.speed)}  ({times(bar.faster)})",
                (bar.speed, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.set_yticks(places, [bar.label for bar in bars], color=INK)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(bar.speed for bar in bars) / 2, max(bar.speed for bar in bars) * 8)
        plain_ticks(axes, "x")
        axes.set_xlabel("sentences/s, 32 a request (times the slowest of its group)")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    described = "; ".join(f"{bar.label}: {number(bar.speed)} sentences a second" for bar in bars)
    return drawn(figure, "speeds", "Speed of every system, and the paper's", described)


def latency_curves(result: Result) -> str:
    """p50 and p99 over the offered load, a panel for each task and size of request; <svg>, or empty."""
    curves = [
        Curve("p99", lambda step: step.latency.p99),
        Curve("p50", lambda step: step.latency.p50, hollow=True),
    ]
    return _panels(
        result, "latencies", "Latency while requests arrive at random", "latency, ms", curves, "log"
    )


def goodput_curves(result: Result) -> str:
    """Requests answered within the objective over the offered load; <svg>, or empty."""
    curves = [Curve("", lambda step: 100 * (ratio(step.goodput_per_second, step.offered_per_second) or 0))]
    title = "Goodput: requests answered within the objective"
    return _panels(result, "goodput", title, "in time, % of offered", curves, "linear")


def figure_file(result: Result) -> str:
    """The speeds as a stand-alone SVG file."""
    return standalone(speed_bars(result))


def _groups(result: Result) -> list[list[Bar]]:
    """The bars of each task, and the paper's."""
    groups = []
    for task, systems in by_task(result).items():
        found = {key: speed(systems[key], BATCH) for key in TITLES if key in systems}
        measured = {key: value for key, value in found.items() if value}
        if measured:
            slowest = min(measured.values())
            groups.append(
                [
                    Bar(f"{TASKS[task]}: {TITLES[key].lower()}", value, value / slowest, LOOKS[key])
                    for key, value in measured.items()
                ]
            )
    paper = Paper()
    return [
        *groups,
        [
            Bar("The paper: teacher", paper.teacher_speed, 1, LOOKS["paper-shape"], own=False),
            Bar("The paper: student", paper.student_speed, paper.faster, LOOKS["student"], own=False),
        ],
    ]


def _numbers(groups: Sequence[Sequence[Bar]]) -> list[int]:
    """For each bar the number of its group."""
    return [number_of_group for number_of_group, bars in enumerate(groups) for _ in bars]


def _panels(result: Result, name: str, title: str, unit: str, curves: Sequence[Curve], scale: str) -> str:
    """Curves over the offered load, a panel for each task and size of request; empty without open loops."""
    panels = list(
        dict.fromkeys((each.task, step.sentences_a_request) for each in result.systems for step in each.steps)
    )
    if not panels:
        return ""
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    with styled():
        figure = empty_figure(PANEL_HEIGHT * lines + 0.7)
        for place, (task, size) in enumerate(panels, start=1):
            axes = figure.add_subplot(lines, columns, place)
            for system in result.systems:
                if system.task == task:
                    steps = [step for step in system.steps if step.sentences_a_request == size]
                    _draw(axes, LOOKS[system.key], steps, curves)
            axes.set_title(f"{TASKS[task]}, {sentences_a_request(size)}", loc="left", fontsize=11)
            axes.set_xscale("log")
            axes.set_xlabel("offered sentences/s")
            axes.set_ylabel(unit)
            if scale == "log":
                axes.set_yscale("log")
                plain_ticks(axes, "y")
            else:
                axes.set_ylim(-4, 108)
            axes.margins(x=0.1)
            plain_ticks(axes, "x")
            axes.grid(which="major")
        _legend(
            figure, [key for key in TITLES if any(s.key == key and s.steps for s in result.systems)], curves
        )
    return drawn(figure, name, title, _described(result, curves))


def _draw(axes: "Axes", look: Look, steps: Sequence[Step], curves: Sequence[Curve]) -> None:
    answered = [step for step in steps if step.latency.p99]  # the others have none
    for curve in curves:
        axes.plot(
            [step.offered_per_second * step.sentences_a_request for step in answered],
            [curve.value(step) for step in answered],
            color=look.colour,
            marker=look.marker,
            markersize=4.5,
            markerfacecolor="none" if curve.hollow else look.colour,
            linestyle=look.dashes,
            linewidth=1.0 if curve.hollow else 1.8,
        )


def _legend(figure: "Figure", keys: Sequence[str], curves: Sequence[Curve]) -> None:
    """Systems by colour, marker and dashes; then what filled and hollow markers are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=LOOKS[key].colour,
            marker=LOOKS[key].marker,
            markersize=5,
            linestyle=LOOKS[key].dashes,
            label=TITLES[key],
        )
        for key in keys
    ]
    if len(curves) > 1:
        handles += [
            Line2D(
                [],
                [],
                color=FAINT,
                marker="o",
                markersize=5,
                markerfacecolor="none" if curve.hollow else FAINT,
                linewidth=1.0 if curve.hollow else 1.8,
                label=f"{curve.label} ({'hollow' if curve.hollow else 'filled'})",
            )
            for curve in curves
        ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5), fontsize=10)


def _described(result: Result, curves: Sequence[Curve]) -> str:
    """Every point in words."""
    return "; ".join(
        f"{TASKS[system.task]}, {TITLES[system.key].lower()}, "
        f"{sentences_a_request(step.sentences_a_request)}, {step.share:.0%} of the capacity: "
        + ", ".join(f"{curve.label} {milliseconds(curve.value(step))}".strip() for curve in curves)
        for system in result.systems
        for step in system.steps
        if step.latency.p99
    )
