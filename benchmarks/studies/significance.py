"""Whether one model is better than another: Almost Stochastic Order, and a bootstrap of the difference."""

import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from train.progress import progress_bar

SAMPLES = 2000
CONFIDENCE = 0.95
DOMINATES = 0.2
"""ε below this is an almost stochastic order; Ulmer et al. (2022) find 0.5 too weak with few seeds."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModelScores:
    """A model's score on the test split with each of its seeds.

    Args:
        seeds: [S]; a teacher, which is trained once, has one.
        values: a score a seed, in percent: [S].
        counts: what the scores come from, for each corpus that is tested: [S, n, 3]; empty if unknown.
        task: ner or parse; decides how counts make a score.
        is_teacher: then it is compared with every seed of a student.
        run, model: where the scores are stored; model is the kind of student and the objective, or teacher.
        dev: by seed, the dev split's score in the task's main metric, or its agreement with the teacher.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    counts: tuple[NDArray[np.int64], ...]
    task: str
    is_teacher: bool = False
    run: str = ""
    model: str = ""
    dev: Mapping[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    def of(self, seeds: Sequence[int]) -> "ModelScores":
        """The scores of some of its seeds; a teacher stays as it is."""
        if self.is_teacher or tuple(seeds) == self.seeds:
            return self
        places = [self.seeds.index(seed) for seed in seeds]
        return replace(
            self,
            seeds=tuple(seeds),
            values=tuple(self.values[i] for i in places),
            counts=tuple(counts[places] for counts in self.counts),
        )


def score_of(sums: NDArray[np.int64] | Floats, task: str) -> Floats:
    """F1 of (right, found, wanted), or LAS of (tokens, attached, labelled): [..., 3] -> [...], in percent.

    As ``train.metrics`` has them, for many draws at once.
    """
    if task == "ner":
        return 200 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
    return 100 * sums[..., 2] / np.maximum(sums[..., 0], 1)


def shared_seeds(models: Sequence[ModelScores]) -> tuple[int, ...]:
    """The seeds that all students among the models have."""
    students = [set(model.seeds) for model in models if not model.is_teacher]
    return tuple(sorted(set.intersection(*students))) if students else ()


def over_shared_seeds(ours: ModelScores, theirs: ModelScores) -> tuple[ModelScores, ModelScores] | None:
    """Both over the seeds that both have; None where there are none."""
    seeds = shared_seeds([ours, theirs])
    sides = ours.of(seeds), theirs.of(seeds)
    return sides if all(side.values for side in sides) else None


def differences(ours: ModelScores, theirs: ModelScores, samples: int = SAMPLES) -> Floats:
    """Bootstrap draws [samples] of the difference of the mean scores.

    Each draw takes other seeds and other test sentences, with replacement, and the same for both sides: a
    seed of one with the same seed of the other, on the same sentences. A side without counts keeps its score.
    Draws of few seeds are widened (`_widening`). The same numbers are drawn in each call, so that differences
    can be averaged draw by draw. The draws of a teacher, which is trained once, hold for that teacher alone.
    """
    return _draws(ours, samples) - _draws(theirs, samples)


def _draws(model: ModelScores, samples: int) -> Floats:
    """Bootstrap draws of a model's mean score: [samples]."""
    size = len(model.values)
    if model.counts:
        scores = np.zeros((samples, size))  # [D, S]
        for counts in model.counts:  # [S, n, 3]
            weights = _weights(counts.shape[1], samples)  # [D, n]
            sums = np.einsum("dn,snk->dsk", weights, counts.astype(np.float32), optimize=True)  # [D, S, 3]
            scores += score_of(sums, model.task) / len(model.counts)
    else:
        scores = np.tile(np.array(model.values), (samples, 1))
    means: Floats = scores.mean(1)
    if size == 1:
        return means
    seeds = np.random.default_rng(size).integers(size, size=(samples, size))  # [D, S]
    drawn = np.take_along_axis(scores, seeds, 1).mean(1)
    return means + (drawn - means) * _widening(size)


@lru_cache(maxsize=8)
def _widening(seeds: int) -> float:
    """By how much draws of few seeds lie too close together.

    A resample's variance is (S−1)/S of the sample's, and the percentiles of draws are about a normal
    distribution's, where Student's t with S−1 degrees of freedom belongs: 2.7 for 3 seeds, 1.6 for 5.
    """
    from scipy.special import ndtri, stdtrit  # comes with deepsig, and is only needed where a report is drawn

    tail = (1 + CONFIDENCE) / 2
    return float((seeds / (seeds - 1)) ** 0.5 * stdtrit(seeds - 1, tail) / ndtri(tail))


@lru_cache(maxsize=8)
def _weights(sentences: int, samples: int) -> NDArray[np.float32]:
    """How often each draw takes each sentence: [samples, sentences]; the same for corpora of one size."""
    generator = np.random.default_rng(sentences)
    drawn = generator.multinomial(sentences, np.full(sentences, 1 / sentences), size=samples)
    return drawn.astype(np.float32)


def interval(draws: Floats) -> tuple[float, float]:
    """The percentile interval of bootstrap draws, at 95 %."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


Pair = tuple[tuple[float, ...], tuple[float, ...]]
"""The scores of two models, a score a seed: ours and theirs."""

Epsilons = Mapping[Pair, float | None]


def aso_epsilon(pair: Pair) -> float | None:
    """ε_min of Almost Stochastic Order (Dror et al. 2019) at a significance level of 0.05, by ``deepsig``.

    Near 0 where ours is always better, near 1 where it never is; None with fewer than two seeds on a side. It
    resamples the scores for some seconds.
    """
    ours, theirs = pair
    if min(len(ours), len(theirs)) < 2:
        return None
    from deepsig import aso  # slow to import, and only needed where a report is drawn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal scores, where there is nothing to divide by
        return float(aso(list(ours), list(theirs), CONFIDENCE, seed=1, show_progress=False))


def aso_epsilons(pairs: Sequence[Pair]) -> Epsilons:
    """`aso_epsilon` of many pairs, on all cores, with a bar."""
    distinct = list(dict.fromkeys(pairs))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool, progress_bar(len(distinct), "ε", "pair") as bar:
        found = {}
        for pair, epsilon in zip(distinct, pool.map(aso_epsilon, distinct), strict=True):
            found[pair] = epsilon
            bar.update()
    return found
