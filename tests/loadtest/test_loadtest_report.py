"""The load test's report of made-up results: its judgement, JSON, Markdown, figures and page."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from selenium.webdriver import Chrome

from loadtest import figures, page, report, results, svg
from loadtest.results import Closed, Conditions, Latency, Result, Step, System

CLIPPED_OR_OVERLAPPING = """
    const clipped = [], overlapping = [];
    let texts = 0;
    for (const svg of document.querySelectorAll("svg")) {
        const frame = svg.getBoundingClientRect();
        const all = [...svg.querySelectorAll("text")];
        const boxes = all.map((text) => [text.textContent.trim(), text.getBoundingClientRect()]);
        texts += boxes.length;
        boxes.forEach(([one, a], index) => {
            if (a.left < frame.left || a.right > frame.right || a.top < frame.top || a.bottom > frame.bottom)
                clipped.push(one);
            for (const [other, b] of boxes.slice(index + 1)) {
                const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                // A box is as high as a line, which is more than its letters are.
                if (wide > 1 && high > 4) overlapping.push(one + " / " + other);
            }
        });
    }
    return { texts, clipped, overlapping };
"""
SVG = "{http://www.w3.org/2000/svg}"

SPEEDS = {  # sentences a second: 32 a request and one a request, of both tasks
    "paper-shape": {"ner": (5.0, 4.0), "parse": (4.0, 4.0)},
    "teacher": {"ner": (40.0, 25.0), "parse": (32.0, 20.0)},
    "student": {"ner": (1750.0, 1000.0), "parse": (1280.0, 900.0)},
    "student-int8": {"ner": (3400.0, 1500.0), "parse": (2800.0, 1200.0)},
}
PARAMETERS = {
    "paper-shape": 233_400_000,
    "teacher": 117_900_000,
    "student": 9_460_000,
    "student-int8": 9_460_000,
}
SCORES = {"ner": {"f1": 71.25, "precision": 70.0}, "parse": {"uas": 84.04, "las": 79.96}}
SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
P99_AT_HALF = {"ner": 8.5, "parse": 12.25}


def closed(speed: float, size: int, **changes: Any) -> Closed:
    requests = round(speed * 10 / size) or 1
    connections = 16 if size == 1 else 4
    wait = 1000 * connections * size / speed
    whole = Closed(
        round=1,
        sentences_a_request=size,
        connections=connections,
        seconds=10.0,
        requests=requests,
        sentences=requests * size,
        tokens=requests * size * 18,
        failures=0,
        reasons={},
        sentences_per_second=speed,
        latency=Latency(wait, wait * 1.1, wait * 1.2),
        server_cpu=0.99,
        generator_cpu=0.31,
    )
    return replace(whole, **changes)


def step(speed: float, size: int, share: float, **changes: Any) -> Step:
    offered = share * speed / size
    service = 1000 * size / speed
    wait = service * (1 + share / (1.15 - share if share < 1 else 0.1))
    good = min(share, 0.97) * speed / size if wait < 250 else 0.0
    whole = Step(
        sentences_a_request=size,
        share=share,
        seconds=10.0,
        offered_per_second=offered,
        requests=round(offered * 10),
        completed_per_second=min(offered, speed / size),
        refused=120 if share > 1 else 0,
        failures=0,
        reasons={},
        latency=Latency(wait, wait * 2.2, wait * 3.1),
        objective_ms=50.0 if size == 1 else 250.0,
        goodput_per_second=good,
        server_cpu=min(share, 1.0),
        generator_cpu=0.2,
    )
    return replace(whole, **changes)


def system(key: str, task: str, **changes: Any) -> System:
    batch, single = SPEEDS[key][task]
    steps = tuple(step(speed, size, share) for size, speed in ((1, single), (32, batch)) for share in SHARES)
    if key == "student":
        steps = tuple(
            replace(each, latency=replace(each.latency, p99=P99_AT_HALF[task]))
            if each.share == 0.5 and each.sentences_a_request == 1
            else each
            for each in steps
        )
    random = key == "paper-shape"
    whole = System(
        key=key,
        task=task,
        name=f"made-up-{task}-{key}",
        kind="student" if key.startswith("student") else "teacher",
        parameters=PARAMETERS[key],
        precision="int8" if key == "student-int8" else "fp32",
        has_accuracy=not random,
        scores={} if random else SCORES[task],
        checked="41 entities in 32 sentences" if task == "ner" else "570 arcs in 32 sentences",
        closed=tuple(
            closed(speed * pace, size, round=number)
            for number, pace in enumerate((0.95, 1.0, 1.1), start=1)
            for size, speed in ((1, single), (32, batch))
        ),
        steps=() if random else steps,
    )
    return replace(whole, **changes)


CONDITIONS = Conditions(
    quick=False,
    rounds=3,
    server_cores=[0],
    generator_cores=[1],
    workers=1,
    threads=1,
    sentences="runs/made-up/test.txt, as tokens",
    sentence_count=1716,
    mean_tokens=17.84,
    date="2026-01-31T12:00:00+00:00",
    machine={"cpu": "Some Processor", "cores": 2, "memory_gb": 8, "system": "Linux-6.1"},
    versions={"python": "3.11.7", "onnxruntime": "1.32.0"},
    settings={"max_batch_tokens": 4096},
)


def result_of(
    keys: Sequence[str] = tuple(SPEEDS), tasks: Sequence[str] = ("ner", "parse"), **conditions: Any
) -> Result:
    systems = tuple(system(key, task) for task in tasks for key in keys)
    return Result(systems, replace(CONDITIONS, **conditions), skipped=())


def with_first_row(result: Result, key: str, **changes: Any) -> Result:
    """The same with another first closed loop of the named entities' system `key`."""
    systems = tuple(
        replace(each, closed=(replace(each.closed[0], **changes), *each.closed[1:]))
        if (each.key, each.task) == (key, "ner")
        else each
        for each in result.systems
    )
    return replace(result, systems=systems)


def with_step(result: Result, key: str, share: float, **changes: Any) -> Result:
    """The same with another step of the named entities' system `key`, one sentence a request."""
    systems = tuple(
        replace(
            each,
            steps=tuple(
                replace(row, **changes) if (row.share, row.sentences_a_request) == (share, 1) else row
                for row in each.steps
            ),
        )
        if (each.key, each.task) == (key, "ner")
        else each
        for each in result.systems
    )
    return replace(result, systems=systems)


def rows_of(markdown: str, first: str) -> list[list[str]]:
    """The cells of all table rows that begin with `first`."""
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_figure_is_of_the_worse_task_and_of_the_median_round() -> None:
    assert report.figures(result_of()) == {
        "http_vs_paper_shape": pytest.approx(1280 / 4),
        "http_int8_vs_paper_shape": pytest.approx(3400 / 5),
        "http_single_vs_paper_shape": pytest.approx(900 / 4),
        "params_vs_paper_shape": pytest.approx(233.40 / 9.46),
        "http_vs_run_teacher": pytest.approx(1280 / 32),
        "p99_ms_at_half": 12.25,
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["student"], {"p99_ms_at_half"}),
        (["teacher"], set()),
        (["paper-shape", "student-int8"], {"http_int8_vs_paper_shape"}),
        (["teacher", "student"], {"http_vs_run_teacher", "p99_ms_at_half"}),
    ],
)
def test_figures_of_systems_that_were_not_measured_are_absent(keys: list[str], expected: set[str]) -> None:
    result = result_of(keys)
    assert set(report.figures(result)) == expected
    rendered = report.as_json(result)
    assert expected == set(report.REQUIRED) & set(rendered)
    for key, judged in rendered["required"].items():
        assert (judged["met"] is None) == (key not in expected)
    assert "Conditions:" in report.as_markdown(result)


def test_a_figure_that_misses_its_target_is_said_to_and_is_no_problem() -> None:
    slow = with_step(result_of(), "student", 0.5, latency=Latency(5.0, 10.0, 15.5))
    required = report.as_json(slow)["required"]
    assert required["p99_ms_at_half"] == {
        "meaning": report.REQUIRED["p99_ms_at_half"].meaning,
        "at_most": 15,
        "figure": 15.5,
        "met": False,
    }
    assert required["http_vs_paper_shape"]["met"] is True
    assert report.problems(slow) == []
    (row,) = rows_of(report.as_markdown(slow), "p99 in ms")
    assert row[1:] == ["15.5", "12.2", "–", "at most 15", "no"]


def test_the_targets_are_those_that_were_set() -> None:
    targets = {key: (target.value, target.at_least) for key, target in report.REQUIRED.items()}
    assert targets == {
        "http_vs_paper_shape": (300, True),
        "http_int8_vs_paper_shape": (600, True),
        "http_single_vs_paper_shape": (150, True),
        "params_vs_paper_shape": (20, True),
        "http_vs_run_teacher": (35, True),
        "p99_ms_at_half": (15, False),
    }
    assert report.REQUIRED["http_vs_run_teacher"].met(35.0)
    assert not report.REQUIRED["http_vs_run_teacher"].met(34.99)
    assert report.REQUIRED["p99_ms_at_half"].met(15.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"failures": 3, "reasons": {"status 503": 2, "timed out": 1}},
            "3 requests failed (2 × status 503, 1 × timed out)",
        ),
        ({"requests": 0, "sentences": 0, "sentences_per_second": 0.0}, "no request was answered"),
        ({"generator_cpu": 0.86}, "the generator was the bottleneck, it used 86% of its core"),
    ],
)
def test_what_makes_figures_invalid_is_said_first_and_names_the_measurement(
    changes: dict[str, Any], said: str
) -> None:
    result = with_first_row(result_of(), "student", **changes)
    problem = f"ner, student, 1 sentence a request, round 1: {said}"
    assert report.problems(result) == [problem]
    assert report.as_json(result)["valid"] is False
    markdown = report.as_markdown(result)
    assert markdown.index(problem) < markdown.index("| ")


@pytest.mark.parametrize(("share", "invalid"), [(0.5, True), (0.75, True), (0.9, False), (1.1, False)])
def test_a_refusal_is_a_problem_only_where_the_server_had_capacity_left(share: float, invalid: bool) -> None:
    found = report.problems(with_step(result_of(), "student", share, refused=2))
    assert bool(found) == invalid
    assert all("requests were refused" in problem for problem in found)


def test_a_refusal_of_a_server_that_was_saturated_before_its_time_is_a_remark() -> None:
    result = with_step(result_of(), "student", 0.75, refused=2, server_cpu=0.97)
    assert report.problems(result) == []
    assert any(
        "requests were refused, since the server was saturated (97%" in said
        for said in report.remarks(result)
    )


def test_a_report_can_be_drawn_anew_from_its_json() -> None:
    result = result_of()
    again = results.result_of(json.loads(json.dumps(report.as_json(result))))
    assert again == result
    assert report.as_markdown(again) == report.as_markdown(result)


def test_a_step_without_an_answer_is_a_problem_and_gives_no_latency() -> None:
    nothing = Latency(0.0, 0.0, 0.0)
    result = result_of(["student"], ["ner"])
    dead = with_step(result, "student", 0.5, completed_per_second=0.0, latency=nothing)
    assert report.figures(dead) == {}
    assert report.problems(dead) == [
        "ner, student, 1 sentence a request, 50% of the capacity: no request was answered"
    ]


def test_a_system_that_answered_nothing_gives_no_ratio() -> None:
    result = result_of(["paper-shape", "student"], ["ner"])
    silent = replace(result.systems[0], closed=())
    broken = replace(result, systems=(silent, *result.systems[1:]))
    assert set(report.figures(broken)) == {"params_vs_paper_shape", "p99_ms_at_half"}
    assert report.problems(broken) == ["ner, paper-shape: nothing was measured"]
    assert json.dumps(report.as_json(broken), allow_nan=False)


def test_remarks_tell_what_a_reader_has_to_know() -> None:
    assert report.remarks(result_of(["student"])) == []
    result = replace(
        result_of(["paper-shape", "student"], ["ner"], quick=True, generator_cores=[0]),
        skipped=("ner, paper-shape, open loop: a step would take 80 s",),
    )
    result = with_first_row(result, "student", sentences_per_second=700.0)
    said = report.remarks(result)
    assert said == [
        "paper-shape has random weights: exact for speed and size, no accuracy",
        "a quick run: short windows, one round, rough figures",
        "server and generator shared a core: what limits a figure cannot be told apart",
        "ner, paper-shape, 32 sentences a request: 5 requests in all rounds, so its figure is rough",
        "ner, student, 1 sentence a request: rounds differ, 700.0 to 1,100.0 sentences/s",
        "left out: ner, paper-shape, open loop: a step would take 80 s",
    ]
    markdown = report.as_markdown(result)
    assert all(f"- {each}" in markdown for each in said)


def test_a_machine_that_was_busy_and_a_server_that_was_not_are_remarks() -> None:
    busy = with_step(result_of(["student"]), "student", 0.5, foreign_cpu=0.64, requests=36)
    assert report.remarks(busy) == [
        "other processes used up to 0.6 cores while it measured: not a quiet machine",
        "ner, student: steps of 36 requests and more, so their p99 is about the longest of them",
    ]
    assert report.problems(busy) == []
    idle = result_of(["student"], ["ner"])
    systems = [
        replace(each, closed=tuple(replace(row, server_cpu=0.5) for row in each.closed))
        for each in idle.systems
    ]
    assert report.remarks(replace(idle, systems=tuple(systems))) == [
        "ner, student, 1 sentence a request: the server used 50% of a core, it could have done more",
        "ner, student, 32 sentences a request: the server used 50% of a core, it could have done more",
    ]


def test_table_7_has_speed_size_and_score_of_each_system_with_the_papers_beside_them() -> None:
    markdown = report.as_markdown(result_of())
    shape = rows_of(markdown, "Teacher of the paper's size |")
    student = rows_of(markdown, "Student |")
    assert shape[0] == [
        "Teacher of the paper's size", "5.00", "1×", "0.12×", "4.00", "1×", "233.40", "1×",
        "none: random weights",
    ]  # fmt: skip
    assert student[0] == ["Student", "1,750", "350×", "43.8×", "1,000", "250×", "9.46", "24.7×", "F1 71.2"]
    assert student[1][-1] == "UAS 84.0, LAS 80.0"
    for row in rows_of(markdown, "Paper: student"):
        assert (row[1], row[2], row[6], row[7]) == ("672.20", "24.2×", "9.46", "24.7×")
    (speed,) = rows_of(markdown, "Speed against the teacher of the paper's size")
    assert speed[1:] == ["350×", "320×", "24.2×", "at least 300", "yes"]


def test_every_table_with_the_teacher_of_random_weights_says_that_it_has_no_accuracy() -> None:
    tables = report.as_markdown(result_of()).split("\n**")[1:]
    assert len(tables) == 5
    for table in tables:
        has_shape = "teacher of the paper's size" in table.partition("\nConditions:")[0].lower()
        assert ("has no accuracy" in table) == has_shape
    assert "no accuracy" not in report.as_markdown(result_of(["teacher", "student"]))


def test_the_json_report_holds_every_row_and_reads_back_the_same() -> None:
    result = result_of()
    rendered = report.as_json(result)
    assert json.loads(json.dumps(rendered, allow_nan=False)) == json.loads(json.dumps(rendered))
    assert rendered["tasks"]["ner"]["http_vs_paper_shape"] == pytest.approx(350)
    assert rendered["tasks"]["parse"]["p99_ms_at_half"] == 12.25
    assert rendered["paper"]["teacher_speed"] == 27.76
    assert rendered["paper"]["faster"] == pytest.approx(24.2, abs=0.05)
    assert len(rendered["systems"]) == 8
    assert [len(each["closed"]) for each in rendered["systems"]] == [6] * 8
    assert rendered["systems"][2]["steps"][1]["latency"]["p99"] == 8.5
    assert rendered["conditions"]["machine"]["cores"] == 2


def test_conditions_are_plain_sentences() -> None:
    markdown = report.as_markdown(result_of())
    assert "1,716 sentences of 17.8 tokens on average" in markdown
    assert "1 worker of 1 thread on core 0; the generator (Locust) on core 1" in markdown
    assert "16 connections with 1 sentence a request, 4 connections with 32 sentences a request" in markdown


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG 2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [svg.LIGHT, svg.DARK])
def test_text_and_lines_stand_out_from_the_ground_in_both_schemes(scheme: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    text = {name: contrast(scheme[name], scheme["ground"]) for name in ("ink", "faint", "green", "vermilion")}
    assert min(text.values()) >= 4.5, text
    lines = {
        name: contrast(colour, scheme["ground"])
        for name, colour in scheme.items()
        if name not in ("ground", "grid")
    }
    assert min(lines.values()) >= 3, lines


def drawings(result: Result) -> list[str]:
    return [figures.speed_bars(result), figures.latency_curves(result), figures.goodput_curves(result)]


def test_the_same_result_gives_the_same_bytes() -> None:
    result = result_of()
    assert drawings(result) == drawings(result)


def test_a_figure_has_a_title_a_description_and_only_colours_that_follow_the_scheme() -> None:
    for drawing in drawings(result_of()):
        element = ElementTree.fromstring(drawing)
        assert element.get("role") == "img"
        title, description = element.find(f"{SVG}title"), element.find(f"{SVG}desc")
        assert title is not None
        assert title.text
        assert title.get("id") == element.get("aria-labelledby")
        assert description is not None
        assert "Named entities" in (description.text or "")
        assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\"])", drawing) == []
        used = set(re.findall(r"var\(--(\w+)\)", drawing))
        assert {"ink", "faint", "grid", "blue", "green"} <= used <= set(svg.LIGHT) == set(svg.DARK)


def test_systems_differ_by_marker_and_dashes_and_not_by_colour_alone() -> None:
    looks = list(figures.LOOKS.values())
    assert len({look.marker for look in looks}) == len({str(look.dashes) for look in looks}) == len(looks)


def test_figures_show_what_was_measured_and_nothing_else() -> None:
    bars = figures.speed_bars(result_of())
    for text in ("1,750 (350×)", "Dependency trees: student, int8", "The paper: student", "672 (24.2×)"):
        assert text in re.sub(r"\s+", " ", bars)
    alone = result_of(["student"], ["ner"])
    assert "Dependency trees" not in figures.speed_bars(alone)
    assert "Dependency trees" not in figures.latency_curves(alone)
    closed_only = replace(alone, systems=tuple(replace(each, steps=()) for each in alone.systems))
    assert figures.latency_curves(closed_only) == figures.goodput_curves(closed_only) == ""
    nothing = replace(alone, systems=())
    assert "The paper: teacher" in figures.speed_bars(nothing)
    assert "</html>" in page.as_html(nothing)


def test_a_step_without_an_answer_is_left_out_of_the_drawing() -> None:
    dead = with_step(
        result_of(["student"], ["ner"]),
        "student",
        0.5,
        completed_per_second=0.0,
        latency=Latency(0.0, 0.0, 0.0),
    )
    drawing = figures.latency_curves(dead)
    assert "nan" not in drawing
    assert "1 sentence a request, 50% of the capacity" not in drawing
    assert "1 sentence a request, 75% of the capacity" in drawing


def test_the_figure_file_stands_alone_in_both_schemes() -> None:
    text = figures.figure_file(result_of())
    element = ElementTree.fromstring(text)
    assert float(element.get("width", "0")) > float(element.get("height", "0")) > 100
    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_matplotlib_is_imported_only_when_something_is_drawn() -> None:
    code = "import sys, loadtest.page, loadtest.report; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


class Structure(HTMLParser):
    """Tags, ids and the addresses that a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value or "")


def test_the_page_is_one_file_with_headings_captions_and_unique_ids() -> None:
    text = page.as_html(result_of())
    found = Structure(text)
    assert found.tags.count("h1") == 1
    assert found.tags.count("table") == found.tags.count("caption") == 4
    assert found.tags.count("svg") == 3
    assert not {"script", "link rel=stylesheet", "img", "iframe"} & set(found.tags)
    assert len(found.ids) == len(set(found.ids))
    for address in found.addresses:
        assert address == "data:," or address.removeprefix("#") in found.ids
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in found.ids


def test_the_page_shows_the_ratios_the_papers_and_whether_they_meet_the_aim() -> None:
    slow = with_step(result_of(), "student", 0.5, latency=Latency(5.0, 10.0, 27.0))
    text = page.as_html(slow)
    assert "<strong>320×</strong>" in text
    assert "named entities 350×; dependency trees 320×; the paper 24.2×" in text
    assert "met: at least 300×" in text
    assert "<strong>27.0 ms</strong>" in text
    assert "not met: at most 15 ms" in text
    assert "random weights" in text
    assert "quick run" not in text
    assert "quick run" in page.as_html(result_of(quick=True))


def test_problems_come_first_on_the_page() -> None:
    text = page.as_html(with_first_row(result_of(), "student", failures=7, reasons={"status 503": 7}))
    assert text.index("7 requests failed (7 × status 503)") < text.index("At a glance")


def test_text_of_others_is_escaped() -> None:
    result = with_first_row(result_of(["student"], ["ner"]), "student", failures=1, reasons={"<script>x": 1})
    hostile = replace(result, systems=(replace(result.systems[0], name="</style><b>|"),), skipped=("<i>",))
    text = page.as_html(hostile)
    for raw in ("<script>", "</style><b>", "<i>"):
        assert raw not in text
    ElementTree.fromstring(figures.speed_bars(hostile))


def shown(browser: Chrome, file: Path, *, width: int, scheme: str) -> None:
    """Opens a file in a window of that width and colour scheme, with an empty log."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(file.as_uri())


def requested(browser: Chrome) -> set[str]:
    """The addresses that the browser asked for since the page was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


@pytest.fixture(scope="module", params=["whole", "invalid, quick, one system"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = result_of()
    if request.param != "whole":
        alone = result_of(["student"], ["ner"], quick=True)
        result = with_first_row(alone, "student", failures=7, reasons={"status 503 " * 20: 7})
    file = tmp_path_factory.mktemp("page") / "table7.html"
    file.write_text(page.as_html(result), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_asks_for_nothing_and_follows_the_scheme(
    browser: Chrome, written: Path, width: int, scheme: str
) -> None:
    shown(browser, written, width=width, scheme=scheme)
    # What is folded away has to fit too.
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    assert requested(browser) - {"data:,"} == {written.as_uri()}
    ground, line = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('[style*=\"--blue\"]'))"
        ".getPropertyValue('--blue').trim()]"
    )
    colours = svg.LIGHT if scheme == "light" else svg.DARK
    red, green, blue = (int(colours["ground"][place : place + 2], 16) for place in (1, 3, 5))
    assert ground == f"rgb({red}, {green}, {blue})"
    assert line == colours["blue"]


def test_no_text_of_a_figure_is_clipped_or_overlaps_another(browser: Chrome, written: Path) -> None:
    shown(browser, written, width=1100, scheme="light")
    found = browser.execute_script(CLIPPED_OR_OVERLAPPING)
    assert found["texts"] > 20
    assert found["clipped"] == []
    assert found["overlapping"] == []
