import pytest

from train.corpora import Corpus, Sentence


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"words": ()}, "no words"),
        ({"words": ("a", "")}, "word 2"),
        ({"words": ("a", " ")}, "word 2"),
        ({"words": ("a\tb",)}, "without tabs"),
        ({"words": ("a", "b"), "tags": ("O",)}, "1 tags for 2 words"),
        ({"words": ("a", "b"), "tags": ("O", "E-X")}, "position 1"),
        ({"words": ("a", "b"), "heads": (0, 0)}, "second root"),
        ({"words": ("a", "b"), "deprels": ("x", "y")}, "without heads"),
        ({"words": ("a",), "heads": (0,), "deprels": ("",)}, "empty"),
    ],
)
def test_an_inconsistent_sentence_cannot_be_made(fields, message):
    with pytest.raises(ValueError, match=message):
        Sentence(**fields)


def test_unlabelled_keeps_the_words_alone():
    sentence = Sentence(("a", "b"), ("O", "S-X"), (0, 1), ("root", "obj"), "a b")
    assert sentence.unlabelled() == Sentence(("a", "b"))


def test_the_digest_is_of_words_and_labels_and_of_the_split():
    one, two = Sentence(("a",), ("O",)), Sentence(("b",), ("O",))
    digest = Corpus("x", "en", (one, two), (), ()).digest
    assert len(digest) == 64
    assert digest == Corpus("y", "de", (Sentence(("a",), ("O",), text="a"), two), (), ()).digest
    others = [
        Corpus("x", "en", (one,), (two,), ()),
        Corpus("x", "en", (two, one), (), ()),
        Corpus("x", "en", (one, Sentence(("b",), ("S-X",))), (), ()),
        Corpus("x", "en", (one, Sentence(("b",), ("O",), (0,))), (), ()),
        Corpus("x", "en", (one, Sentence(("b",))), (), ()),
    ]
    assert len({digest, *(other.digest for other in others)}) == 6
