"""Words to pieces in windows, and piece vectors to word vectors."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from structural_kd.wordpieces import (
    LongWordWarning,
    count_pieces,
    load_tokenizer,
    pool,
    prepare_tokenizer,
    words_to_pieces,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "[", "]", "##[", "##]"]
VOCABULARY += ["s", "e", "p", "##e", "##p", "c", "##s", "##c", "-"]
PAD, UNK, CLS, SEP = range(4)


@pytest.fixture
def wordpiece() -> Tokenizer:
    """Pieces are letters, so that a word of n letters has n pieces."""
    vocabulary = {piece: number for number, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return prepare_tokenizer(tokenizer)


@pytest.fixture
def unigram() -> Tokenizer:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁", -4.0), ("a", -2.0), ("b", -2.0), ("▁ab", -2.5), ("ba", -2.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return prepare_tokenizer(tokenizer)


def test_a_batch_has_special_pieces_around_each_sentence_and_padding_after(wordpiece):
    pieces = words_to_pieces(wordpiece, [["ab", "b"], ["a"]], 10)
    assert pieces.ids.tolist() == [[CLS, 4, 7, 5, SEP], [CLS, 4, SEP, PAD, PAD]]
    assert pieces.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert pieces.window.tolist() == [0, 0, 1]
    assert pieces.first.tolist() == [1, 3, 1]
    assert pieces.end.tolist() == [3, 4, 2]
    assert pieces.lengths == (2, 1)
    assert pieces.ids.dtype == pieces.mask.dtype == np.int64


def test_words_have_the_pieces_that_the_sentence_as_a_text_has(unigram):
    words = ["ab", "ba", "b", "abab", "q"]
    pieces = words_to_pieces(unigram, [words], 100)
    assert pieces.ids[0].tolist() == unigram.encode(" ".join(words)).ids


@pytest.mark.parametrize("max_pieces", [4, 5, 7, 12, 50])
def test_a_long_sentence_is_cut_between_words_and_loses_none(wordpiece, max_pieces):
    generator = np.random.default_rng(0)
    sentences = [["ab"[: int(size)] for size in generator.integers(1, 3, count)] for count in (23, 0, 1, 40)]
    pieces = words_to_pieces(wordpiece, sentences, max_pieces)
    assert pieces.ids.shape[1] <= max_pieces
    words = [word for sentence in sentences for word in sentence]
    owner = [number for number, sentence in enumerate(sentences) for _ in sentence]
    for word, window, first, end in zip(words, pieces.window, pieces.first, pieces.end, strict=True):
        assert pieces.ids[window, first:end].tolist() == [[4], [4, 7]][len(word) - 1]
    for window in range(len(pieces.ids)):
        assert len({owner[place] for place in np.flatnonzero(pieces.window == window)}) == 1
    # Every piece belongs to exactly one word, or begins or ends a window, or is padding.
    assert len(np.unique(pieces.positions)) == len(pieces.positions) == pieces.counts.sum()
    assert pieces.mask.sum() == pieces.counts.sum() + 2 * len(pieces.ids)


def test_a_word_that_is_too_long_for_a_window_keeps_its_first_pieces_with_a_warning(wordpiece):
    with pytest.warns(LongWordWarning, match=r"1 word\(s\) with more than 3 pieces"):
        pieces = words_to_pieces(wordpiece, [["a", "abbaab", "b"]], 5)
    assert pieces.ids.tolist() == [[CLS, 4, SEP, PAD, PAD], [CLS, 4, 7, 7, SEP], [CLS, 5, SEP, PAD, PAD]]
    assert pieces.lengths == (3,)


@pytest.mark.parametrize("word", ["\u0007", "\u200b", " ", "", "\t"])
def test_a_word_without_pieces_gets_the_unknown_piece(wordpiece, word):
    pieces = words_to_pieces(wordpiece, [["a", word, "b"]], 10)
    assert pieces.ids.tolist() == [[CLS, 4, UNK, 5, SEP]]


@pytest.mark.parametrize("word", ["\ud800", "a\udfff"])
def test_a_lone_surrogate_is_no_error(wordpiece, unigram, word):
    assert words_to_pieces(wordpiece, [[word, "a"]], 10).lengths == (2,)
    assert words_to_pieces(unigram, [[word, "a"]], 10).lengths == (2,)


def test_special_pieces_in_a_text_are_ordinary_characters(wordpiece):
    ids = words_to_pieces(wordpiece, [["[SEP]", "a"]], 20).ids[0].tolist()
    assert ids.count(SEP) == ids.count(CLS) == 1


def test_truncation_and_padding_of_a_tokenizer_file_are_turned_off(wordpiece, tmp_path):
    wordpiece.enable_truncation(4)
    wordpiece.enable_padding(length=128)
    wordpiece.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert words_to_pieces(loaded, [["a"] * 9], 64).ids.shape == (1, 11)
    assert loaded.encode("[SEP]").ids != [CLS, SEP, SEP]


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_counts_are_those_of_the_windows(wordpiece):
    sentences = [["ab", "a"], [], ["bbb"]]
    assert count_pieces(wordpiece, sentences) == [3, 0, 3]


def test_no_sentences_and_empty_sentences_have_no_windows(wordpiece):
    for sentences in ([], [[]], [[], []]):
        pieces = words_to_pieces(wordpiece, sentences, 8)
        assert len(pieces.ids) == 0
        vectors = pool(np.zeros((0, pieces.ids.shape[1], 6), np.float32), pieces)
        assert [rows.shape for rows in vectors] == [(0, 6)] * len(sentences)


def test_too_few_pieces_for_any_word_are_refused(wordpiece):
    with pytest.raises(ValueError, match="max_pieces is 2"):
        words_to_pieces(wordpiece, [["a"]], 2)


def test_a_tokenizer_without_unknown_piece_refuses_a_word_without_pieces():
    tokenizer = Tokenizer(models.WordPiece({"a": 0, "x": 1}, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="a word has no pieces"):
        words_to_pieces(prepare_tokenizer(tokenizer), [[" "]], 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_word_vector_is_the_mean_over_its_pieces(wordpiece, dtype):
    sentences = [["ab", "b", "abab"], [], ["a"], ["ba", "ab"] * 6]
    pieces = words_to_pieces(wordpiece, sentences, 9)
    hidden = np.random.default_rng(0).normal(size=(*pieces.ids.shape, 3)).astype(dtype)
    vectors = pool(hidden, pieces)
    assert [len(rows) for rows in vectors] == [3, 0, 1, 12]
    places = zip(pieces.window, pieces.first, pieces.end, strict=True)
    expected = [hidden[window, first:end].astype(np.float32).mean(0) for window, first, end in places]
    np.testing.assert_allclose(np.concatenate(vectors), expected, rtol=1e-5, atol=1e-6)
    assert all(rows.dtype == np.float32 for rows in vectors)
