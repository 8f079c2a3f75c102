import pytest
from hypothesis import given
from hypothesis import strategies as st

from structural_kd.labels import Span
from train.corpora import CorpusError, CorpusWarning, Sentence, read_conllu
from train.corpora.subtokens import merge_subtokens_of


def row(identifier, form, head, deprel="dep", misc="_"):
    return f"{identifier}\t{form}\t_\t_\t_\t_\t{head}\t{deprel}\t_\t{misc}"


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "corpus.conllu"
        path.write_bytes(b"\n".join(r if isinstance(r, bytes) else r.encode() for r in rows))
        return path

    return write


HEBREW = [
    "# text = ראה בוועדת העבודה",
    row(1, "ראה", 0, "root", "NER=O"),
    row("2-3", "בוועדת", "_", "_"),
    row(2, "ב", 3, "case", "NER=O"),
    row(3, "וועדת", 1, "obl", "NER=B-ORG|SpaceAfter=No"),
    row("4-5", "העבודה", "_", "_"),
    row(4, "ה", 5, "det:def", "Gloss=the|NER=I-ORG"),
    row(5, "עבודה", 3, "nmod", "NER=E-ORG"),
]


def test_words_are_read_with_tree_entities_and_text(file):
    assert read_conllu(file(*HEBREW), entities="NER") == [
        Sentence(
            words=("ראה", "ב", "וועדת", "ה", "עבודה"),
            tags=("O", "O", "B-ORG", "I-ORG", "E-ORG"),
            heads=(0, 3, 1, 5, 3),
            deprels=("root", "case", "obl", "det:def", "nmod"),
            text="ראה בוועדת העבודה",
        )
    ]


def test_merging_makes_one_token_of_each_multiword_token(file):
    assert read_conllu(file(*HEBREW), entities="NER", merge_subtokens=True) == [
        Sentence(
            words=("ראה", "בוועדת", "העבודה"),
            tags=("O", "B-ORG", "E-ORG"),
            heads=(0, 1, 2),
            deprels=("root", "obl", "nmod"),
            text="ראה בוועדת העבודה",
        )
    ]


def test_without_a_key_there_are_no_entities_and_without_heads_no_tree(file):
    path = file(row(1, "a", "_", "_"), row(2, "b", "_", "_"), "", row(1, "c", 0, "root"))
    assert read_conllu(path) == [Sentence(("a", "b")), Sentence(("c",), heads=(0,), deprels=("root",))]


def test_empty_nodes_are_left_out(file):
    path = file(row("0.1", "x", "_"), row(1, "a", 0, "root"), row("1.1", "y", "_", "_"), row(2, "b", 1))
    assert read_conllu(path) == [Sentence(("a", "b"), heads=(0, 1), deprels=("root", "dep"))]


def test_of_equally_high_words_a_content_word_stands_for_the_token():
    words = Sentence(("and", "client", "left"), heads=(3, 3, 0), deprels=("cc", "nsubj", "root"))
    merged, _ = merge_subtokens_of(words, [("andclient", 0, 1)])
    assert merged == Sentence(("andclient", "left"), heads=(2, 0), deprels=("nsubj", "root"))


def test_of_equally_high_function_words_the_first_stands_for_the_token():
    words = Sentence(("em", "a", "costa"), heads=(3, 3, 0), deprels=("case", "det", "root"))
    merged, _ = merge_subtokens_of(words, [("na", 0, 1)])
    assert merged == Sentence(("na", "costa"), heads=(2, 0), deprels=("case", "root"))


def test_the_word_highest_in_the_tree_stands_for_the_token_even_against_a_content_word():
    words = Sentence(("a", "b", "c"), heads=(0, 3, 1), deprels=("root", "obj", "case"))
    merged, _ = merge_subtokens_of(words, [("bc", 1, 2)])
    assert merged == Sentence(("a", "bc"), heads=(0, 1), deprels=("root", "case"))


def test_of_entities_that_share_a_token_the_longer_stays():
    words = Sentence(tuple("abcd"), ("S-X", "B-Y", "E-Y", "S-Z"))
    merged, dropped = merge_subtokens_of(words, [("ab", 0, 1)])
    assert merged == Sentence(("ab", "c", "d"), ("B-Y", "E-Y", "S-Z"))
    assert dropped == [Span("X", 0, 1)]


def test_of_entities_of_one_length_that_share_a_token_the_first_stays():
    words = Sentence(tuple("ab"), ("S-X", "S-Y"))
    merged, dropped = merge_subtokens_of(words, [("ab", 0, 1)])
    assert merged == Sentence(("ab",), ("S-X",))
    assert dropped == [Span("Y", 1, 2)]


def test_dropped_entities_are_counted_in_a_warning(file):
    path = file(row("1-2", "ab", "_", "_"), row(1, "a", "_", "_", "E=S-X"), row(2, "b", "_", "_", "E=S-Y"))
    with pytest.warns(CorpusWarning, match=r"1 entities share a token .* at the lines 3"):
        read_conllu(path, entities="E", merge_subtokens=True)


@st.composite
def trees_with_ranges(draw):
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(1, n + 1)))
    heads = [0] * n
    for rank, word in enumerate(order):
        heads[word - 1] = order[draw(st.integers(0, rank - 1))] if rank else 0
    deprels = tuple(draw(st.lists(st.sampled_from(["case", "obj"]), min_size=n, max_size=n)))
    ranges, position = [], 0
    while position < n:
        last = draw(st.integers(position, min(n - 1, position + 3)))
        if last > position:
            ranges.append(("+", position, last))
        position = last + 1
    return Sentence(("w",) * n, heads=tuple(heads), deprels=deprels), ranges


@given(trees_with_ranges())
def test_merging_any_tree_gives_a_tree_whose_arcs_are_arcs_between_tokens(case):
    sentence, ranges = case
    merged, _ = merge_subtokens_of(sentence, ranges)
    token_of = []
    for token, word in enumerate(merged.words):
        size = next((r[2] - r[1] + 1 for r in ranges if r[1] == len(token_of)), 1)
        assert word == ("+" if size > 1 else "w")
        token_of += [token] * size
    assert len(token_of) == len(sentence.words)
    arcs = {
        (token_of[i], token_of[head - 1] + 1 if head else 0, deprel)
        for i, (head, deprel) in enumerate(zip(sentence.heads, sentence.deprels, strict=True))
    }
    assert set(zip(range(len(merged.words)), merged.heads, merged.deprels, strict=True)) <= arcs


GOOD = row(1, "a", 0, "root")


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ([""], None, "empty"),
        (["# text = a", ""], None, "no sentence"),
        ([GOOD, "2\tb"], 2, "2 columns; expected 10"),
        ([GOOD, row(2, "b", 1).replace("\t", " ")], 2, "1 columns; expected 10"),
        ([GOOD, row("x", "b", 1)], 2, "id 'x'"),
        ([GOOD, row("²", "b", 1)], 2, "id '²'"),
        ([GOOD, row(3, "b", 1)], 2, "id 3; expected 2"),
        ([GOOD, row(1, "b", 1)], 2, "id 1; expected 2"),
        ([GOOD, row(2, "", 1)], 2, "not empty"),
        ([GOOD, row(2, "b", "x")], 2, "head 'x'; expected an integer"),
        ([GOOD, row(2, "b", "_")], 2, "head '_'; expected an integer"),
        ([GOOD, row(2, "b", "-1")], 2, "head '-1'; expected an integer"),
        ([GOOD, row(2, "b", 3)], 2, "head 3 is out of range; expected 0 (root) to 2"),
        ([GOOD, row(2, "b", 0)], 2, "second root"),
        ([row(1, "a", 2), row(2, "b", 1)], 1, "no root"),
        ([GOOD, row(2, "b", 3), row(3, "c", 2)], 2, "cycle 2 → 3 → 2"),
        ([GOOD, row(2, "b", 2)], 2, "cycle 2 → 2"),
        ([GOOD, row(2, "b", 3), row(3, "c", 4), row(4, "d", 3)], 3, "cycle 3 → 4 → 3"),
        ([GOOD, row(2, "b", 1, "")], 2, "relation is empty"),
        ([GOOD, "# text = b", row(2, "b", 1)], 2, "comment inside"),
        ([row("1-3", "ab", "_"), GOOD, row(2, "b", 1)], 1, "the range ends at 3; expected at most 2"),
        ([row("2-3", "ab", "_"), GOOD], 1, "expected it to begin with 1"),
        ([row("1-2", "ab", "_"), GOOD, row("2-3", "bc", "_")], 3, "overlap no other"),
        ([row("1-2", "ab", "_"), row("1-2", "ab", "_")], 2, "overlap no other"),
        ([GOOD, b"2\t\xe9\t"], 2, "expected UTF-8"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number_and_what_was_expected(file, rows, line, message):
    path = file(*rows)
    with pytest.raises(CorpusError) as caught:
        read_conllu(path)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("misc", "message"),
    [
        ("_", "expected NER= in it once"),
        ("NER=O|NER=O", "expected NER= in it once"),
        ("NER=", "unknown tag ''"),
        ("NER=X-A", "unknown tag 'X-A'"),
        ("NER=I-A", "I- begins an entity here"),
    ],
)
def test_a_bad_entity_tag_is_an_error_with_its_line(file, misc, message):
    path = file(
        row(1, "a", 0, "root", "NER=B-A"), row(2, "b", 1, "dep", "NER=O"), row(3, "c", 1, "dep", misc)
    )
    with pytest.raises(CorpusError) as caught:
        read_conllu(path, entities="NER")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_repair_leaves_out_sentences_that_are_no_tree_and_says_so(file):
    path = file(row(1, "a", 0, "root"), "", row(1, "b", 1))
    with pytest.warns(
        CorpusWarning, match=r"1 sentences whose heads are no tree were left out, at the lines 3"
    ):
        assert [sentence.words for sentence in read_conllu(path, repair=True)] == [("a",)]


def test_repair_does_not_pass_over_a_malformed_line(file):
    with pytest.raises(CorpusError, match="expected an integer"):
        read_conllu(file(row(1, "a", "x")), repair=True)
