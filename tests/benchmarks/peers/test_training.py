"""A system is trained once on a corpus, and never taken for one that was trained on another."""

import json
from pathlib import Path

import pytest

from benchmarks.peers import training
from benchmarks.peers.system import TRAINED
from benchmarks.peers.training import STAMP, Trainer, TrainingError, trained
from tests.benchmarks.peers.tiny import write_corpus
from train.corpora import Corpus, load_corpus


def test_everything_that_can_be_asked_for_has_a_trainer() -> None:
    assert tuple(training.TRAINERS) == TRAINED


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_corpus(str(write_corpus(tmp_path / "en_tiny")))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The corpora that a made-up trainer was given."""
    given: list[str] = []

    def train(corpus: Corpus, source: str, folder: Path) -> None:
        given.append(source)
        if source == "broken":
            raise ValueError("no memory left")
        folder.mkdir(parents=True)

    monkeypatch.setattr(training, "TRAINERS", {"made-up": Trainer(train, "numpy", "a moment")})
    return given


def test_what_was_trained_before_is_taken_as_it_is(corpus: Corpus, seen: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    first = trained("made-up", corpus, "somewhere", tmp_path / "run", said.append)
    assert trained("made-up", corpus, "somewhere", tmp_path / "run", said.append) == first
    assert seen == ["somewhere"]
    assert said == ["made-up: training (usually a moment)"]
    assert first["corpus"] == "en_tiny"
    assert first["seconds"] >= 0


def test_another_corpus_of_the_same_name_is_refused(corpus: Corpus, seen: list[str], tmp_path: Path) -> None:
    trained("made-up", corpus, "a", tmp_path / "run", print)
    fewer = Corpus(corpus.name, corpus.language, corpus.train[1:], corpus.dev, corpus.test)
    with pytest.raises(TrainingError, match=r"trained on another en_tiny; delete .*made-up"):
        trained("made-up", fewer, "a", tmp_path / "run", print)


def test_training_that_fails_leaves_no_stamp(corpus: Corpus, seen: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no memory left"):
        trained("made-up", corpus, "broken", tmp_path / "run", print)
    assert not (tmp_path / "run" / "made-up" / STAMP).exists()


def test_the_stamp_says_with_what_and_when_it_was_trained(
    corpus: Corpus, seen: list[str], tmp_path: Path
) -> None:
    told = trained("made-up", corpus, "a", tmp_path / "run", print)
    assert json.loads((tmp_path / "run" / "made-up" / STAMP).read_text(encoding="utf-8")) == told
    assert told["package"] == "numpy"
    assert {"version", "machine", "date", "digest"} <= set(told)
