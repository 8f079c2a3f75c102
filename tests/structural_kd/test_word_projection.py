"""Projected words: the same row from the table, from the cache and computed anew."""

import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from structural_kd.word_projection import ProjectedWords, projected_row
from structural_kd.words import CharacterConvolution, SubwordVectors, WordTable

GATES = 24
SENTENCES = [["a", "bad", "cab"], ["dab", "שבת", "a", "unknown", "dab"], ["ebb"]]


@pytest.fixture
def table() -> WordTable:
    rng = np.random.default_rng(3)
    words = ["a", "bad", "cab", "שבת"]
    vectors = SubwordVectors(
        words, rng.standard_normal((4, 6), np.float32), rng.standard_normal((50, 6), np.float32), 3, 5
    )
    embeddings = rng.standard_normal((8, 3), np.float32)
    embeddings[0] = 0
    kernel, bias = rng.standard_normal((5, 3, 3), np.float32), rng.standard_normal(5, np.float32)
    return WordTable.fold(vectors, CharacterConvolution(["a", "b", "c", "d"], embeddings, kernel, bias))


@pytest.fixture
def words(table: WordTable) -> ProjectedWords:
    return projected(table)


def projected(table: WordTable, *, table_bytes: int | None = None) -> ProjectedWords:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((table.size, GATES), np.float32)
    return ProjectedWords.fold(table, weight, rng.standard_normal(GATES, np.float32), table_bytes=table_bytes)


def read(words: ProjectedWords, sentences: list[list[str]]) -> list[list[np.ndarray]]:
    batch = words.batch(sentences)
    return [
        [batch.rows[place] for place in row[:n]] for row, n in zip(batch.words, batch.lengths, strict=True)
    ]


def test_every_token_of_a_batch_has_the_projection_of_its_features(words, table):
    for sentence, rows in zip(SENTENCES, read(words, SENTENCES), strict=True):
        for word, row in zip(sentence, rows, strict=True):
            expected = table.row(word).astype(np.float64) @ words.weight + words.bias
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(row, words.row(word))


def test_a_word_has_the_same_row_to_the_last_bit_in_the_table_and_outside_of_it(table, words):
    none = projected(table, table_bytes=0)
    two = projected(table, table_bytes=2 * 4 * GATES)
    assert [len(some.rows) for some in (none, two, words)] == [0, 2, 4]
    for word in chain(*SENTENCES):
        for other in (none, two):
            np.testing.assert_array_equal(other.row(word), words.row(word))
    for other in (none, two):
        for found, expected in zip(read(other, SENTENCES), read(words, SENTENCES), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_batch_holds_each_distinct_word_once(words):
    batch = words.batch(SENTENCES)
    assert batch.rows.dtype == np.float32
    assert batch.words.dtype == batch.lengths.dtype == np.int64
    assert len(batch.rows) == len(set(chain(*SENTENCES)))
    assert batch.words.shape == (3, 5)
    assert batch.lengths.tolist() == [3, 5, 1]
    assert batch.words.min() >= 0
    assert batch.words.max() < len(batch.rows)


def test_a_caller_that_changes_its_rows_changes_no_others(words):
    before = read(words, SENTENCES)
    words.batch(SENTENCES).rows[:] = 7
    for found, expected in zip(read(words, SENTENCES), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_words_outside_of_the_table_are_kept_up_to_the_bound_and_no_more(table, words):
    small = ProjectedWords(table, words.weight, words.bias, words.rows, cache_bytes=2 * 4 * GATES)
    sentences = [[f"word{number}" for number in range(30)], ["word3", "x" * 1000]]
    for found, expected in zip(read(small, sentences), read(words, sentences), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert small._cached.cache_info().currsize == 2


def test_several_threads_get_the_same_rows(words):
    sentences = [[f"{a}{b}" for b in "abcdefgh"] for a in "stuvwxyz"] * 4
    expected = [[projected_row(words.table.row(w), words.weight, words.bias) for w in s] for s in sentences]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            if not np.array_equal(read(words, sentences), expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_saved_words_come_back_the_same(tmp_path: Path, words):
    words.save(tmp_path / "words")
    loaded = ProjectedWords.load(tmp_path / "words")
    assert loaded.size == words.size == GATES
    for word in chain(*SENTENCES):
        np.testing.assert_array_equal(loaded.row(word), words.row(word))


def test_shapes_that_do_not_fit_are_refused(table, words):
    with pytest.raises(ValueError, match="do not fit rows of 11 values"):
        ProjectedWords(table, words.weight[1:], words.bias, words.rows)
    with pytest.raises(ValueError, match="do not fit rows"):
        ProjectedWords(table, words.weight, words.bias[1:], words.rows)
    with pytest.raises(ValueError, match="24 values a word"):
        ProjectedWords(table, words.weight, words.bias, words.rows[:, 1:])
    with pytest.raises(ValueError, match="row 0 of the projected rows is not the projection"):
        ProjectedWords(table, words.weight, words.bias, words.rows + 1)
    with pytest.raises(ValueError, match="4 words"):
        ProjectedWords(table, words.weight, words.bias, np.zeros((5, GATES), np.float32))
