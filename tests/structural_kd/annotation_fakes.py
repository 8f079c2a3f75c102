"""Predictors that answer by simple rules, and the command with them in place of bundles.

Scores depend on what is annotated together, as a real model's last digits do. In a process of its own
(`python -m tests.structural_kd.annotation_fakes annotate …`), SIGNAL="9@3" sends it signal 9 at its third
window, and SHARD_BYTES is the size of a shard.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structural_kd
from structural_kd.__main__ import main
from structural_kd.annotate import shards
from structural_kd.results import Entity, ParsedSentence, TaggedSentence


@dataclass(frozen=True)
class FakeManifest:
    task: str
    language: str = "en"


@dataclass
class FakeNer:
    """Each capitalised word is a NAME."""

    manifest: FakeManifest = field(default_factory=lambda: FakeManifest("ner"))

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[TaggedSentence]:
        score = 1 / sum(map(len, sentences))
        return [
            TaggedSentence(
                [Entity("NAME", i, i + 1, score) for i, word in enumerate(words) if word[0].isupper()],
                ["S-NAME" if word[0].isupper() else "O" for word in words],
            )
            for words in sentences
        ]


@dataclass
class FakeParser:
    """Each word hangs on the word before it; the first is the root."""

    manifest: FakeManifest = field(default_factory=lambda: FakeManifest("parse"))

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[ParsedSentence]:
        return [
            ParsedSentence(
                list(range(len(words))), ["root", *["dep"] * len(words)][: len(words)], [0.25] * len(words)
            )
            for words in sentences
        ]


@dataclass
class Signalling(FakeNer):
    signal: int = 0
    call: int = 0
    calls: int = 0

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[TaggedSentence]:
        self.calls += 1
        if self.calls == self.call:
            os.kill(os.getpid(), self.signal)
        return super().predict(sentences)


def fake_bundle(folder: Path, task: str, language: str = "en") -> Path:
    """A folder that `load` gives a fake for."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(f"{task} {language} {folder.name}")
    return folder


def load(folder: Path, **_: Any) -> Any:
    task, language, _name = (folder / "manifest.json").read_text().split()
    manifest = FakeManifest(task, language)
    if task == "parse":
        return FakeParser(manifest)
    if "SIGNAL" in os.environ:
        signal, call = os.environ["SIGNAL"].split("@")
        return Signalling(manifest, int(signal), int(call))
    return FakeNer(manifest)


if __name__ == "__main__":
    shards.SHARD_BYTES = int(os.environ.get("SHARD_BYTES", 1))
    structural_kd.load = load  # type: ignore[assignment]
    sys.exit(main())
