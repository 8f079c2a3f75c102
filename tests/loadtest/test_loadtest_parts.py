"""Sentences, bundles, checks of answers and the rendering of table 7."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest import report, server
from loadtest.__main__ import pair
from loadtest.bundles import Bundle, BundleError, read_bundle
from loadtest.check import CheckError, check_answers
from loadtest.measure import Load, Measurement, percentile
from loadtest.sentences import SentencesError, batches, read_sentences, request_body

FAKE_SERVER = Path(__file__).with_name("fake_server.py")
LOAD = Load(users=4, batch=32, duration=20, warm_up=5, input="tokens")
TEACHER = Bundle(Path("bundles/teachers/ner"), "he-ner-teacher", "ner", 118_000_000)
STUDENT = Bundle(Path("bundles/ner"), "he-ner", "ner", 2_000_000)


def measurement(speed: float, **changes: Any) -> Measurement:
    whole = Measurement(
        sentences_per_second=speed,
        requests_per_second=speed / 32,
        p50=10.0,
        p95=20.0,
        p99=30.0,
        requests=int(speed / 32 * 20),
        seconds=20.0,
        failures=0,
        reasons={},
    )
    return replace(whole, **changes)


def compared(slow: Measurement, fast: Measurement) -> report.Comparison:
    return report.Comparison(
        report.Row(TEACHER, slow, "41 entities in 32 sentences"),
        report.Row(STUDENT, fast, "40 entities in 32 sentences"),
    )


def under(tmp_path: Path) -> report.Conditions:
    return report.conditions(LOAD, workers=1, threads=1, path=tmp_path / "test.txt", sentences=[["a", "b"]])


@contextmanager
def serving(folder: Path, task: str, **fake: Any) -> Iterator[tuple[str, Bundle]]:
    folder.mkdir()
    manifest = {"name": "ud/he ner", "task": task, "parameters": 1, "fake": fake}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    bundle = read_bundle(folder)
    with server.running(
        bundle, command=[sys.executable, str(FAKE_SERVER)], workers=1, threads=1, timeout=30
    ) as url:
        yield url, bundle


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


def test_batches_keep_the_order_and_lose_no_sentence() -> None:
    sentences = [[str(number)] for number in range(7)]
    assert [len(batch) for batch in batches(sentences, 3)] == [3, 3, 1]
    assert [sentence for batch in batches(sentences, 3) for sentence in batch] == sentences
    with pytest.raises(SentencesError):
        batches(sentences, 0)


def test_a_request_carries_tokens_or_raw_text() -> None:
    assert json.loads(request_body([["É", "b"]], "tokens")) == {"sentences": [["É", "b"]]}
    assert json.loads(request_body([["É", "b"]], "texts")) == {"texts": ["É b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON manifest"),
        ("[]", "expected a JSON object"),
        ('{"name": "a", "task": "pos", "parameters": 1}', "field task"),
        ('{"name": "", "task": "ner", "parameters": 1}', "field name"),
        ('{"name": "a", "task": "ner"}', "field parameters"),
        ('{"name": "a", "task": "ner", "parameters": true}', "field parameters"),
    ],
)
def test_a_manifest_that_lacks_something_is_an_error_that_names_the_field(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(tmp_path)
    assert "manifest.json" in str(caught.value)


def test_bundles_are_paired_by_their_task_whatever_their_order(tmp_path: Path) -> None:
    for name, task in (("a", "ner"), ("b", "parse"), ("c", "parse"), ("d", "ner")):
        (tmp_path / name).mkdir()
        manifest = {"name": name, "task": task, "parameters": 1}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    pairs = pair([tmp_path / "a", tmp_path / "b"], [tmp_path / "c", tmp_path / "d"])
    assert [(teacher.name, student.name) for teacher, student in pairs] == [("a", "d"), ("b", "c")]
    with pytest.raises(BundleError, match="a second teacher"):
        pair([tmp_path / "a", tmp_path / "d"], [tmp_path / "d"])


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    assert percentile([], 99) == 0.0


def test_a_good_answer_passes_the_check(tmp_path: Path) -> None:
    with serving(tmp_path / "ner", "ner") as (url, bundle):
        assert check_answers(url, bundle, [["a", "b"], ["c"]], "tokens") == "2 entities in 2 sentences"
        assert check_answers(url, bundle, [["a", "b"]], "texts") == "1 entities in 1 sentences"


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
        serving(tmp_path / "parse", "parse", heads=heads) as (url, bundle),
        pytest.raises(CheckError, match=message),
    ):
        check_answers(url, bundle, [["a", "b", "c"]], "tokens")


def test_a_server_that_is_never_ready_is_an_error(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(60)"]
    with (
        pytest.raises(server.ServerError, match="not ready after 1 s"),
        server.running(STUDENT, command=sleeper, workers=1, threads=1, timeout=1),
    ):
        raise AssertionError("it cannot be ready")


def test_table_7_has_the_rows_and_columns_of_the_paper(tmp_path: Path) -> None:
    text = report.as_markdown([compared(measurement(100.0), measurement(2500.0))], under(tmp_path))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert rows[0][1:3] == ["Named entities: speed (sentences/second)", "Named entities: # param (M)"]
    assert rows[2] == ["Teacher", "100.00", "118.00", "27.76", "233.40"]
    assert rows[3] == ["Student", "2500.00", "2.00", "672.20", "9.46"]
    assert rows[4] == ["Ratio", "25.0× faster", "59.0× smaller", "24.2× faster", "24.7× smaller"]
    assert "4 users in a closed loop, 32 sentences a request" in text
    assert "not valid" not in text


def test_the_json_report_holds_ratios_conditions_and_the_papers_figures(tmp_path: Path) -> None:
    result = report.as_json([compared(measurement(100.0), measurement(2500.0))], under(tmp_path))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["tasks"]["ner"]["faster"] == 25.0
    assert result["tasks"]["ner"]["smaller"] == 59.0
    assert result["paper"]["teacher"] == {"sentences_per_second": 27.76, "parameters": 233_400_000}
    assert result["conditions"]["machine"]["cores"] >= 1
    assert result["conditions"]["versions"]["locust"]


def test_a_failure_is_said_first_and_an_unanswered_teacher_gives_no_ratio(tmp_path: Path) -> None:
    dead = measurement(0.0, requests=0, failures=7, reasons={"status 503": 7})
    both = [compared(dead, measurement(2500.0))]
    result = report.as_json(both, under(tmp_path))
    assert not result["valid"]
    assert result["tasks"]["ner"]["faster"] is None
    text = report.as_markdown(both, under(tmp_path))
    assert text.index("ner, teacher: 7 requests failed (7 × status 503)") < text.index("| Teacher")
    page = report.as_html(both, under(tmp_path))
    assert page.index("7 requests failed") < page.index("<table>")


def test_a_figure_of_few_requests_is_called_rough(tmp_path: Path) -> None:
    text = report.as_markdown([compared(measurement(40.0), measurement(2500.0))], under(tmp_path))
    assert "ner, teacher: only 25 requests were answered" in text
    assert "ner, student: only" not in text


def test_names_are_escaped_in_the_html_page(tmp_path: Path) -> None:
    odd = replace(STUDENT, name="<script>")
    row = report.Row(odd, measurement(2500.0), "fine")
    page = report.as_html(
        [report.Comparison(report.Row(TEACHER, measurement(100.0), "fine"), row)], under(tmp_path)
    )
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_duration_that_is_no_whole_number_of_seconds_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "--duration", "0s"],
        cwd=server.PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "expected whole seconds" in done.stderr
