"""Accuracy on the test split and speed in one process: every system reads the same tokens.

Times are CPU time of the process, one thread, result objects built; systems take turns, round by round.
Before each turn a system's caches of words are emptied, so that every reading costs as much as the first one
of a new text.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.system import Answers, Sentences, System
from loadtest.sentences import evenly_mixed
from train.corpora import Sentence
from train.metrics import attachment_scores, entity_scores

PUNCTUATION = ("punct",)
SAMPLE = 200
"""Sentences on which slow systems are timed."""


@dataclass(frozen=True)
class Scores:
    """Points on the test split; None for a task that the system does not have.

    uas, las: without punctuation, as spaCy's own scorer has it. uas_all, las_all: all tokens (CoNLL 2018).
    """

    f1: float | None = None
    uas: float | None = None
    las: float | None = None
    uas_all: float | None = None
    las_all: float | None = None


@dataclass(frozen=True)
class Speed:
    """``seconds`` of CPU for each turn over so many sentences and tokens."""

    sentences: int
    tokens: int
    seconds: tuple[float, ...]

    @property
    def sentences_per_second(self) -> float:
        return self.sentences / statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The slowest turn over the fastest."""
        return max(self.seconds) / min(self.seconds)


def scores(answers: Answers, gold: Sequence[Sentence]) -> Scores:
    """A system's answers against the gold of the same sentences."""
    f1 = None if answers.tags is None else entity_scores(gold, answers.tags)["f1"]
    if answers.trees is None:
        return Scores(f1=f1)
    without = attachment_scores(gold, answers.trees, without=PUNCTUATION)
    every = attachment_scores(gold, answers.trees)
    return Scores(f1, without["uas"], without["las"], every["uas"], every["las"])


def speeds(
    systems: Mapping[str, System],
    sentences: Sentences,
    *,
    rounds: int,
    sample: int = SAMPLE,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Speed]:
    """How fast each system reads all sentences; a slow one ``sample`` of them, with the same mix of lengths.

    A first turn, which loads and allocates, does not count.
    """
    few = evenly_mixed([list(words) for words in sentences])[:sample]
    texts: dict[str, Sentences] = {name: few if s.sampled else sentences for name, s in systems.items()}
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 1):
        print(f"speed: round {number} of {rounds}" if number else "speed: warm-up", flush=True)
        for name, system in systems.items():
            system.renew()
            began = clock()
            system.annotate(texts[name])
            if number:
                taken[name].append(clock() - began)
    return {
        name: Speed(len(texts[name]), sum(map(len, texts[name])), tuple(seconds))
        for name, seconds in taken.items()
    }
