"""The benchmark of the engine: what it times, and the figures of its report."""

import json
from pathlib import Path

import numpy as np

import structural_kd
from benchmarks import engine as bench
from benchmarks import profile
from export.products import PRODUCTS
from export.tagger_graph import emissions_graph
from tests.export.tiny_models import WORDS, bundle_of, card, model, sentences
from train.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def test_words_that_are_left_out_of_the_tables_are_composed_to_the_same_answers(tmp_path):
    bundle_of(tmp_path / "ner", "crf")
    predictor = structural_kd.load(tmp_path / "ner")
    texts = sentences(40)
    before = predictor.predict(texts)
    full = predictor.words
    predictor.words = bench.keep_words(full, set(WORDS[::3]))
    assert len(predictor.words.rows) == len(WORDS[::3])
    assert predictor.words.table.vocabulary == WORDS[::3]
    for word in WORDS[::3]:
        np.testing.assert_array_equal(predictor.words.row(word), full.row(word))
    assert [len(result.tags) for result in predictor.predict(texts)] == [len(r.tags) for r in before]
    predictor.words = bench.keep_words(full, set(WORDS))
    assert predictor.predict(texts) == before


def test_groups_hold_every_sentence_once():
    texts = sentences(100)
    assert [words for call in bench.groups(texts) for words in call] == texts
    ordered = [words for call in bench.sorted_groups([*texts, []]) for words in call]
    assert sorted(ordered) == sorted(texts)
    assert [len(words) for words in ordered] == sorted(len(words) for words in texts)
    assert max(map(len, bench.groups(texts))) == bench.BATCH


def test_the_graph_without_decoding_is_the_tagger_up_to_its_emissions():
    built = model(card("crf"))
    names = [node.op_type for node in emissions_graph(built, PRODUCTS["fp32"]).graph.node]
    assert names.count("Loop") == 1
    assert "ArgMax" not in names


def test_the_measured_students_have_the_sizes_of_the_recommended_recipe():
    measured, recommended = (load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in ("bench", "en_ewt"))
    for task, kind in (("ner", "crf"), ("parse", "biaffine")):
        ours, theirs = (recipe.tasks[task].students[kind] for recipe in (measured, recommended))
        for size in ("hidden_size", "layers", "arc_size", "relation_size", "character_features"):
            assert getattr(ours, size) == getattr(theirs, size)
    assert measured.vectors == recommended.vectors


def test_a_profile_names_the_operators_of_the_graph(tmp_path, capsys):
    built = bundle_of(tmp_path / "ner", "crf")
    (tmp_path / "texts.txt").write_text("".join(" ".join(words) + "\n" for words in sentences(20)))
    assert profile.main([str(tmp_path / "ner"), str(tmp_path / "texts.txt")]) == 0
    printed = capsys.readouterr().out
    assert "Gemm" in printed
    assert "Loop" in printed
    found = {operator.name: operator.calls for operator in profile.profile(tmp_path / "ner", sentences(20))}
    assert found["Gemm"] >= 2 * built.representation.context.lstm.num_layers
    (tmp_path / "empty.txt").write_text("\n")
    assert profile.main([str(tmp_path / "ner"), str(tmp_path / "empty.txt")]) == 2


def test_without_spacys_model_the_command_says_what_installs_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "SPACY_MODEL", "no_such_model_of_spacy")
    monkeypatch.setattr(bench, "measure", lambda run, bundles: bench.spacy_contestants([["a"]]))
    assert bench.main(["--out", str(tmp_path / "bench.json")]) == 1
    assert "run make bench, which installs it" in capsys.readouterr().err
    assert not (tmp_path / "bench.json").exists()


def test_memory_is_that_of_a_worker_that_answers(tmp_path):
    bundle_of(tmp_path / "ner", "crf")
    bundle_of(tmp_path / "parse", "biaffine")
    assert 20 < bench.measure_memory(tmp_path, sentences(3))["rss_mb"] < 2000


def test_the_committed_report_has_every_required_figure():
    report = json.loads((ROOT / "reports" / "bench.json").read_text(encoding="utf-8"))
    assert set(bench.REQUIRED) <= set(report)
