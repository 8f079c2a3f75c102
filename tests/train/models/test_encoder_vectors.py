"""Vectors of single words from an encoder, and subwords fitted to them."""

from pathlib import Path

import numpy as np
import pytest

from structural_kd.words import SubwordVectors, subword_mean
from tests.train.tiny import write_encoder
from train.models.encoder_vectors import encoder_vectors, fit_subwords, principal_components, side_by_side
from train.models.encoders import encode, load_encoder

WORDS = ["ada", "bob", "Haifa", "saw", "of", "."]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SubwordVectors]:
    folder = tmp_path_factory.mktemp("vectors")
    write_encoder(folder / "encoder")
    encoder = load_encoder(str(folder / "encoder"))
    counts = {word: 10 - place for place, word in enumerate(WORDS)}
    made = encoder_vectors(
        encoder, WORDS, counts, frequent=["paris", "saw"], dim=4, buckets=200, layers=(-1,), cache=folder
    )
    return folder, made


def test_the_table_has_each_word_once_the_most_frequent_first(vectors: tuple[Path, SubwordVectors]) -> None:
    _, made = vectors
    assert made.vocabulary == [*WORDS, "paris"]
    assert made.vectors.shape == (7, 4)


def test_distances_are_those_of_the_encoders_words_alone(vectors: tuple[Path, SubwordVectors]) -> None:
    folder, _ = vectors
    encoder = load_encoder(str(folder / "encoder"))
    made = encoder_vectors(encoder, WORDS, {}, dim=16, buckets=200, layers=(-1,), cache=folder)
    states = np.concatenate(
        [rows.numpy() for rows in encode(encoder, [[word] for word in WORDS], layers=[-1])]
    )
    states = states.astype(np.float16).astype(np.float32)  # as the store keeps them

    def distances(rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows[:, None] - rows, axis=2)

    own = [made.vocabulary.index(word) for word in WORDS]
    expected = distances(states)
    found = distances(made.vectors[own])
    scale = expected[0, 1] / found[0, 1]
    np.testing.assert_allclose(found * scale, expected, rtol=1e-3, atol=1e-3)


def test_an_unknown_word_has_its_lower_cased_forms_vector_or_is_composed(
    vectors: tuple[Path, SubwordVectors], tmp_path: Path
) -> None:
    _, made = vectors
    made.save(tmp_path)
    for table in (made, SubwordVectors.load(tmp_path)):
        np.testing.assert_array_equal(table.vector("Paris"), table.vector("paris"))
        assert table.subwords is not None
        np.testing.assert_array_equal(table.vector("adas"), subword_mean("adas", table.subwords, 2, 4))


def test_other_vectors_stand_beside_the_encoders_of_the_same_words(
    vectors: tuple[Path, SubwordVectors],
) -> None:
    _, made = vectors
    others = SubwordVectors(["ada", "haifa", "zzz"], np.eye(3, 2, dtype=np.float32), None, 0, 0)
    both = side_by_side(made, others)
    assert both.vocabulary == made.vocabulary
    np.testing.assert_array_equal(both.vectors[:, :4], made.vectors)
    own = both.vectors[[made.vocabulary.index(word) for word in ("ada", "Haifa")], 4:]
    np.testing.assert_allclose(own, [[1, -1], [-1, 1]])  # centred, of unit size
    assert both.subwords is not None
    composed = subword_mean("bob", both.subwords, 2, 4)
    np.testing.assert_array_equal(both.vectors[made.vocabulary.index("bob"), 4:], composed[4:])
    with pytest.raises(ValueError, match="none of the words"):
        side_by_side(made, SubwordVectors(["zzz"], np.ones((1, 2), np.float32), None, 0, 0))


def test_principal_components_keep_distances_and_are_of_unit_size() -> None:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((50, 6), np.float32) @ rng.standard_normal((6, 6), np.float32)
    weights = rng.random(50, np.float32) + 0.1
    found = principal_components(states, weights, 6)
    share = weights / weights.sum()
    assert float(share @ (found**2).mean(1)) == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(share @ found, 0, atol=1e-4)
    covariance = (found * share[:, None]).T @ found
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert (np.diff(np.diag(covariance)) <= 1e-6).all()
    # The first components are the best of their number: what is left is the sum of the smallest eigenvalues.
    two = principal_components(states, weights, 2)
    ratio = two[0, 0] / found[0, 0]
    np.testing.assert_allclose(two, found[:, :2] * ratio, rtol=1e-3, atol=1e-4)


def test_fitted_subwords_compose_words_that_the_table_lacks() -> None:
    rng = np.random.default_rng(0)
    stems = {f"{a}{b}{c}": rng.standard_normal(5) for a in "bdgk" for b in "aeiou" for c in "lmnr"}
    endings = {ending: rng.standard_normal(5) for ending in ("s", "ed", "ing", "er")}
    made = {stem + end: x + y for stem, x in stems.items() for end, y in endings.items()}
    words = sorted(made)
    held_out = set(words[::7])
    known = [word for word in words if word not in held_out]
    table = np.array([made[word] for word in known], np.float32)
    rows = fit_subwords(known, table, buckets=5000, min_n=2, max_n=4)
    found = np.array([subword_mean(word, rows, 2, 4) for word in sorted(held_out)])
    wanted = np.array([made[word] for word in sorted(held_out)])
    assert ((found - wanted) ** 2).sum() < 0.25 * (wanted**2).sum()


def test_buckets_without_a_word_are_zero() -> None:
    rows = fit_subwords(["ab"], np.ones((1, 2), np.float32), buckets=50, min_n=2, max_n=3)
    assert np.count_nonzero(rows.any(1)) <= 5  # <a ab b> <ab ab>
    np.testing.assert_allclose(subword_mean("ab", rows, 2, 3), [1, 1], atol=0.1)
