"""A system is trained once on a corpus, and never taken for one that was trained on another."""

import json
from pathlib import Path

import pytest

from benchmarks.peers import training
from benchmarks.peers.system import TRAINED
from benchmarks.peers.training import STAMP, PeerTrainingError, Trainer, trained
from tests.benchmarks.peers.tiny import write_corpus
from train.corpora import Corpus, load_corpus


def test_everything_that_can_be_asked_for_has_a_trainer() -> None:
    assert tuple(training.TRAINERS) == TRAINED


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_corpus(str(write_corpus(tmp_path / "en_tiny")))


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The corpora that a made-up trainer was given."""
    given: list[str] = []

    def train(corpus: Corpus, source: str, folder: Path) -> None:
        given.append(source)
        if source == "broken":
            raise ValueError("no memory left")
        folder.mkdir(parents=True)

    monkeypatch.setattr(training, "TRAINERS", {"made-up": Trainer(train, "numpy", "a moment")})
    return given


def test_a_trained_system_is_not_trained_again(corpus: Corpus, sources: list[str], tmp_path: Path) -> None:
    first = trained("made-up", corpus, "somewhere", tmp_path / "run")
    assert trained("made-up", corpus, "somewhere", tmp_path / "run") == first
    assert sources == ["somewhere"]
    assert first["corpus"] == "en_tiny"
    assert first["seconds"] >= 0


def test_another_corpus_of_the_same_name_is_refused(
    corpus: Corpus, sources: list[str], tmp_path: Path
) -> None:
    trained("made-up", corpus, "a", tmp_path / "run")
    fewer = Corpus(corpus.name, corpus.language, corpus.train[1:], corpus.dev, corpus.test)
    with pytest.raises(PeerTrainingError, match=r"trained on another en_tiny; delete .*made-up"):
        trained("made-up", fewer, "a", tmp_path / "run")


def test_training_that_fails_leaves_no_stamp(corpus: Corpus, sources: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no memory left"):
        trained("made-up", corpus, "broken", tmp_path / "run")
    assert not (tmp_path / "run" / "made-up" / STAMP).exists()


def test_the_stamp_has_versions_and_date(corpus: Corpus, sources: list[str], tmp_path: Path) -> None:
    stamp = trained("made-up", corpus, "a", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "made-up" / STAMP).read_text(encoding="utf-8")) == stamp
    assert stamp["package"] == "numpy"
    assert {"version", "machine", "date", "digest"} <= set(stamp)
