"""What a load test is made of: sentences, bundles, checks, plans, windows and the arithmetic of outcomes."""

import itertools
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.check import CheckError, check_answers, check_model
from loadtest.http_client import Exchange, Failure, Request
from loadtest.markdown import page, table
from loadtest.measurements import closed_loop_of, percentile, sentences_within, step_of
from loadtest.plan import OpenPlan, StepPlan, Window, WindowClock
from loadtest.processes import CpuShares
from loadtest.sentences import SentencesError, evenly_mixed, read_sentences, requests_of, van_der_corput
from loadtest.server import Server, ServerError, serving
from loadtest.systems import KINDS, Bundle, MissingBundleError, UnfitBundleError, candidates, read_bundle

FAKE_SERVER = Path(__file__).with_name("fake_server.py")
FAKE_COMMAND = (sys.executable, str(FAKE_SERVER))
IDLE = CpuShares(0.0, 0.0)


def make_bundle(folder: Path, **manifest: Any) -> Path:
    folder.mkdir(parents=True)
    whole = {"name": "ud/he ner", "task": "ner", "parameters": 1, "digest": "ab12cd", **manifest}
    (folder / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder


@contextmanager
def fake_server(folder: Path, task: str, **fake: Any) -> Iterator[tuple[Server, Bundle]]:
    bundle = read_bundle(make_bundle(folder, task=task, fake=fake))
    with serving({bundle.served_as: bundle.folder}, command=FAKE_COMMAND, timeout=30) as server:
        yield server, bundle


def test_sentences_are_lines_and_tokens_are_split_by_white_space(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text("שלום עולם\n\nA  b\tc\n", encoding="utf-8")
    assert read_sentences(file) == [["שלום", "עולם"], ["A", "b", "c"]]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_file_without_usable_sentences_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "test.txt"
    file.write_bytes(content)
    with pytest.raises(SentencesError, match=r"test\.txt"):
        read_sentences(file)


def test_every_request_has_as_many_sentences_as_it_should() -> None:
    sentences = [[str(number)] * 2 for number in range(7)]
    made = requests_of(sentences, 3, path="/ner")
    assert [(each.sentences, each.tokens) for each in made] == [(3, 6), (3, 6)]
    head, body = made[1].content.split(b"\r\n\r\n")
    assert head.startswith(b"POST /ner HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"sentences": [["3", "3"], ["4", "4"], ["5", "5"]]}
    [repeated] = requests_of(sentences[:2], 3, path="/ner", kind="texts")
    assert json.loads(repeated.content.split(b"\r\n\r\n")[1]) == {"texts": ["0 0", "1 1", "0 0"]}
    with pytest.raises(ValueError, match="no sentence"):
        requests_of([], 3, path="/ner")


@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 100])
def test_the_mixed_order_has_everything_once(count: int) -> None:
    assert sorted(van_der_corput(count)) == list(range(count))


def test_every_stretch_of_the_mixed_order_has_the_mean_length_of_all() -> None:
    chance = random.Random(1)
    sentences = [["a"] * round(chance.expovariate(1 / 18) + 1) for _ in range(512)]
    mean = sum(map(len, sentences)) / len(sentences)
    mixed = evenly_mixed(sentences)
    assert sorted(map(len, mixed)) == sorted(map(len, sentences))
    means = [sum(map(len, mixed[at : at + 32])) / 32 for at in range(0, 512, 8)]
    shuffled = [sum(map(len, sentences[at : at + 32])) / 32 for at in range(0, 512, 8)]
    assert max(abs(each / mean - 1) for each in means[:61]) < 0.15
    assert max(abs(each / mean - 1) for each in shuffled[:61]) > 0.3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON manifest"),
        ("[]", "not a JSON manifest"),
        ('{"name": "a", "task": "pos", "parameters": 1}', "field task"),
        ('{"name": "", "task": "ner", "parameters": 1}', "field name"),
        ('{"name": "a", "task": "ner"}', "field parameters"),
        ('{"name": "a", "task": "ner", "parameters": true}', "field parameters"),
        (
            '{"name": "a", "task": "ner", "parameters": 1, "scores": {"test": {"f1": "high"}}}',
            "field scores",
        ),
    ],
)
def test_a_manifest_that_lacks_something_is_an_error_that_names_the_field(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(UnfitBundleError, match=message) as caught:
        read_bundle(tmp_path)
    assert "manifest.json" in str(caught.value)


def test_the_scores_of_a_quantised_bundle_are_those_that_are_left(tmp_path: Path) -> None:
    folder = make_bundle(
        tmp_path / "ner",
        precision="int8",
        scores={"test": {"f1": 71.25}},
        quantisation={"loss": {"test": {"f1": 0.5}}},
    )
    assert read_bundle(folder).test_scores == {"f1": 70.75}


def test_random_weights_have_no_accuracy_whatever_the_manifest_says(tmp_path: Path) -> None:
    folder = make_bundle(
        tmp_path / "ner", provenance={"weights": "random weights, seed 1"}, scores={"test": {"f1": 3.0}}
    )
    bundle = read_bundle(folder)
    assert not bundle.has_accuracy
    assert bundle.test_scores == {}


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the usual bundles of both tasks for student and teacher, as the current one."""
    for key, task in itertools.product(("student", "teacher"), ("ner", "parse")):
        make_bundle(tmp_path / KINDS[key].folder.format(task=task), name=f"{key}-{task}", task=task)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_systems_are_found_in_their_usual_places_task_by_task(usual: Path) -> None:
    found = candidates(["teacher", "student"], {}, ["ner", "parse"], run=Path("runs/quickstart"))
    assert [each.bundle.name for each in found] == [
        "teacher-ner",
        "student-ner",
        "teacher-parse",
        "student-parse",
    ]


def test_a_folder_that_is_given_takes_the_place_of_the_usual_one_and_decides_the_task(usual: Path) -> None:
    mine = make_bundle(usual / "mine", name="mine", task="parse")
    found = candidates(["teacher", "student"], {"student": [mine]}, ["ner", "parse"], run=Path("runs/a"))
    assert [each.bundle.name for each in found] == ["teacher-parse", "mine"]


def test_a_missing_bundle_is_an_error_that_names_the_command_that_makes_it(usual: Path) -> None:
    with pytest.raises(MissingBundleError) as caught:
        candidates(["student", "paper-shape"], {}, ["ner"], run=Path("runs/mine"))
    assert "python -m export.paper_shape runs/mine" in str(caught.value)
    assert "--systems student" in str(caught.value)


def test_two_bundles_of_one_system_and_task_are_refused(usual: Path) -> None:
    two = [make_bundle(usual / name, name=name) for name in ("one", "two")]
    with pytest.raises(UnfitBundleError, match="a second student for the task ner"):
        candidates(["student"], {"student": two}, ["ner"], run=Path("runs/a"))


def test_a_bundle_of_another_task_than_its_folder_says_is_refused(usual: Path) -> None:
    make_bundle(usual / "bundles" / "ner-int8", task="parse")
    with pytest.raises(UnfitBundleError, match="its task is parse, expected ner"):
        candidates(["student-int8"], {}, ["ner"], run=Path("runs/a"))


def test_a_task_for_which_one_system_is_given_and_another_is_not_is_refused(usual: Path) -> None:
    given = {
        "student": [usual / "bundles/ner", usual / "bundles/parse"],
        "teacher": [usual / "bundles/teachers/ner"],
    }
    with pytest.raises(
        UnfitBundleError, match="no teacher for the task parse: give its folder with --teacher too"
    ):
        candidates(["student", "teacher"], given, ["ner"], run=Path("runs/a"))


def test_a_good_answer_passes_the_check(tmp_path: Path) -> None:
    with fake_server(tmp_path / "ner", "ner") as (server, bundle):
        assert check_model(server, bundle)["max_queue_tokens"] == 4096
        assert check_answers(server, bundle, [["a", "b"], ["c"]]) == "2 entities in 2 sentences"


@pytest.mark.parametrize(("fake", "message"), [({"model": "other"}, "expected"), ({"version": "ff"}, "'ff'")])
def test_another_model_or_version_than_the_bundle_fails_the_check(
    tmp_path: Path, fake: dict[str, str], message: str
) -> None:
    with (
        fake_server(tmp_path / "ner", "ner", **fake) as (server, bundle),
        pytest.raises(CheckError, match=message),
    ):
        check_model(server, bundle)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([0, 0, 1], "2 roots"),
        ([2, 1, 0], "circle"),
        ([0, 1, 4], "outside"),
        ([0, 1], "3 tokens, 2 heads"),
    ],
)
def test_heads_that_are_no_tree_fail_the_check(tmp_path: Path, heads: list[int], message: str) -> None:
    with (
        fake_server(tmp_path / "parse", "parse", heads=heads) as (server, bundle),
        pytest.raises(CheckError, match=message),
    ):
        check_answers(server, bundle, [["a", "b", "c"]])


def test_a_server_that_is_never_ready_is_an_error() -> None:
    sleeper = [sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(60)"]
    with pytest.raises(ServerError, match="not ready after 1 s"), serving({}, command=sleeper, timeout=1):
        raise AssertionError("it cannot be ready")


def test_a_table_escapes_pipes_and_a_page_html() -> None:
    assert "a\\|b" in table(["x"], [["a|b"]])
    shown = page("<T>", table(["", "n"], [["<script>", "1"]]))
    assert "<script>" not in shown
    assert "<title>&lt;T&gt;</title>" in shown
    assert '<td style="text-align:right">1</td>' in shown


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    assert percentile([], 99) == 0.0


def answered(
    sent: float, done: float, sentences: int = 1, *, status: int = 200, failure: Failure = ""
) -> Exchange:
    request = Request(b"", sentences, 10 * sentences)
    return Exchange(request, sent, sent, done, status, results=sentences, failure=failure)


def test_a_request_under_way_at_an_edge_counts_for_the_part_inside() -> None:
    exchanges = [answered(0, 2, 32), answered(2, 4, 32), answered(4, 6, 32), answered(1, 5, 8, status=500)]
    assert sentences_within(exchanges, 1, 5) == 16 + 32 + 16
    assert sentences_within(exchanges, 10, 20) == 0


@pytest.mark.parametrize("start", [0.0, 0.3, 0.99, 1.01])
def test_a_closed_loop_gives_its_throughput_wherever_its_window_lies(start: float) -> None:
    """Four clients whose requests are answered together every second, as a batching server does."""
    exchanges = [answered(at, at + 1, 32) for at in range(10) for _ in range(4)]
    row = closed_loop_of(
        exchanges, start=start, end=start + 2.5, round_number=1, size=32, connections=4, cpu=IDLE
    )
    assert row.sentences_per_second == pytest.approx(128)
    assert row.latency.p50 == row.latency.p99 == 1000


def test_failures_of_a_closed_loop_count_whenever_they_happen() -> None:
    exchanges = [answered(0, 1, status=500), answered(1, 2), answered(2, 3), answered(3, 9, failure="broken")]
    row = closed_loop_of(exchanges, start=1, end=3, round_number=2, size=1, connections=1, cpu=IDLE)
    assert (row.failures, row.reasons) == (2, {"status 500": 1, "broken": 1})
    assert (row.requests, row.sentences, row.tokens, row.sentences_per_second) == (2, 2, 20, 1.0)


def test_a_step_counts_requests_by_their_intended_times() -> None:
    exchanges = [
        answered(0.5, 0.6),  # before the window
        replace(answered(1.2, 1.25), intended=1.0),  # sent late: 250 ms
        answered(1.5, 1.51),
        answered(1.6, 1.61, status=429),
        answered(1.7, 1.8, status=500),
        answered(1.9, 2.4),  # answered after the window
    ]
    step = step_of(exchanges, start=1, end=2, size=1, share=0.5, objective_ms=300, cpu=CpuShares(0.5, 0.1))
    assert (step.requests, step.refused, step.failures) == (5, 1, 1)
    assert step.reasons == {"status 500": 1}
    assert (step.offered_per_second, step.completed_per_second, step.goodput_per_second) == (5, 2, 2)
    assert step.latency.p50 == pytest.approx(250)
    assert step.latency.p99 == pytest.approx(500)


def test_a_window_opens_when_every_client_was_answered_and_closes_with_enough_answers() -> None:
    clock = WindowClock(Window(1, 10, 2, 3, 20), clients=2, began=100)
    clock.note(0, 101.5, answered=True)
    assert clock.opened is None  # the other client still waits
    clock.note(1, 102, answered=True)
    assert clock.opened == 102
    clock.note(0, 103, answered=True)
    clock.note(0, 104.5, answered=False)
    clock.look(105)
    assert clock.closed is None  # one answer inside
    clock.note(1, 106, answered=True)
    clock.note(0, 107, answered=True)
    assert (clock.closed, clock.answered) == (107, 3)


def test_a_window_opens_and_closes_in_time_though_nothing_is_answered() -> None:
    clock = WindowClock(Window(1, 10, 2, 3, 20), clients=2, began=100)
    for now in range(100, 130):
        clock.look(now)
    assert (clock.opened, clock.closed) == (110, 120)


def test_a_step_takes_as_long_as_its_requests_need_and_none_is_made_that_would_take_too_long() -> None:
    plan = OpenPlan(size=1, percents=(25, 50), step=10, requests=40, longest_step=45, objective_ms=50)
    assert plan.steps(1000.0) == (StepPlan(25, 10), StepPlan(50, 10))
    assert plan.steps(8.0) == (StepPlan(25, 20.0), StepPlan(50, 10))
    assert "the step of 25 % would take 80 s" in plan.steps(2.0)
    assert "no request was answered" in plan.steps(0.0)
