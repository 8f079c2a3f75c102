"""Raw text becomes sentences as the server cuts it, each once, and none of those held out."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.requests.items import records_of, sentences_of
from serve.schemas import AnnotationRequest
from serve.settings import Limits
from structural_kd.annotate.readers import ReaderSettings
from structural_kd.segment import Segmenter
from tests.train.tiny import write_corpus, write_encoder, write_recipe, write_text
from train.__main__ import main
from train.corpora import CorpusError, CorpusWarning
from train.corpora.raw_text import TEXT_CHARACTERS, read_raw_text
from train.raw_sentences import Counts, Cutter, raw_sentences
from train.recipe import RecipeError, TextSource, load_recipe
from train.splits import load_splits

awkward = st.sampled_from(
    ["\u00a0", "\r\n", "\n", "\n\n", "\r", "\t", "\x1c", "\x85", "\u2028", "\u2029", " \n \n", "e\u0301",
     "isn't", "Dr.", "Haifa,", "U.S.", "…", ".", "!", ")", '"', "שלום", "׳", "\u200f", "x" * 300]
)  # fmt: skip
texts = st.lists(st.one_of(st.text(max_size=5), awkward, st.just(" ")), max_size=15).map("".join)


SEGMENTERS = {language: Segmenter(language) for language in ("en", "he")}
ENGLISH = Cutter("en")


def served(text: str, language: str) -> list[list[str]]:
    """The sentences that the server cuts a text into."""
    limits = Limits()
    reading = ReaderSettings(
        language,
        sentence_tokens=limits.sentence_tokens,
        block_bytes=limits.line_bytes,
        shared=SEGMENTERS[language],
    )
    return [
        list(words)
        for words in sentences_of(
            records_of(AnnotationRequest.model_validate({"texts": [text]}), reading, limits)
        )
    ]


def read(*paths: Path, language: str = "en", tokenised: bool = False, **more: object) -> list[list[str]]:
    sources = [TextSource(path=str(path), tokenised=tokenised) for path in paths]
    return [list(sentence.words) for sentence in raw_sentences(sources, language, **more)[0]]  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_a_text_is_cut_as_the_server_cuts_it(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = text.replace("\0", "").lstrip("\ufeff")
    path = tmp_path_factory.getbasetemp() / "drawn.txt"
    path.write_bytes(text.encode())
    found = [list(words) for part in read_raw_text(path) for words in ENGLISH.sentences(part, Counts())]
    assert found == (served(text, "en") if text else [])


@pytest.mark.parametrize("language", ["en", "he"])
def test_paragraphs_of_each_format_are_cut_as_the_server_cuts_them(tmp_path: Path, language: str) -> None:
    text = (
        "Dr. Stone lives in\u00a0Haifa, near\nthe sea. She isn't in!\r\n\r\nA heading\n\n"
        f"דר׳ לאה גרה בחיפה, ליד הים. Cafe\u0301s close.\n\n{'and so on , ' * 200}"
    )
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": text}))
    expected = served(text, language)
    assert ["A", "heading"] in expected
    once = list(map(list, dict.fromkeys(map(tuple, expected))))
    assert read(tmp_path / "a.txt", language=language) == once
    assert read(tmp_path / "b.jsonl", language=language) == once


def test_a_long_text_is_cut_after_a_sentence(tmp_path: Path) -> None:
    text = " ".join(f"Item {number} is in, now." for number in range(TEXT_CHARACTERS // 12))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    found = read(tmp_path / "a.jsonl")
    assert found == [["Item", str(number), "is", "in", ",", "now", "."] for number in range(len(found))]
    assert len(found) == TEXT_CHARACTERS // 12


def test_a_sentence_comes_once_and_never_one_of_those_known_or_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "Ada left. Ada ran.\n\nAda left. Kurt slept. Ada saw the sea at Haifa, again."
    )
    (tmp_path / "b.txt").write_text("Ada ran. Grace read.")
    kept, counts = raw_sentences(
        [TextSource(path=str(tmp_path))],
        "en",
        training=[("Kurt", "slept", ".")],
        held_out=[("Ada", "saw", "the", "sea", "at", "Haifa,", "again", ".")],
    )
    assert [sentence.words for sentence in kept] == [
        ("Ada", "left", "."),
        ("Ada", "ran", "."),
        ("Grace", "read", "."),
    ]
    assert (counts.texts, counts.sentences, counts.duplicates, counts.held_out) == (3, 7, 3, 1)


def test_what_was_dropped_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("Ada left. Ada left. Kurt slept.")
    read(tmp_path / "a.txt", held_out=[("Kurt", "slept", ".")], training=[("x",)])
    said = capsys.readouterr().out
    for what in (
        "1 texts",
        "3 sentences",
        "1 duplicates",
        "1 held-out",
        "0.0% of the words in another script",
    ):
        assert what in said
    read(tmp_path / "a.txt", quiet=True)
    assert not capsys.readouterr().out


def test_text_in_another_script_than_the_corpus_is_a_warning_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Ada left in 1999, and Кирилл ran.")
    (tmp_path / "other.txt").write_text("Мама мыла раму. Ada papa.\n\nКот спал!")
    training = [("Ada", "left", "."), ("Kurt", "slept", ".")]
    with pytest.warns(CorpusWarning) as caught:
        read(tmp_path, training=training)
    (message,) = [str(warning.message) for warning in caught]
    assert "other.txt" in message
    assert "71%" in message
    assert "latin" in message


def test_text_without_sentences_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n \u00a0\n")
    with pytest.raises(CorpusError, match=r"a\.txt: .*empty"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("Ada left.")
    with pytest.warns(CorpusWarning, match=r"1 files are empty: .*a\.txt"):
        assert read(tmp_path) == [["Ada", "left", "."]]


def test_a_language_without_rules_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ada left.")
    with pytest.warns(CorpusWarning, match="no rules for the language 'ja'"):
        read(tmp_path / "a.txt", language="ja")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_corpus(folder / "xx_tiny")
    write_encoder(folder / "encoder")
    return folder


def raw_recipe(path: Path, text: object) -> Path:
    path.write_text(
        f"text: {json.dumps(text)}\nlanguage: en\ndistillation: {{objectives: [structural]}}\n"
        "tasks: {ner: {teacher: {kind: transformers, name: x}, students: {crf: {}}}}\n"
    )
    return path


def test_prose_beside_a_corpus_is_raw_text_without_its_sentences(folder: Path, tmp_path: Path) -> None:
    alone = load_splits(load_recipe(write_recipe(folder)))
    known = "\n".join(" ".join(sentence.words) for sentence in alone.sentences)
    text = tmp_path / "more.txt.gz"
    text.write_bytes(gzip.compress(f"{known}\n\nDr. Stone lives in Haifa, near the sea.".encode()))
    splits = load_splits(load_recipe(write_recipe(folder, text=str(text), language="en")))
    assert splits.sentences[:-1] == alone.sentences
    assert " ".join(splits.sentences[-1].words) == "Dr. Stone lives in Haifa , near the sea ."
    assert splits.unlabelled == [*alone.unlabelled, len(alone.sentences)]
    assert (splits.dev, splits.test) == (alone.dev, alone.test)


def test_held_out_raw_text_is_not_taught(tmp_path: Path) -> None:
    """A line that is there many times was in all three splits."""
    line = "Ada left Haifa .\n"
    (tmp_path / "same.txt").write_text(line * 200)
    with pytest.raises(RecipeError, match=r"same\.txt has 1 sentences; at least 10 .*199 duplicates"):
        load_splits(load_recipe(raw_recipe(tmp_path / "r.yaml", str(tmp_path / "same.txt"))))
    write_text(tmp_path / "some.txt", 60)
    tokenised = {"path": str(tmp_path / "some.txt"), "tokenised": True}
    splits = load_splits(
        load_recipe(raw_recipe(tmp_path / "r.yaml", [str(tmp_path / "same.txt"), tokenised]))
    )
    assert len({sentence.words for sentence in splits.sentences}) == len(splits.sentences)
    held_out = {"".join(sentence.words) for sentence in splits.select([*splits.dev, *splits.test])}
    taught = {"".join(sentence.words) for sentence in splits.select(splits.student_train)}
    assert len(splits.dev) == len(splits.test) == 6
    assert not any(one in other for one in held_out if len(one) >= 20 for other in taught)
    assert splits.name == "same+some"


def test_a_recipe_takes_a_path_a_mapping_or_a_list_of_them(tmp_path: Path) -> None:
    first, second = TextSource(path="a.txt"), TextSource(path="b", tokenised=True)
    given = {"path": "b", "tokenised": True}
    for text, sources in (("a.txt", (first,)), (given, (second,)), (["a.txt", given], (first, second))):
        recipe = load_recipe(raw_recipe(tmp_path / "r.yaml", text))
        assert recipe.text == sources
        assert recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("text", "key"),
    [({"path": "b", "tokenized": True}, "tokenised"), (3, r"text\.0\.path"), ([], "text")],
)
def test_another_text_in_a_recipe_is_an_error(tmp_path: Path, text: object, key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        load_recipe(raw_recipe(tmp_path / "r.yaml", text))


def test_the_command_names_a_text_that_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("\n")
    recipe = raw_recipe(tmp_path / "r.yaml", str(tmp_path / "a.txt"))
    assert main([str(recipe), "--out", str(tmp_path / "out")]) == 1
    assert "a.txt: the text is empty" in capsys.readouterr().err
