from dataclasses import replace

import numpy as np
import pytest

from benchmarks.studies.significance import (
    ModelScores,
    aso_epsilon,
    differences,
    interval,
    score_of,
    shared_seeds,
)
from train.metrics import attachment_scores_of, entity_scores_of


def scored(rates: list[float], sentences: int = 400, seed: int = 0) -> ModelScores:
    """A tagger of one entity a sentence, which it finds with each seed at another rate."""
    generator = np.random.default_rng(seed)
    hit = generator.random(sentences)
    counts = np.stack([[(int(h < rate), 1, 1) for h in hit] for rate in rates])  # [S, n, 3]
    values = tuple(score_of(counts.sum(1), "ner").tolist())
    return ModelScores(tuple(range(len(rates))), values, (counts,), "ner")


def bare(*values: float) -> ModelScores:
    return ModelScores(tuple(range(len(values))), values, (), "ner")


def test_the_score_of_counts_is_that_of_the_tasks_own_metrics() -> None:
    counts = np.random.default_rng(0).integers(1, 9, size=(5, 3))
    assert score_of(counts.sum(0), "ner") == pytest.approx(entity_scores_of(counts)["f1"])
    assert score_of(counts.sum(0), "parse") == pytest.approx(attachment_scores_of(counts)["las"])


def test_a_model_does_not_differ_from_itself() -> None:
    model = scored([0.5, 0.6, 0.7])
    assert np.abs(differences(model, model)).max() < 1e-9


def test_the_interval_is_as_wide_as_the_binomials_where_seeds_agree() -> None:
    ours, theirs = scored([0.6] * 5, seed=1), scored([0.5] * 5, seed=2)
    low, high = interval(differences(ours, theirs))
    # Independent hits: the standard error of the difference of two shares of 400.
    error = 100 * np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 400)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert low < np.mean(ours.values) - np.mean(theirs.values) < high


def test_seeds_that_differ_widen_the_interval() -> None:
    steady, shaky = scored([0.6] * 5), scored([0.4, 0.5, 0.6, 0.7, 0.8])
    base = scored([0.5] * 5)
    narrow, wide = interval(differences(steady, base)), interval(differences(shaky, base))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_scores_without_counts_are_compared_by_their_seeds_alone() -> None:
    draws = differences(bare(61.0, 62.0, 63.0), bare(60.0, 60.0, 60.0))
    assert draws.mean() == pytest.approx(2, abs=0.05)
    # The standard error of the mean of three from their own spread, with Student's 4.30 for the normal 1.96.
    assert draws.std() == pytest.approx(4.303 / 1.96 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_contains_no_difference_in_19_of_20_studies_without_one(seeds: int) -> None:
    generator = np.random.default_rng(0)
    studies = generator.normal(60, 1, size=(1000, 2, seeds))
    intervals = [interval(differences(bare(*ours), bare(*theirs), samples=1000)) for ours, theirs in studies]
    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.02)


def test_seeds_of_one_side_are_compared_with_the_same_seeds_of_the_other() -> None:
    ours, theirs = bare(10.0, 50.0, 90.0), bare(9.0, 49.0, 89.0)
    assert np.allclose(differences(ours, theirs), 1)
    later = ModelScores((1, 2, 3), (50.0, 90.0, 7.0), (), "ner")
    seeds = shared_seeds([ours, later])
    assert seeds == (1, 2)
    assert np.allclose(differences(ours.of(seeds), later.of(seeds)), 0)


def test_one_teacher_is_compared_with_five_students() -> None:
    teacher = replace(scored([0.9]), is_teacher=True)
    assert shared_seeds([teacher, scored([0.5] * 5)]) == (0, 1, 2, 3, 4)
    assert teacher.of((0, 1, 2, 3, 4)) is teacher
    draws = differences(teacher, scored([0.5] * 5))
    assert draws.shape == (2000,)
    assert interval(draws)[0] > 30


def test_an_average_takes_each_corpus_the_same() -> None:
    small, large = scored([0.5] * 2, sentences=50), scored([0.9] * 2, sentences=500)
    both = ModelScores((0, 1), (70.0, 70.0), (*small.counts, *large.counts), "ner")
    expected = (np.mean(small.values) + np.mean(large.values)) / 2
    assert differences(both, bare(0.0, 0.0)).mean() == pytest.approx(expected, abs=1)


def test_almost_stochastic_order_is_deepsigs() -> None:
    better, worse = (70.0, 71.0, 72.0, 70.5, 71.5), (60.0, 61.0, 62.0, 60.5, 61.5)
    epsilon = aso_epsilon((better, worse))
    assert epsilon is not None
    assert epsilon < 0.05
    opposite = aso_epsilon((worse, better))
    assert opposite is not None
    assert opposite > 0.95
    assert aso_epsilon(((70.0,), worse)) is None
