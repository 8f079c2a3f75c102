"""Trees as drawings, without a server."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from serve.formats.tree_drawing import WORD_CHARACTERS, direction_of, write
from serve.requests.items import AnsweredRequest
from serve.telemetry.summary import RequestSummary
from structural_kd.annotate.records import Record
from tests.serve.fakes import Tree

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"

SHE_SLEEPS = (["She", "sleeps", "."], Tree([2, 0, 2], ["nsubj", "root", "punct"], [0.97, 0.98, 0.5]))

Item = list[tuple[list[str], Tree]]
"""The sentences of an item, each with its tree."""


def chain(*words: str) -> tuple[list[str], Tree]:
    """A sentence in which each word hangs on the word before it."""
    tree = Tree(list(range(len(words))), ["root", *["dep"] * (len(words) - 1)], [0.25] * len(words))
    return list(words), tree


def drawn(*items: Item, model: str = "trees", language: str = "en") -> str:
    records = []
    for index, item in enumerate(items):
        tokens: list[str] = []
        ranges = []
        for words, _ in item:
            ranges.append((len(tokens), len(tokens) + len(words)))
            tokens += words
        records.append(Record(index, tokens, ranges))
    named: Any = SimpleNamespace(id=model, manifest=SimpleNamespace(language=language))
    trees = [tree for item in items for _, tree in item]
    return write(AnsweredRequest(named, records, trees, RequestSummary()))


def figures(*items: Item, model: str = "trees", language: str = "en") -> list[ElementTree.Element]:
    """The drawings, read as XML: whatever is not well-formed is an error."""
    return list(ElementTree.fromstring(f"<div>{drawn(*items, model=model, language=language)}</div>"))


def texts(figure: ElementTree.Element, name: str) -> list[str]:
    return [element.text or "" for element in figure.iter(f"{SVG}{name}")]


def place(figure: ElementTree.Element, word: str) -> float:
    """Where a word is drawn: the distance from the left."""
    (found,) = [span for span in figure.iter(f"{SVG}tspan") if span.text == word]
    return float(found.attrib["x"])


def test_an_arrow_for_each_word_names_its_relation_score_and_words() -> None:
    (figure,) = figures([SHE_SLEEPS])
    assert set(texts(figure, "title")) == {
        "nsubj 0.97: \u2068sleeps\u2069 → \u2068She\u2069",
        "root 0.98: \u2068sleeps\u2069",
        "punct 0.50: \u2068sleeps\u2069 → \u2068.\u2069",
    }
    labels = [element.text for element in figure.iter() if element.get("class") == "displacy-label"]
    assert sorted(filter(None, labels)) == ["nsubj", "punct", "root"]


def test_every_sentence_has_a_figure_that_names_the_model_and_items_without_any_have_none() -> None:
    found = figures([chain("One", "."), chain("Two", ".")], [], [chain("Three")])
    assert [figure.get("data-model") for figure in found] == ["trees"] * 3
    assert [len(texts(figure, "title")) for figure in found] == [2, 2, 1]
    assert drawn() == drawn([]) == ""


def test_labels_follow_the_arc_of_their_own_sentence() -> None:
    found = figures([chain("One", "."), chain("Two", ".")], [chain("Three", ".")])
    arcs = [[arc.get("id") for arc in figure.iter(f"{SVG}path") if arc.get("id")] for figure in found]
    followed = [[path.attrib[f"{XLINK}href"] for path in figure.iter(f"{SVG}textPath")] for figure in found]
    assert followed == [[f"#{name}" for name in names] for names in arcs]
    assert len({name for names in arcs for name in names}) == 3


def test_whatever_is_in_the_words_is_drawn_as_words() -> None:
    words = ["<script>alert(1)</script>"[:WORD_CHARACTERS], '"', "'", "&amp;", "</svg>", '" style="', "{x}"]
    (figure,) = figures([chain(*words)])
    shown = [span.text for span in figure.iter(f"{SVG}tspan") if span.get("class") == "displacy-word"]
    assert shown == words
    assert not list(figure.iter("script"))


def test_relations_and_the_name_of_the_model_are_escaped_too() -> None:
    sentence = (["One", "two"], Tree([0, 1], ["<root>", "<dep>"], [0.25] * 2))
    (figure,) = figures([sentence], model='<"trees">')
    assert figure.get("data-model") == '<"trees">'
    assert texts(figure, "textPath") == ["<dep>"]


def test_right_to_left_trees_begin_at_the_right() -> None:
    sentence = chain("הילדים", "משחקים", "בגן")
    (right_to_left,) = figures([sentence], language="he")
    (left_to_right,) = figures([sentence])
    assert right_to_left.get("dir") == "rtl"
    assert place(right_to_left, "הילדים") > place(right_to_left, "משחקים") > place(right_to_left, "בגן")
    assert place(left_to_right, "הילדים") < place(left_to_right, "משחקים") < place(left_to_right, "בגן")


@pytest.mark.parametrize("language", ["en", "he"])
def test_arcs_run_from_left_to_right_so_that_their_labels_stand_upright(language: str) -> None:
    (figure,) = figures([SHE_SLEEPS], language=language)
    arcs = [arc.attrib["d"].split() for arc in figure.iter(f"{SVG}path") if arc.get("id")]
    assert len(arcs) == 2
    for begin, *_, end in arcs:
        assert float(begin[1:].split(",")[0]) < float(end.split(",")[0])


def test_drawings_have_no_styles_that_a_content_security_policy_would_refuse() -> None:
    (figure,) = figures([SHE_SLEEPS])
    for element in figure.iter():
        assert element.tag != f"{SVG}style"
        assert not [name for name in element.attrib if name == "style" or name.startswith("on")]


def test_a_very_long_word_is_drawn_short_and_stays_whole_in_the_title() -> None:
    word = "a" * 500
    (figure,) = figures([chain("One", word)])
    assert "a" * (WORD_CHARACTERS - 1) + "…" in texts(figure, "tspan")
    assert any(word in title for title in texts(figure, "title"))
    assert float(figure[0].attrib["width"]) < 1000


@pytest.mark.parametrize(
    ("language", "direction"), [("he", "rtl"), ("ar", "rtl"), ("en", "ltr"), ("xx", "ltr")]
)
def test_a_language_has_its_direction(language: str, direction: str) -> None:
    assert direction_of(language) == direction


def test_drawing_brings_no_torch_into_the_process() -> None:
    code = "import sys, serve.formats.tree_drawing; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
