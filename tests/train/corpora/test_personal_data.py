"""Text that is made from templates: each split has its own, and the same text comes out each time."""

import os
import re
import subprocess
import sys
from itertools import islice

import pytest

from train.corpora import personal_data
from train.corpora.personal_data import FIELDS, LOCALES, SENTENCES, TEMPLATES, texts
from train.recipe import Recipe, RecipeError
from train.splits import load_splits

SPLITS = ("train", "dev", "test")
RECIPE = {
    "text": "personal_data",
    "distillation": {"objectives": ["structural"]},
    "tasks": {"ner": {"teacher": {"kind": "transformers", "name": "a/b"}, "students": {"crf": {}}}},
}


def templates(kind, split):
    return (TEMPLATES / f"{kind}_{split}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("kind", ["personal", "plain"])
def test_no_template_is_in_two_splits_or_twice_in_one(kind):
    every = [template for split in SPLITS for template in templates(kind, split)]
    assert len(set(every)) == len(every)


def test_every_field_of_a_template_has_values_and_every_bracket_an_end():
    for split in SPLITS:
        for template in [*templates("personal", split), *templates("plain", split)]:
            assert set(re.findall(r"\{(\w+)\}", template)) <= FIELDS.keys(), template
            assert re.sub(r"\[[^][]*\]", "", template).count("[") == 0, template


@pytest.mark.parametrize("locale", LOCALES)
def test_every_field_has_values_in_every_locale(locale):
    values = personal_data._values(1)[locale]
    for field in FIELDS:
        values.begin()
        assert values.of(field).strip(), field
        assert not set(values.of(field)) & set("{}[]\n"), field


def test_the_same_split_has_the_same_texts_and_others_have_other_ones():
    first = list(islice(texts("dev"), 50))
    assert first == list(islice(texts("dev"), 50))
    assert not set(first) & set(islice(texts("test"), 50))


def test_splits_come_from_the_made_text_held_out_sentences_apart(monkeypatch):
    for split, size in (("train", 120), ("dev", 30), ("test", 30)):
        monkeypatch.setitem(SENTENCES, split, size)
    splits = load_splits(Recipe.model_validate(RECIPE))
    assert (splits.name, splits.language, splits.labelled) == ("personal_data", "en", [])
    assert [len(part) for part in (splits.student_train, splits.dev, splits.test)] == [120, 30, 30]
    words = [sentence.words for sentence in splits.sentences]
    assert len(set(words)) == len(words) == 180


def test_the_texts_are_the_same_in_every_process() -> None:
    program = (
        "from itertools import islice; from train.corpora.personal_data import texts; "
        "print(*islice(texts('test'), 200), sep='|')"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_made_text_beside_a_corpus_is_refused_rather_than_read_in_its_place() -> None:
    recipe = Recipe.model_validate({**RECIPE, "text": ["personal_data", "more.txt"]})
    with pytest.raises(RecipeError, match="stands alone"):
        load_splits(recipe)
