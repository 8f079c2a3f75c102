"""What a writer wrote, the reader reads as the same sentences."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structural_kd.labels import Span, bioes_from_spans
from train.corpora import (
    Sentence,
    read_conll,
    read_conllu,
    read_jsonl,
    read_text,
    write_conll,
    write_conllu,
    write_jsonl,
)
from train.corpora.conll import DOCUMENT_MARK

CHARACTERS = st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"])
WORDS = st.text(CHARACTERS, min_size=1, max_size=6).filter(str.strip) | st.sampled_from(
    ["#", "# text = x", "_", "1-2", "1.1", "O", "=", "|", "\u2028x", "\x85x", "a\u00a0b", "a b"]
)
TYPES = st.sampled_from(["PER", "LOC", "a-b", "人"])


@st.composite
def sentences(draw, *, tags=True, trees=True):
    words = tuple(draw(st.lists(WORDS, min_size=1, max_size=8)))
    n = len(words)
    spans, start = [], 0
    while tags and start < n:
        size = draw(st.integers(1, n - start))
        if draw(st.booleans()):
            spans.append(Span(draw(TYPES), start, start + size))
        start += size
    heads = deprels = None
    if trees and draw(st.booleans()):
        order = draw(st.permutations(range(1, n + 1)))
        above = [0] * n
        for rank, word in enumerate(order):
            above[word - 1] = order[draw(st.integers(0, rank - 1))] if rank else 0
        heads = tuple(above)
        if draw(st.booleans()):
            deprels = tuple(draw(st.lists(st.sampled_from(["nsubj", "obl:de"]), min_size=n, max_size=n)))
    text = draw(st.none() | st.text(CHARACTERS, max_size=10))
    return Sentence(words, tuple(bioes_from_spans(spans, n)) if tags else None, heads, deprels, text)


def through(write, read, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus{suffix}"
        write(path)
        assert [file.name for file in Path(folder).iterdir()] == [path.name]
        return read(path)


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes"])
@settings(deadline=None, max_examples=60)
@given(corpus=st.lists(sentences(trees=False), min_size=1, max_size=4))
def test_conll_columns_round_trip(scheme, corpus):
    corpus = [sentence for sentence in corpus if not sentence.words[0].startswith("\ufeff")]
    if not corpus:
        return
    read = through(
        lambda path: write_conll(path, corpus, scheme=scheme),
        lambda path: read_conll(path, scheme=scheme),
        ".conll",
    )
    assert read == corpus


@settings(deadline=None, max_examples=100)
@given(corpus=st.lists(sentences(), min_size=1, max_size=4))
def test_conllu_round_trips(corpus):
    read = through(
        lambda path: write_conllu(path, corpus, entities="E"),
        lambda path: read_conllu(path, entities="E"),
        ".conllu",
    )
    assert read == corpus


@settings(deadline=None, max_examples=40)
@given(corpus=st.lists(sentences(tags=False), min_size=1, max_size=4))
def test_conllu_without_entities_round_trips_and_keeps_its_tokens_when_merging(corpus):
    read = through(
        lambda path: write_conllu(path, corpus),
        lambda path: read_conllu(path, merge_subtokens=True),
        ".conllu",
    )
    assert read == corpus


@settings(deadline=None, max_examples=60)
@given(corpus=st.lists(sentences(), min_size=1, max_size=4))
def test_json_lines_round_trip(corpus):
    assert through(lambda path: write_jsonl(path, corpus), read_jsonl, ".jsonl") == corpus


def test_plain_text_is_tokens_split_by_spaces(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_bytes("\ufeffthe  jury said\u00a0so .\r\n\n# 2 .".encode())
    assert read_text(path) == [Sentence(("the", "jury", "said\u00a0so", ".")), Sentence(("#", "2", "."))]


@pytest.mark.parametrize("word", [DOCUMENT_MARK, "\ufeffa"])
def test_columns_refuse_words_that_they_could_not_read_again(tmp_path, word):
    path = tmp_path / "corpus.conll"
    path.write_text("before")
    with pytest.raises(ValueError, match="sentence 2"):
        write_conll(path, [Sentence(("a",), ("O",)), Sentence((word,), ("O",))])
    assert path.read_text() == "before"


def test_writers_refuse_sentences_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="sentence 1 has no tags"):
        write_conll(tmp_path / "a.conll", [Sentence(("a",))])
    with pytest.raises(ValueError, match="tab or a line break"):
        write_conll(tmp_path / "a.conll", [Sentence(("a",), ("O",), text="a\nb")])
    with pytest.raises(ValueError, match="tab or a line break"):
        write_conllu(tmp_path / "a.conllu", [Sentence(("a",), text="a\tb")])
    with pytest.raises(ValueError, match="cannot write"):
        write_conllu(tmp_path / "a.conllu", [Sentence(("a",), ("S-X|Y",))])
    assert list(tmp_path.iterdir()) == []
