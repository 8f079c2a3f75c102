"""The report of made-up systems: its figures, tables and picture."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.peers.figure import MARKERS, accuracy_against_speed
from benchmarks.peers.measure import Scores, Speed
from benchmarks.peers.report import ORDER, REQUIRED, Measured, PeerResults, as_json, as_markdown, figures


def row(title: str, speed: float, **points: float) -> Measured:
    return Measured(title, 9_500_000, 38_000_000, Scores(**points), Speed(100, 1000, (1000 / speed,)))


ROWS = {
    "ner_fp32": row("student, entities", 60_000, f1=70.0),
    "ner_int8": row("student, entities, int8", 90_000, f1=69.5),
    "parse_fp32": row("student, trees", 40_000, uas=88.0, las=82.0, uas_all=86.0, las_all=81.0),
    "spacy": row(
        "spaCy, both in one pipeline", 5_000, f1=62.0, uas=84.0, las=81.5, uas_all=82.0, las_all=80.0
    ),
    "spacy_ner": row("spaCy, entities alone", 8_000, f1=62.0),
}
RESULT = PeerResults(
    systems=ROWS,
    corpus="en_ewt",
    sentences=100,
    tokens=1000,
    rounds=5,
    students={"seed": 1, "encoder": "an encoder", "vectors": "glove-100d"},
    training={"spacy": {"seconds": 600.0, "resumed": False}, "ours": {"seconds": 60.0, "resumed": True}},
    machine={"cpu": "Some processor", "cores": 2},
    versions={"spacy": "3.8"},
    date="2026-01-31T12:00:00+00:00",
)


def test_the_figures_are_differences_and_ratios_against_spacys_pipeline_of_both() -> None:
    found = figures(ROWS)
    assert found["f1_minus_spacy"] == 8
    assert found["las_minus_spacy"] == 0.5
    assert found["ner_vs_spacy_speed"] == pytest.approx(12)
    assert found["parse_vs_spacy_speed"] == pytest.approx(8)
    assert found["ner_vs_spacy_alone"] == pytest.approx(7.5)
    assert found["ner_int8_vs_spacy_speed"] == pytest.approx(18)
    assert found["both_vs_spacy_speed"] == pytest.approx(24_000 / 5_000)  # 1 / (1/60,000 + 1/40,000) = 24,000
    assert list(found)[:4] == list(REQUIRED)


def test_without_spacy_there_is_nothing_to_compare_with() -> None:
    assert figures({name: each for name, each in ROWS.items() if not name.startswith("spacy")}) == {}


def test_the_json_report_has_the_figures_at_its_top_and_missed_goals() -> None:
    report = as_json(RESULT)
    assert json.loads(json.dumps(report, allow_nan=False))["f1_minus_spacy"] == 8
    assert report["required"]["las_minus_spacy"]["met"] is False
    assert report["required"]["ner_vs_spacy_speed"]["met"] is True
    assert report["systems"]["spacy_ner"]["scores"] == {"f1": 62}
    assert report["systems"]["spacy"]["sentences_per_second"] == 500


def test_the_markdown_has_a_row_for_each_system_the_missed_figures_and_the_conditions() -> None:
    text = re.sub(r"  +", " ", as_markdown(RESULT))
    assert "| `las_minus_spacy` | +0.50 | 1 | **no** |" in text
    assert "| student, entities | 70.00 | | | | 6,000 | 60,000 | 9.50 | 38 |" in text
    assert all(each.title in text for each in ROWS.values())
    for condition in ("an encoder", "glove-100d", "one seed (1)", "spacy 10 min", "Some processor"):
        assert condition in text
    assert "the slowest round" not in text
    assert "an encoder" not in as_markdown(replace(RESULT, students=None))


def test_rounds_that_lie_far_apart_and_samples_are_in_the_markdown() -> None:
    shaky = replace(ROWS["ner_fp32"], speed=Speed(20, 200, (1.0, 1.5)))
    text = as_markdown(replace(RESULT, systems=ROWS | {"ner_fp32": shaky}))
    assert "student, entities: the slowest round took 1.50 times the fastest" in text
    assert "Speed of student, entities: on 20 sentences" in text


def test_the_picture_has_a_point_for_each_system_of_a_task() -> None:
    text = accuracy_against_speed(ROWS)
    root = ElementTree.fromstring(text.encode())
    labels = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert labels.count("spaCy, both") == 2
    assert labels.count("student") == 2
    assert accuracy_against_speed(ROWS) == text


def test_every_system_of_the_report_has_a_marker() -> None:
    assert set(MARKERS) == set(ORDER)
