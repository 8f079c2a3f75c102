"""Predictors that answer by simple rules, in place of bundles."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Tagged:
    entities: list[Span]


@dataclass(frozen=True)
class Tree:
    heads: list[int]
    deprels: list[str]
    scores: list[float]


@dataclass(frozen=True)
class FakeManifest:
    task: str = "ner"
    language: str = "en"
    role: str = "student"
    labels: Sequence[str] = ("O", "B-NAME", "I-NAME", "E-NAME", "S-NAME")
    scores: Any = field(default_factory=lambda: [{"metric": "f1", "value": 80.0}])
    digest: str = "0123456789abcdef"


@dataclass
class FakeNer:
    """Each run of capitalised words is a NAME."""

    manifest: FakeManifest = field(default_factory=FakeManifest)
    providers: Sequence[str] = ("CPUExecutionProvider",)

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        return [Tagged(self._names(sentence)) for sentence in sentences]

    @staticmethod
    def _names(words: Sequence[str]) -> list[Span]:
        spans: list[Span] = []
        for index, word in enumerate(words):
            if word[0].isupper():
                if spans and spans[-1].end == index:
                    spans[-1] = Span("NAME", spans[-1].start, index + 1, 0.5)
                else:
                    spans.append(Span("NAME", index, index + 1, 0.5))
        return spans


@dataclass
class FakeParser:
    """Each word hangs on the word before it; the first is the root."""

    manifest: FakeManifest = field(default_factory=lambda: FakeManifest(task="parse", labels=("root", "dep")))
    providers: Sequence[str] = ("CPUExecutionProvider",)

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        return [
            Tree(list(range(len(words))), ["root", *["dep"] * (len(words) - 1)], [0.25] * len(words))
            for words in sentences
        ]


@dataclass
class HeldNer(FakeNer):
    """A tagger whose runs wait until its `gate` is open; the word "poison" is more than it can answer."""

    gate: threading.Event = field(default_factory=threading.Event)
    runs: list[list[Sequence[str]]] = field(default_factory=list)

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        self.runs.append(list(sentences))
        assert self.gate.wait(timeout=60)
        if any("poison" in words for words in sentences):
            raise ValueError("cannot answer " + " ".join(map(str, sentences)))
        return super().predict(sentences)
