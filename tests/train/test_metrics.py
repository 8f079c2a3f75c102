import pytest

from train.corpora import Sentence
from train.metrics import attachment_scores, entity_scores
from train.report import gap_recovered, results_table


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


def test_the_closing_table_shows_the_share_of_the_gap_that_is_recovered() -> None:
    def row(system: str, objective: str, seed: int, metric: str, value: float) -> dict[str, object]:
        return {"task": "ner", "case": "1a", "system": system, "objective": objective, "labelled": 1,
                "unlabelled": 1, "seed": seed, "split": "test", "metric": metric, "value": value}  # fmt: skip

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
    lines = [[cell.strip() for cell in line.split("|")] for line in results_table(rows).splitlines()]
    assert any("F1 60.00 ± 1.41" in line for line in lines)
    assert any("25 %" in line for line in lines)
    assert gap_recovered(60, 60, 61) is None
