from typing import Any

import pytest

from train.corpora import Sentence
from train.metrics import attachment_counts, attachment_scores, entity_counts, entity_scores
from train.report import results_table
from train.results import comparison_rows, gap_recovered


def test_an_entity_counts_only_with_its_exact_span_and_type() -> None:
    gold = [Sentence(("a", "b", "c", "d"), tags=("B-X", "E-X", "O", "S-Y"))]
    scores = entity_scores(gold, [["B-X", "E-X", "S-Y", "S-X"]])
    assert scores["precision"] == pytest.approx(100 / 3)
    assert scores["recall"] == pytest.approx(50)
    assert scores["f1"] == pytest.approx(40)


def test_no_entities_found_is_a_score_of_zero_and_no_error() -> None:
    assert entity_scores([Sentence(("a",), tags=("S-X",))], [["O"]])["f1"] == 0


def test_attachment_is_counted_over_all_tokens_and_the_relation_needs_the_head() -> None:
    gold = [Sentence(("a", "b", "c"), heads=(2, 0, 2), deprels=("x", "root", "y"))]
    scores = attachment_scores(gold, [([2, 0, 1], ["z", "root", "y"])])
    assert scores == {"uas": pytest.approx(200 / 3), "las": pytest.approx(100 / 3)}


def test_tokens_of_a_relation_can_be_left_out_of_attachment() -> None:
    gold = [Sentence(("a", "b", "."), heads=(2, 0, 2), deprels=("x", "root", "punct"))]
    scores = attachment_scores(gold, [([2, 0, 1], ["z", "root", "punct"])], without={"punct"})
    assert scores == {"uas": 100, "las": 50}


def test_a_sentence_without_gold_can_not_be_scored() -> None:
    with pytest.raises(ValueError, match="gold"):
        entity_scores([Sentence(("a",))], [["O"]])


def test_entities_of_known_words_alone_do_not_count_in_gold_or_prediction() -> None:
    gold = [Sentence(("a", "b", "c", "d"), tags=("B-X", "E-X", "S-X", "O"))]
    counts = entity_counts(gold, [["B-X", "E-X", "S-Y", "S-X"]], known={"a", "c", "d"})
    assert counts.tolist() == [[1, 1, 1]]
    assert entity_counts(gold, [["O", "O", "O", "S-X"]], known=set("abcd")).tolist() == [[0, 0, 0]]


def test_known_words_do_not_count_in_attachment() -> None:
    gold = [Sentence(("a", "b", "c"), heads=(2, 0, 2), deprels=("x", "root", "y"))]
    assert attachment_counts(gold, [([2, 0, 1], ["z", "root", "y"])], known={"b"}).tolist() == [[2, 1, 0]]


def row(system: str, objective: str, seed: int, metric: str, value: float) -> dict[str, Any]:
    return {"task": "ner", "case": "1a", "system": system, "objective": objective, "labelled": 1,
            "unlabelled": 1, "seed": seed, "split": "test", "metric": metric, "value": value}  # fmt: skip


def test_what_is_kept_is_of_every_student_and_the_gap_of_distilled_ones_with_the_same_seed() -> None:
    rows = [row("teacher", "none", 1, "f1", 80.0)]
    rows += [row("student", "none", seed, "f1", value) for seed, value in ((1, 60.0), (2, 80.0))]
    rows += [
        row("student", "structural", seed, "f1", value) for seed, value in ((1, 65.0), (2, 72.0), (3, 70.0))
    ]
    rows += [row("student", "structural", 1, "precision", 1.0)]
    found = {(r["objective"], r["seed"], r["metric"]): r["value"] for r in comparison_rows(rows)}
    assert found == {
        ("none", 1, "kept"): 75.0,
        ("none", 2, "kept"): 100.0,
        ("structural", 1, "kept"): 81.25,
        ("structural", 1, "gap"): 25.0,
        ("structural", 2, "kept"): 90.0,  # no gap: its teacher is no better than the student alone
        ("structural", 3, "kept"): 87.5,  # none either: no student alone has this seed
    }


def test_the_teacher_of_another_objective_is_not_what_is_kept_of() -> None:
    rows = [row("teacher", "none", 1, "f1", 80.0), {**row("teacher", "none", 1, "f1", 50.0), "case": "token"}]
    rows += [row("student", "structural", 1, "f1", 40.0)]
    assert [r["value"] for r in comparison_rows(rows)] == [50.0]


def test_the_closing_table_shows_the_share_of_the_gap_that_is_recovered() -> None:
    rows = []
    for system, objective, seed, f1 in [
        ("teacher", "none", 1, 80.0),
        ("student", "none", 1, 59.0),
        ("student", "none", 2, 61.0),
        ("student", "structural", 1, 65.0),
        ("student", "structural", 2, 65.0),
    ]:
        rows += [
            row(system, objective, seed, m, v) for m, v in (("f1", f1), ("params", 1e6), ("sent_per_s", 10.0))
        ]
    rows += [row("student", "structural", seed, "agreement", value) for seed, value in ((1, 70.0), (2, 72.0))]
    rows += [row("student", "structural", seed, "unseen_f1", 40.0) for seed in (1, 2)]
    rows += comparison_rows(rows)
    headers, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in results_table(rows).splitlines()
    ]
    teacher, alone, distilled = [dict(zip(headers, line, strict=True)) for line in lines]
    assert (teacher["score"], teacher["kept %"], teacher["gap %"]) == ("F1 80.00", "", "")
    assert (alone["score"], alone["kept %"], alone["gap %"]) == ("F1 60.00 ± 1.41", "75.0 ± 1.8", "")
    assert distilled["gap %"] == "25 ± 5"
    assert (distilled["agreement"], distilled["unseen"]) == ("71.0 ± 1.4", "40.0 ± 0.0")
    assert all(len(line) <= 140 for line in results_table(rows).splitlines())
    assert gap_recovered(60, 60, 61) is None
