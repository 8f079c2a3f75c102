"""spaCy: its own CPU pipeline of entity recogniser and parser, trained by its own command's code.

The configuration is the one that ``spacy init config --lang en --pipeline ner,parser --optimize efficiency``
writes: hashed embeddings and a small convolution under both components. Only paths and the seed are set.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import spacy
from spacy.cli.init_config import init_config
from spacy.cli.train import train as run_training
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from benchmarks.peers.system import Answers, Sentences, System, Tree, bytes_on_disk
from structural_kd.labels import from_bioes, repair_to_bioes
from train.corpora import Corpus, Sentence

PIPELINE = ["ner", "parser"]


def train(corpus: Corpus, folder: Path, *, seed: int = 0, steps: int | None = None) -> None:
    """Train on the training split, chosen by spaCy on the dev split; ``folder`` gets the best model.

    steps: at most; its configuration's unless given.
    """
    config = init_config(lang=corpus.language, pipeline=PIPELINE, optimize="efficiency", gpu=False)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, sentences in (("train", corpus.train), ("dev", corpus.dev)):
            _to_docs(sentences).to_disk(work / f"{name}.spacy")
        config["paths"]["train"], config["paths"]["dev"] = str(work / "train.spacy"), str(work / "dev.spacy")
        config["system"]["seed"] = seed
        if steps is not None:
            config["training"]["max_steps"] = config["training"]["eval_frequency"] = steps
        config.to_disk(work / "config.cfg")
        run_training(work / "config.cfg", work / "model")
        spacy.load(work / "model" / "model-best").to_disk(folder)


def _to_docs(sentences: Sequence[Sentence]) -> DocBin:
    """A document a sentence: with the tokens as they are, and the sentence as its only one."""
    docs, vocab = DocBin(), Vocab()
    for sentence in sentences:
        assert sentence.tags is not None
        assert sentence.heads is not None
        assert sentence.deprels is not None
        docs.add(
            Doc(
                vocab,
                words=list(sentence.words),
                ents=from_bioes(sentence.tags, "iob2"),
                heads=[head - 1 if head else i for i, head in enumerate(sentence.heads)],
                deps=[
                    "ROOT" if head == 0 else r
                    for head, r in zip(sentence.heads, sentence.deprels, strict=True)
                ],
            )
        )
    return docs


class Pipeline:
    """Components of a trained pipeline; opened anew, it has no word in its caches."""

    def __init__(self, folder: Path, components: Sequence[str]) -> None:
        self._folder, self._components = folder, components
        self.renew()

    def renew(self) -> None:
        self.opened = spacy.load(self._folder, enable=list(self._components))

    def annotate(self, sentences: Sentences) -> list[Doc]:
        """All in one call, in batches of the size in its own configuration."""
        return list(self.opened.pipe(_documents(self.opened.vocab, sentences)))


def load(folder: Path) -> dict[str, System]:
    """The pipeline of both, and each component alone with the layers that it reads."""
    parts = {
        "spacy": ("spaCy, both in one pipeline", ["tok2vec", "ner", "parser"]),
        "spacy_ner": ("spaCy, entities alone", ["tok2vec", "ner"]),
        "spacy_parse": ("spaCy, trees alone", ["tok2vec", "parser"]),
    }
    systems = {}
    for key, (title, components) in parts.items():
        pipeline = Pipeline(folder, components)
        systems[key] = System(
            title,
            annotate=pipeline.annotate,
            read=partial(_read, components=components),
            parameters=_parameters(pipeline.opened),
            size=bytes_on_disk(folder),
            renew=pipeline.renew,
        )
    return systems


def _documents(vocab: Vocab, sentences: Sentences) -> Iterator[Doc]:
    """Sentence bounds are given to it, as to all others: without them it may cut a sentence in two."""
    for words in sentences:
        yield Doc(vocab, words=list(words), sent_starts=[True, *itertools.repeat(False, len(words) - 1)])


def _read(docs: list[Doc], components: Sequence[str]) -> Answers:
    tags: list[tuple[str, ...]] | None = None
    trees: list[Tree] | None = None
    if "ner" in components:
        marked = ([t.ent_iob_ if not t.ent_type_ else f"{t.ent_iob_}-{t.ent_type_}" for t in d] for d in docs)
        tags = [tuple(repair_to_bioes(row, "iob2")[0]) for row in marked]
    if "parser" in components:
        trees = [
            (
                [0 if token.head.i == token.i else token.head.i + 1 for token in doc],
                ["root" if token.head.i == token.i else token.dep_ for token in doc],
            )
            for doc in docs
        ]
    return Answers(tags, trees)


def _parameters(pipeline: Any) -> int:
    """Numbers in the components' networks; layers that several share count once."""
    layers = {id(node): node for _, part in pipeline.pipeline for node in part.model.walk()}
    return sum(
        int(node.get_param(name).size)
        for node in layers.values()
        for name in node.param_names
        if node.has_param(name)
    )
