"""Scores and speeds of made-up systems."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.peers.measure import Scores, Speed, scores, speeds
from benchmarks.peers.system import Answers, System, Tree
from train.corpora import Sentence

GOLD = [
    Sentence(
        ("Ada", "sleeps", "."), tags=("S-PER", "O", "O"), heads=(2, 0, 2), deprels=("nsubj", "root", "punct")
    ),
    Sentence(("Go",), tags=("O",), heads=(0,), deprels=("root",)),
]


def test_a_task_that_a_system_lacks_has_no_score() -> None:
    assert scores(Answers(tags=[("S-PER", "O", "O"), ("O",)]), GOLD) == Scores(f1=100)


def test_punctuation_counts_in_the_scores_over_all_tokens_only() -> None:
    trees: list[Tree] = [([2, 0, 1], ["obj", "root", "punct"]), ([0], ["root"])]
    assert scores(Answers(trees=trees), GOLD) == Scores(uas=100, las=200 / 3, uas_all=75, las_all=50)


class Recorded:
    """A system that takes so long a sentence, by a clock of its own, and notes what it is given."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0.0, cost
        self.calls: list[Any] = []

    def annotate(self, sentences: Sequence[Sequence[str]]) -> None:
        self.now += self.cost * len(sentences)
        self.calls.append(len(sentences))

    def renew(self) -> None:
        self.calls.append("renewed")

    def system(self, **more: Any) -> System:
        return System("made up", self.annotate, lambda _: Answers(), renew=self.renew, **more)


def test_a_slow_system_reads_a_sample_and_the_warm_up_does_not_count() -> None:
    sentences = [["a"] * length for length in range(1, 65)]
    fast, slow = Recorded(0.5), Recorded(2.0)
    found = speeds(
        {"fast": fast.system(), "slow": slow.system(sampled=True)},
        sentences,
        rounds=3,
        sample=16,
        clock=lambda: fast.now + slow.now,
    )
    assert found["fast"] == Speed(64, sum(range(1, 65)), (32.0, 32.0, 32.0))
    assert found["slow"].sentences == 16
    assert found["slow"].sentences_per_second == 0.5
    assert found["slow"].tokens / 16 == pytest.approx(32.5, abs=2.5)  # the same mix of lengths
    assert fast.calls == ["renewed", 64] * 4
    assert slow.calls == ["renewed", 16] * 4


def test_a_speed_is_the_median_over_rounds_and_tells_how_far_they_lie_apart() -> None:
    speed = Speed(100, 1800, (2.0, 1.0, 4.0))
    assert (speed.sentences_per_second, speed.tokens_per_second, speed.spread) == (50, 900, 4)
