"""Each system under comparison learns a small corpus, is loaded again, and its answers are read aright."""

from pathlib import Path
from typing import Any

import pytest
from spacy.vocab import Vocab

from benchmarks.peers.measure import Scores, scores
from benchmarks.peers.system import System
from benchmarks.peers.systems import crfsuite, ours, spacy_pipeline, udpipe
from benchmarks.peers.systems.ours import BUNDLES
from tests.benchmarks.peers.tiny import write_corpus
from tests.export.tiny_models import run_folder
from train.corpora import Corpus, Sentence, conllu_file, load_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(str(folder_of(tmp_path_factory)), language="en")


def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "en_tiny")


def points(system: System, corpus: Corpus) -> Scores:
    sentences = [sentence.words for sentence in corpus.test]
    return scores(system.read(system.annotate(sentences)), corpus.test)


def test_crfsuite_learns_and_leaves_nothing_but_its_model(corpus: Corpus, tmp_path: Path) -> None:
    crfsuite.train(corpus, tmp_path, iterations=60)
    [system] = crfsuite.load(tmp_path).values()
    assert system.parameters
    found = points(system, corpus)
    assert found.f1 == 100
    assert found.las is None
    system.renew()
    assert points(system, corpus) == found
    assert [path.name for path in tmp_path.iterdir()] == [crfsuite.MODEL]


def test_crfsuites_features_of_a_word_are_those_of_its_neighbours_too() -> None:
    first, second, _ = crfsuite.features(["Ada's", "2nd", "-"])
    assert {
        "word=Ada's",
        "prefix=ada",
        "suffix=a's",
        "0:shape=Xxx'x",
        "0:short=Xx'x",
        "-1:none",
        "1:lower=2nd",
    } <= set(first)
    assert {"0:shape=0xx", "0:digit", "-1:capital", "1:hyphen", "1:mark", "2:none"} <= set(second)


def test_a_crfsuite_model_that_is_damaged_is_an_error_that_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / crfsuite.MODEL).write_bytes(b"no model")
    with pytest.raises(ValueError, match=f"delete {tmp_path}"):
        crfsuite.load(tmp_path)


def test_spacy_is_trained_with_its_own_configuration_and_read_aright(corpus: Corpus, tmp_path: Path) -> None:
    spacy_pipeline.train(corpus, tmp_path / "spacy", steps=60)
    systems = spacy_pipeline.load(tmp_path / "spacy")
    both = points(systems["spacy"], corpus)
    assert both.f1 is not None
    assert both.las is not None
    assert both.f1 > 90
    assert both.las > 90
    assert points(systems["spacy_ner"], corpus) == Scores(f1=both.f1)
    alone = points(systems["spacy_parse"], corpus)
    assert (alone.f1, alone.las) == (None, both.las)
    sizes = [systems[name].parameters or 0 for name in ("spacy_ner", "spacy_parse", "spacy")]
    assert sizes == sorted(sizes)
    assert sizes[0] > 100_000


def test_udpipe_is_trained_on_a_file_and_read_aright(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = str(folder_of(tmp_path_factory))
    udpipe.train(conllu_file(folder, "train"), conllu_file(folder, "dev"), tmp_path)
    [system] = udpipe.load(tmp_path).values()
    found = points(system, load_corpus(folder))
    assert found.f1 is None
    assert found.las is not None
    assert found.las > 90


def test_spacy_is_trained_on_the_types_as_they_are_called() -> None:
    tags = ("B-CREATIVE-WORK", "E-CREATIVE-WORK", "S-NEWS-ORG")
    sentence = Sentence(("a", "b", "c"), tags=tags, heads=(0, 1, 1), deprels=("root", "x", "x"))
    [doc] = spacy_pipeline._to_docs([sentence]).get_docs(Vocab())
    assert [(span.text, span.label_) for span in doc.ents] == [("a b", "CREATIVE-WORK"), ("c", "NEWS-ORG")]


def test_udpipe_names_a_file_that_it_can_not_read(tmp_path: Path) -> None:
    broken = tmp_path / "train.conllu"
    broken.write_text("1\tword\n\n")
    with pytest.raises(ValueError, match=r"train\.conllu"):
        udpipe.train(broken, broken, tmp_path / "udpipe")
    (tmp_path / "model.udpipe").write_bytes(b"no model")
    with pytest.raises(ValueError, match=f"delete {tmp_path}"):
        udpipe.load(tmp_path)


def test_our_bundles_are_exported_once_and_know_no_word_of_the_test_split_alone(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path / "ours", {"ner": "crf", "parse": "biaffine"})
    students = {
        name: each for name, each in BUNDLES.items() if (each.role, each.precision) == ("student", "fp32")
    }
    monkeypatch.setattr(ours, "BUNDLES", students)
    monkeypatch.setattr("export.model.RANDOM_INPUTS", 32)
    systems = ours.load(run, corpus)
    assert set(systems) == {"ner_fp32", "parse_fp32"}
    when = (run / ours.FOLDER / "ner_fp32" / "manifest.json").stat().st_mtime_ns
    system = ours.load(run, corpus)["ner_fp32"]
    assert (run / ours.FOLDER / "ner_fp32" / "manifest.json").stat().st_mtime_ns == when
    annotate: Any = ours._system(students["ner_fp32"], run / ours.FOLDER / "ner_fp32", {"sola"}).annotate
    assert annotate.__self__.words.table.vocabulary == ["sola"]
    sentences = [["sola", "Marix", "unheard-of"], ["éü"]]
    once = system.read(system.annotate(sentences))
    system.renew()
    assert system.read(system.annotate(sentences)) == once
    assert once.tags is not None
    assert [len(tags) for tags in once.tags] == [3, 1]
    trees = systems["parse_fp32"].read(systems["parse_fp32"].annotate(sentences)).trees
    assert trees is not None
    assert [len(heads) for heads, _ in trees] == [3, 1]
    assert system.parameters
    assert system.size
