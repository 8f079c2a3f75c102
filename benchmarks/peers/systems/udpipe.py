"""UDPipe 1 (Straka and Straková 2017): tagger and parser, trained by its library as it does by itself.

Only the tagger has fewer iterations, see `TAGGER`. The parser reads tags and lemmas, so the tagger runs
before it and is timed with it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import ufal.udpipe as udpipe

from benchmarks.peers.system import Answers, Sentences, System, Tree, bytes_on_disk
from structural_kd.files import write_whole

TAGGER = "iterations=5"
"""In place of 20, which take three quarters of an hour more; the held-out split chooses among them. All other
settings are the library's own."""


def train(training: Path, heldout: Path, folder: Path) -> None:
    """Train tagger and parser on a CoNLL-U file with tags and lemmas; the held-out file chooses among them.

    Raises:
        ValueError: UDPipe refused a file; the message is its own.
    """
    error = udpipe.ProcessingError()
    model = udpipe.Trainer.train(
        "morphodita_parsito",
        *(_read_conllu(path) for path in (training, heldout)),
        udpipe.Trainer.NONE,
        TAGGER,
        udpipe.Trainer.DEFAULT,
        error,
    )
    if error.occurred():
        raise ValueError(f"{training}: {error.message}")
    write_whole(folder / "model.udpipe", model)


def _read_conllu(path: Path) -> Any:
    reader, error = udpipe.InputFormat.newConlluInputFormat(), udpipe.ProcessingError()
    reader.setText(path.read_text(encoding="utf-8"))
    sentences, sentence = udpipe.Sentences(), udpipe.Sentence()
    while reader.nextSentence(sentence, error):
        sentences.append(sentence)
        sentence = udpipe.Sentence()
    if error.occurred():
        raise ValueError(f"{path}: {error.message}")
    return sentences


def load(folder: Path) -> dict[str, System]:
    """The tagger and parser as one system."""
    path = folder / "model.udpipe"
    model = udpipe.Model.load(str(path))
    if not model:
        raise ValueError(f"{path}: is no UDPipe model, or is damaged; delete {folder} to train it again")
    title = "UDPipe 1 (tagger and parser)"
    return {"udpipe": System(title, partial(_annotate, model), _read, size=bytes_on_disk(path))}


def _annotate(model: Any, sentences: Sentences) -> list[Any]:
    annotated = []
    for words in sentences:
        sentence = udpipe.Sentence()
        for word in words:
            sentence.addWord(word)
        model.tag(sentence, udpipe.Model.DEFAULT)
        model.parse(sentence, udpipe.Model.DEFAULT)
        annotated.append(sentence)
    return annotated


def _read(annotated: list[Any]) -> Answers:
    trees: list[Tree] = []
    for sentence in annotated:
        words = [sentence.words[i] for i in range(1, sentence.words.size())]  # the first one is the root
        trees.append(([word.head for word in words], [word.deprel for word in words]))
    return Answers(trees=trees)
