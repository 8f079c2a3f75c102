"""Training fastText vectors and reading those of others."""

import numpy as np
import pytest
from fasttext import FastText

from train.models.vectors import load_vectors, train_vectors

SENTENCES = [["the", "cat", "sat"], ["החתול", "ישב"], ["10 000", "cats", "slept"], ["naïve", "😀"]] * 20


def train(**settings):
    return train_vectors(SENTENCES, **{"dim": 6, "epochs": 2, "buckets": 200, **settings})


def test_every_word_of_the_corpus_is_known_and_others_are_composed():
    vectors = train()
    assert set(vectors.vocabulary) == {word for words in SENTENCES for word in words}
    assert vectors.vectors.shape == (10, 6)
    assert vectors.subwords.shape == (200, 6)
    assert vectors.vectors.dtype == vectors.subwords.dtype == np.float32
    assert np.abs(vectors.vector("catlike")).max() > 0


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others():
    first, again, other = train(seed=5), train(seed=5), train(seed=6)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    np.testing.assert_array_equal(first.subwords, again.subwords)
    assert np.abs(first.vectors - other.vectors).max() > 1e-3


def test_words_that_fasttext_reserves_are_left_to_their_subwords():
    vectors = train_vectors([["</s>", "__label__x", "word"]] * 5, dim=4, buckets=50)
    assert vectors.vocabulary == ["word"]


def test_words_of_one_topic_become_alike():
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("abcdefghijkl"), 6)) for _ in range(400)])
    topics = [words[:200], words[200:]]
    sentences = [list(generator.choice(topics[number % 2], 8)) for number in range(2000)]
    vectors = train_vectors(sentences, dim=16, epochs=10, buckets=5000)
    units = np.stack([vectors.vector(word) for word in words])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines = units @ units.T
    assert cosines[:200, :200].mean() > cosines[:200, 200:].mean() + 0.2


def test_no_words_are_an_error():
    with pytest.raises(ValueError, match="no words"):
        train_vectors([])


def binary_model(path, **settings):
    text = path.with_suffix(".txt")
    text.write_text("\n".join(" ".join(words) for words in SENTENCES), encoding="utf-8")
    model = FastText.train_unsupervised(
        str(text), dim=5, epoch=1, minCount=1, bucket=99, thread=1, verbose=0, **settings
    )
    model.save_model(str(path))
    return model


def test_a_binary_file_gives_the_vectors_that_fasttext_reads_from_it(tmp_path):
    model = binary_model(tmp_path / "vectors.bin")
    wanted = ["cat", "החתול", "absent", "naïve"]
    vectors = load_vectors(tmp_path / "vectors.bin", wanted)
    assert vectors.vocabulary == ["cat", "החתול", "naïve"]
    for word in [*wanted, "sat", "😀😀", "שלום"]:
        if word == "sat":
            continue  # known to the file but not wanted, so that it is composed of subwords alone
        np.testing.assert_allclose(vectors.vector(word), model.get_word_vector(word), rtol=1e-5, atol=1e-7)


def test_all_words_of_a_binary_file_are_read_where_none_are_named(tmp_path):
    model = binary_model(tmp_path / "vectors.bin")
    vectors = load_vectors(tmp_path / "vectors.bin", None)
    assert vectors.vocabulary == [word for word in model.get_words() if word != "</s>"]


def test_a_binary_file_without_subwords_has_none(tmp_path):
    binary_model(tmp_path / "vectors.bin", minn=0, maxn=0)
    vectors = load_vectors(tmp_path / "vectors.bin", ["cat"])
    assert vectors.subwords is None
    assert not vectors.vector("absent").any()


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_file_gives_the_words_wanted(tmp_path):
    path = write(tmp_path / "v.vec", "3 2\ncat 1 2\nשלום -0.5 1e-3 \nnot\u00a0one 3 4\n")
    vectors = load_vectors(path, ["שלום", "not\u00a0one", "absent"])
    assert vectors.vocabulary == ["שלום", "not\u00a0one"]
    np.testing.assert_allclose(vectors.vectors, [[-0.5, 0.001], [3, 4]])
    assert vectors.subwords is None


def test_a_text_file_may_lack_the_header(tmp_path):
    vectors = load_vectors(write(tmp_path / "glove.txt", "cat 1 2 3\ndog 4 5 6\n"), None)
    assert vectors.vocabulary == ["cat", "dog"]
    assert vectors.size == 3


def test_the_first_words_of_a_text_file_are_kept(tmp_path):
    path = write(tmp_path / "v.vec", "the 1 2\ncat 3 4\ndog 5 6\n")
    vectors = load_vectors(path, ["dog"], most=2)
    assert vectors.vocabulary == ["the", "cat"]


def test_a_word_without_vector_has_that_of_its_lower_cased_form(tmp_path):
    vectors = load_vectors(write(tmp_path / "v.vec", "cat 1 2\ndog 3 4\n"), ["Cat", "CATS", "dog"])
    assert vectors.vocabulary == ["cat", "dog"]
    assert vectors.vector("Cat").tolist() == [1, 2]
    assert vectors.vector("CATS").tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"a\.bin: a \.bin composes words from subwords; leave out most"):
        load_vectors(write(tmp_path / "a.bin", ""), None, most=2)


def test_none_of_the_words_wanted_is_no_error(tmp_path):
    vectors = load_vectors(write(tmp_path / "v.vec", "1 2\ncat 1 2\n"), ["dog"])
    vectors.save(tmp_path / "saved")
    assert type(vectors).load(tmp_path / "saved").vector("dog").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 2\ncat 1 2\ndog 1\n", r"v\.vec:3: expected a word and 2 values, found 1"),
        ("2 2\ncat 1 2\ndog 1 2 3\n", r"v\.vec:3: expected a word and 2 values, found 3"),
        ("2 2\ncat 1 2\ndog 1 two\n", r"v\.vec:3: a value is not a number"),
        ("2 2\ncat 1 2\n\n", r"v\.vec:3: expected a word and 2 values"),
        ("3 2\ncat 1 2\ndog 1 2\n", r"v\.vec: the header says 3, the file holds 2"),
        ("", r"v\.vec: the header says nothing, the file holds 0"),
        ("cat\n", r"v\.vec:1: expected a word and some values"),
    ],
)
def test_a_malformed_text_file_is_an_error_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_vectors(write(tmp_path / "v.vec", text), None)


def test_a_text_file_in_another_encoding_is_an_error_with_its_line(tmp_path):
    (tmp_path / "v.vec").write_bytes("2 1\ncat 1\nnaïve 2\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"v\.vec:3: not UTF-8"):
        load_vectors(tmp_path / "v.vec", None)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.bin"):
        load_vectors(tmp_path / "absent.bin", None)
