"""The load test's report of made-up results: its judgement, JSON, Markdown and figure."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtest import report
from loadtest.measurements import ClosedLoop, Conditions, Latency, MeasuredSystem, Result, Step, result_of
from loadtest.verdict import REQUIRED, figures, problems, remarks

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


def closed(speed: float, size: int, **changes: Any) -> ClosedLoop:
    requests = round(speed * 10 / size) or 1
    connections = 16 if size == 1 else 4
    wait = 1000 * connections * size / speed
    whole = ClosedLoop(
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


def system(key: str, task: str, **changes: Any) -> MeasuredSystem:
    batch, single = SPEEDS[key][task]
    steps = [step(speed, size, share) for size, speed in ((1, single), (32, batch)) for share in SHARES]
    if key == "student":
        steps = [
            replace(each, latency=replace(each.latency, p99=P99_AT_HALF[task]))
            if each.share == 0.5 and each.sentences_a_request == 1
            else each
            for each in steps
        ]
    random = key == "paper-shape"
    whole = MeasuredSystem(
        key=key,
        task=task,
        name=f"made-up-{task}-{key}",
        kind="student" if key.startswith("student") else "teacher",
        parameters=PARAMETERS[key],
        precision="int8" if key == "student-int8" else "fp32",
        has_accuracy=not random,
        scores={} if random else SCORES[task],
        checked="41 entities in 32 sentences" if task == "ner" else "570 arcs in 32 sentences",
        closed=[
            closed(speed * pace, size, round=number)
            for number, pace in enumerate((0.95, 1.0, 1.1), start=1)
            for size, speed in ((1, single), (32, batch))
        ],
        steps=[] if random else steps,
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


def made_up(
    keys: Sequence[str] = tuple(SPEEDS), tasks: Sequence[str] = ("ner", "parse"), **conditions: Any
) -> Result:
    systems = [system(key, task) for task in tasks for key in keys]
    return Result(systems, replace(CONDITIONS, **conditions), skipped=[])


def with_first_row(result: Result, key: str, **changes: Any) -> Result:
    """The same with another first closed loop of the named entities' system `key`."""
    systems = [
        replace(each, closed=[replace(each.closed[0], **changes), *each.closed[1:]])
        if (each.key, each.task) == (key, "ner")
        else each
        for each in result.systems
    ]
    return replace(result, systems=systems)


def with_step(result: Result, key: str, share: float, **changes: Any) -> Result:
    """The same with another step of the named entities' system `key`, one sentence a request."""
    systems = [
        replace(
            each,
            steps=[
                replace(row, **changes) if (row.share, row.sentences_a_request) == (share, 1) else row
                for row in each.steps
            ],
        )
        if (each.key, each.task) == (key, "ner")
        else each
        for each in result.systems
    ]
    return replace(result, systems=systems)


def rows_of(markdown: str, first: str) -> list[list[str]]:
    """The cells of all table rows that begin with `first`."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    return [row for row in cells if len(row) > 1 and row[0].startswith(first)]


def test_every_figure_is_of_the_worse_task_and_of_the_median_round() -> None:
    assert figures(made_up()) == {
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
    result = made_up(keys)
    assert set(figures(result)) == expected
    rendered = report.as_json(result)
    assert expected == set(REQUIRED) & set(rendered)
    for key, judged in rendered["required"].items():
        assert (judged["met"] is None) == (key not in expected)
    assert "Conditions" in report.as_markdown(result)


def test_a_figure_that_misses_its_goal_is_marked_and_makes_nothing_invalid() -> None:
    slow = with_step(made_up(), "student", 0.5, latency=Latency(5.0, 10.0, 15.5))
    required = report.as_json(slow)["required"]
    assert required["p99_ms_at_half"] == {
        "meaning": REQUIRED["p99_ms_at_half"].meaning,
        "at_most": 15,
        "figure": 15.5,
        "met": False,
    }
    assert required["http_vs_paper_shape"]["met"] is True
    assert problems(slow) == []
    (row,) = rows_of(report.as_markdown(slow), "p99 in ms")
    assert row[1:] == ["15.5", "12.2", "–", "at most 15", "no"]


def test_the_targets_are_those_that_were_set() -> None:
    targets = {key: (target.value, target.at_least) for key, target in REQUIRED.items()}
    assert targets == {
        "http_vs_paper_shape": (300, True),
        "http_int8_vs_paper_shape": (600, True),
        "http_single_vs_paper_shape": (150, True),
        "params_vs_paper_shape": (20, True),
        "http_vs_run_teacher": (35, True),
        "p99_ms_at_half": (15, False),
    }
    assert REQUIRED["http_vs_run_teacher"].met(35.0)
    assert not REQUIRED["http_vs_run_teacher"].met(34.99)
    assert REQUIRED["p99_ms_at_half"].met(15.0)


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
def test_the_report_begins_with_problems_that_name_the_measurement(
    changes: dict[str, Any], said: str
) -> None:
    result = with_first_row(made_up(), "student", **changes)
    problem = f"ner, student, 1 sentence a request, round 1: {said}"
    assert problems(result) == [problem]
    assert report.as_json(result)["valid"] is False
    markdown = report.as_markdown(result)
    assert markdown.index(problem) < markdown.index("| ")


@pytest.mark.parametrize(("share", "invalid"), [(0.5, True), (0.75, True), (0.9, False), (1.1, False)])
def test_a_refusal_is_a_problem_only_where_the_server_had_capacity_left(share: float, invalid: bool) -> None:
    found = problems(with_step(made_up(), "student", share, refused=2))
    assert bool(found) == invalid
    assert all("requests were refused" in problem for problem in found)


def test_a_refusal_of_a_server_that_was_saturated_before_its_time_is_a_remark() -> None:
    result = with_step(made_up(), "student", 0.75, refused=2, server_cpu=0.97)
    assert problems(result) == []
    assert any(
        "requests were refused, since the server was saturated (97%" in said for said in remarks(result)
    )


def test_a_report_can_be_drawn_anew_from_its_json() -> None:
    result = made_up()
    again = result_of(json.loads(json.dumps(report.as_json(result))))
    assert again == result
    assert report.as_markdown(again) == report.as_markdown(result)


def test_a_step_without_an_answer_is_a_problem_and_gives_no_latency() -> None:
    nothing = Latency(0.0, 0.0, 0.0)
    result = made_up(["student"], ["ner"])
    dead = with_step(result, "student", 0.5, completed_per_second=0.0, latency=nothing)
    assert figures(dead) == {}
    assert problems(dead) == [
        "ner, student, 1 sentence a request, 50% of the capacity: no request was answered"
    ]


def test_a_system_that_answered_nothing_gives_no_ratio() -> None:
    result = made_up(["paper-shape", "student"], ["ner"])
    silent = replace(result.systems[0], closed=[])
    broken = replace(result, systems=[silent, *result.systems[1:]])
    assert set(figures(broken)) == {"params_vs_paper_shape", "p99_ms_at_half"}
    assert problems(broken) == ["ner, paper-shape: nothing was measured"]
    assert json.dumps(report.as_json(broken), allow_nan=False)


def test_remarks_name_rough_figures_and_shared_cores() -> None:
    assert remarks(made_up(["student"])) == []
    result = replace(
        made_up(["paper-shape", "student"], ["ner"], quick=True, generator_cores=[0]),
        skipped=["ner, paper-shape, open loop: a step would take 80 s"],
    )
    result = with_first_row(result, "student", sentences_per_second=700.0)
    said = remarks(result)
    assert said == [
        "paper-shape has random weights: exact for speed and size, no accuracy",
        "a quick run: short windows, one round, rough figures",
        "server and generator shared a core: what limits a figure is not known",
        "ner, paper-shape, 32 sentences a request: 5 requests in all rounds, so its figure is rough",
        "ner, student, 1 sentence a request: rounds differ, 700.0 to 1,100.0 sentences/s",
        "left out: ner, paper-shape, open loop: a step would take 80 s",
    ]
    markdown = report.as_markdown(result)
    assert all(f"- {each}" in markdown for each in said)


def test_a_machine_that_was_busy_and_a_server_that_was_not_are_remarks() -> None:
    busy = with_step(made_up(["student"]), "student", 0.5, foreign_cpu=0.64, requests=36)
    assert remarks(busy) == [
        "other processes used up to 0.6 cores while it measured: not a quiet machine",
        "ner, student: steps of 36 requests and more, so their p99 is about the longest of them",
    ]
    assert problems(busy) == []
    idle = made_up(["student"], ["ner"])
    systems = [
        replace(each, closed=[replace(row, server_cpu=0.5) for row in each.closed]) for each in idle.systems
    ]
    assert remarks(replace(idle, systems=systems)) == [
        "ner, student, 1 sentence a request: the server used 50% of a core, it could have done more",
        "ner, student, 32 sentences a request: the server used 50% of a core, it could have done more",
    ]


def test_table_7_has_speed_size_and_score_of_each_system_with_the_papers_beside_them() -> None:
    markdown = report.as_markdown(made_up())
    shape = rows_of(markdown, "Teacher of the paper's size")
    student = [row for row in rows_of(markdown, "Student") if row[0] == "Student"]
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


def test_a_report_with_the_teacher_of_random_weights_says_that_it_has_no_accuracy() -> None:
    assert "has no accuracy" in report.as_markdown(made_up())
    assert "no accuracy" not in report.as_markdown(made_up(["teacher", "student"]))


def test_the_json_report_holds_every_row_and_reads_back_the_same() -> None:
    result = made_up()
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


def test_the_figure_has_a_bar_for_each_system_and_the_same_bytes_for_the_same_result() -> None:
    svg = report.as_figure(made_up())
    assert svg == report.as_figure(made_up())
    texts = {"".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    assert {"1,750", "Dependency trees: student, int8", "The paper: student", "672"} <= texts
    alone = report.as_figure(made_up(["student"], ["ner"]))
    assert "Dependency trees" not in alone
    assert "The paper: teacher" in report.as_figure(replace(made_up(), systems=[]))
