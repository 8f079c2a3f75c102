"""Raw text to tokens and sentences."""

import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structural_kd.segment import RUN_CHARACTERS, Segmented, Segmenter

ENGLISH = Segmenter("en")
HEBREW = Segmenter("he")

awkward = st.sampled_from(
    ["שָׁלוֹם", "مرحبا", "👩‍👩‍👧", "🇮🇱", "e\u0301", "\u00a0",
     "\u200b", "\u200d", "\ufeff", "\r\n", "\n\n", "\t", "\x00", "\u2028",
     "\x85", "isn't", "U.S.", "…", "http://a.b/c?d=e", ":-)", ".", "!", "\u202e", "a" * 300, "(" * 200]
)  # fmt: skip
texts = st.lists(st.one_of(st.text(), awkward, st.just(" ")), max_size=12).map("".join)


def sentences(found: Segmented) -> list[list[str]]:
    return [found.tokens[start:end] for start, end in found.sentences]


def segment(text: str, sentence_tokens: int = 512) -> Segmented:
    return ENGLISH(text, sentence_tokens=sentence_tokens)


@settings(max_examples=300, deadline=None)
@given(text=texts, longest=st.integers(1, 6), segmenter=st.sampled_from([ENGLISH, HEBREW]))
def test_every_token_is_its_slice_of_the_text_and_only_white_space_is_left_out(
    text: str, longest: int, segmenter: Segmenter
) -> None:
    found = segmenter(text, sentence_tokens=longest)

    assert [text[start:end] for start, end in found.places] == found.tokens
    assert "".join(found.tokens) == "".join(text.split())
    assert all(token and not any(character.isspace() for character in token) for token in found.tokens)
    edges = [0, *(end for _, end in found.sentences)]
    assert found.sentences == list(pairwise(edges))
    assert edges[-1] == len(found.tokens)
    assert all(0 < end - start <= longest for start, end in found.sentences)
    assert set(found.cuts) <= {start for start, _ in found.sentences}


def test_sentences_end_at_punctuation_and_keep_their_closing_quotes() -> None:
    found = segment('He said "Go." Dr. No isn\'t in! Why?')
    assert sentences(found) == [
        ["He", "said", '"', "Go", ".", '"'],
        ["Dr.", "No", "is", "n't", "in", "!"],
        ["Why", "?"],
    ]


@pytest.mark.parametrize("gap", ["\n\n", "\r\n\r\n", "\n \t\n", "\r\r", " \n\u00a0\n ", "\u2029", "\n\n\n"])
def test_a_blank_line_ends_a_sentence(gap: str) -> None:
    assert sentences(segment(f"A title{gap}the text")) == [["A", "title"], ["the", "text"]]


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\r", " \n  ", "\u2028", "\t"])
def test_a_single_line_break_does_not_end_a_sentence(gap: str) -> None:
    assert sentences(segment(f"a wrapped{gap}line")) == [["a", "wrapped", "line"]]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u00a0\u2003"])
def test_white_space_has_no_tokens_and_no_sentences(text: str) -> None:
    assert segment(text) == Segmented([], [], [], [])


def test_a_sentence_that_is_too_long_is_cut_after_a_comma_or_at_the_limit() -> None:
    found = segment("a b c , d e f g h i j k", sentence_tokens=5)
    assert sentences(found) == [["a", "b", "c", ","], ["d", "e", "f", "g", "h"], ["i", "j", "k"]]
    assert found.cuts == [4, 9]


def test_a_sentence_of_exactly_the_limit_is_not_cut() -> None:
    assert segment("a b c d e", sentence_tokens=5).cuts == []


@pytest.mark.parametrize(
    "text", ["(" * 20_000, "'s" * 10_000, "😀" * 20_000, "a" * 100_000, "." * 20_000 + "x"]
)
def test_long_runs_without_white_space_take_no_quadratic_time(text: str) -> None:
    before = time.process_time()
    found = segment(text)
    assert time.process_time() - before < 10  # spaCy alone: 15 to 40 seconds for most of these
    assert "".join(found.tokens) == text


def test_a_short_run_is_left_to_the_rules_whole() -> None:
    address = "http://example.org/" + "a" * (RUN_CHARACTERS - 19)
    assert segment(f"See {address} here").tokens == ["See", address, "here"]


@pytest.mark.parametrize("language", ["qq", "ja", ""])
def test_a_language_without_rules_falls_back_to_those_for_any_language(language: str) -> None:
    segmenter = Segmenter(language)
    assert segmenter.language == "xx"
    assert segmenter("Hello, you.", sentence_tokens=9).tokens == ["Hello", ",", "you", "."]


def test_strings_of_users_are_forgotten_once_enough_are_known() -> None:
    small = Segmenter("en", kept_strings=0)
    known = len(small._nlp.vocab.strings)
    for index in range(50):
        text = f"word{index} isn't number{index}, (x{index})! Yes{index}."
        assert small(text, sentence_tokens=9) == ENGLISH(text, sentence_tokens=9)
    assert len(small._nlp.vocab.strings) == known


def test_segmenting_imports_no_torch_and_leaves_it_importable():
    code = (
        "import sys, structural_kd.segment; assert 'torch' not in sys.modules, 'torch was imported'; "
        "import torch; torch.ones(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
