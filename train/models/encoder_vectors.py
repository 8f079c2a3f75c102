"""Static word vectors from an encoder: each word by itself, and subwords fitted to them for all others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsqr

from structural_kd.words import SubwordVectors, subword_buckets, subword_mean
from train.models.encoders import LAST_FOUR_LAYERS, Encoder
from train.models.feature_store import frozen_features
from train.progress import progress_bar

RIDGE = 0.02
"""Weight of the squared subword rows beside the squared errors of the words, in units of one word."""

ITERATIONS = 20
"""The most of each regression."""

FloatArray = NDArray[np.float32]


def encoder_vectors(
    encoder: Encoder,
    words: Sequence[str],
    counts: Mapping[str, int],
    *,
    frequent: Sequence[str] = (),
    dim: int = 150,
    buckets: int = 60_000,
    min_n: int = 2,
    max_n: int = 4,
    layers: Sequence[int] = LAST_FOUR_LAYERS,
    precision: Literal["float32", "bfloat16"] = "float32",
    cache: Path | None = None,
) -> SubwordVectors:
    """The vectors of words as the encoder gives them without context.

    A word alone goes through the encoder; the mean of its layers and pieces, in principal components, is its
    vector (as model2vec does with an encoder's vocabulary). Other words are composed from subwords, as
    fastText composes them, whose rows are fitted to these vectors.

    Args:
        words: of the run's own text.
        counts: how often each occurs; a word counts once more than that in the principal components.
        frequent: the most frequent words of the language; encoded apart, so that runs share the cache.
        dim: components; the mean square of all values together is 1.
        buckets: rows of subwords of ``min_n`` to ``max_n`` characters.
        cache: the folder of the encoder's features.

    Raises:
        ValueError: there are no words.
    """
    listed = set(frequent)
    own = [word for word in words if word not in listed]
    stores = [
        frozen_features(encoder, [(word,) for word in chosen], cache, layers=layers, precision=precision)
        for chosen in (own, frequent)
        if chosen
    ]
    vocabulary = [*own, *frequent]
    if not vocabulary:
        raise ValueError("no words to take vectors of")
    # The table's first words are the most frequent ones of the run.
    order = sorted(range(len(vocabulary)), key=lambda i: -counts.get(vocabulary[i], 0))
    states = np.concatenate([store.features for store in stores])[order].astype(np.float32)  # [V, E]
    vocabulary = [vocabulary[i] for i in order]
    weights = np.array([counts.get(word, 0) + 1 for word in vocabulary], np.float32)  # [V]
    vectors = principal_components(states, weights, dim)  # [V, d]
    subwords = fit_subwords(vocabulary, vectors, buckets=buckets, min_n=min_n, max_n=max_n)
    return SubwordVectors(vocabulary, vectors, subwords, min_n, max_n, lowercase=True)


def side_by_side(vectors: SubwordVectors, others: SubwordVectors) -> SubwordVectors:
    """Vectors [V, d + e] of a table's words: its own, and beside them what others have of the same words.

    The others are centred and scaled to a mean square of 1. Words that they lack, and all words outside the
    table, are composed from subwords fitted to the others.

    Raises:
        ValueError: the others have none of the words.
    """
    assert vectors.subwords is not None
    words = vectors.vocabulary
    known = np.array([word in others or word.lower() in others for word in words])  # [V]
    if not known.any():
        raise ValueError("the vectors that are read have none of the words")
    more = np.stack([others.vector(word) for word in words])  # [V, e]
    more[known] -= more[known].mean(0)
    more /= np.sqrt((more[known] ** 2).mean())
    subwords = fit_subwords(
        [word for word, has in zip(words, known, strict=True) if has],
        more[known],
        buckets=len(vectors.subwords),
        min_n=vectors.min_n,
        max_n=vectors.max_n,
    )  # [buckets, e]
    for place in np.flatnonzero(~known):
        more[place] = subword_mean(words[place], subwords, vectors.min_n, vectors.max_n)
    return SubwordVectors(
        words,
        np.concatenate([vectors.vectors, more], 1),
        np.concatenate([vectors.subwords, subwords], 1),
        vectors.min_n,
        vectors.max_n,
        vectors.lowercase,
    )


def principal_components(states: FloatArray, weights: FloatArray, dim: int) -> FloatArray:
    """The first ``dim`` principal components of weighted rows [V, E], scaled by one factor: [V, d].

    The weighted mean square of all values together is 1. No more components than E are given.
    """
    weights = weights / weights.sum()
    centred = states - weights @ states  # [V, E]
    covariance = (centred * weights[:, None]).T @ centred  # [E, E]
    _, directions = np.linalg.eigh(covariance.astype(np.float64))  # by rising variance
    found: FloatArray = centred @ directions[:, ::-1][:, :dim].astype(np.float32)  # [V, d]
    scale = np.sqrt(float(weights @ (found**2).mean(1)))
    return found / np.float32(scale or 1.0)


def fit_subwords(
    words: Sequence[str], vectors: FloatArray, *, buckets: int, min_n: int, max_n: int
) -> FloatArray:
    """Subword rows [buckets, d] whose means are closest to the vectors [V, d] of words, by ridge regression.

    Each dimension is a sparse least-squares problem (Paige and Saunders 1982). A bucket that no word has
    is zero.
    """
    rows = [subword_buckets(word, buckets, min_n, max_n) for word in words]
    counts = np.array([len(row) for row in rows])  # [V]
    places = np.fromiter((bucket for row in rows for bucket in row), np.int64, int(counts.sum()))
    share = np.repeat(1 / np.maximum(counts, 1), counts)  # a word's vector is the mean of its rows
    ends = np.concatenate([[0], np.cumsum(counts)])
    means = csr_matrix((share, places, ends), shape=(len(words), buckets))
    subwords = np.zeros((buckets, vectors.shape[1]), np.float32)
    with progress_bar(vectors.shape[1], "subwords", "dimension") as bar:
        for column in range(vectors.shape[1]):
            target = vectors[:, column].astype(np.float64)
            subwords[:, column] = lsqr(means, target, damp=RIDGE**0.5, iter_lim=ITERATIONS)[0]
            bar.update()
    return subwords
