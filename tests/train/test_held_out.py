"""Held-out sentences are found again in raw text that was cut otherwise."""

import pytest

from train.held_out import SHORTEST, HeldOut

SENTENCE = "She has n't been to Haifa before , has she ?"
HELD_OUT = HeldOut([SENTENCE.split(), ["Thank", "you", "!"], ["cafe\u0301", "closed"]])


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        "She hasn't been to Haifa\u00a0before, has she?",
        "Well : She has n't been to Haifa before , has she ? No .",
        "n't been to Haifa before , has",
        "Thank you!",
        "café closed",
    ],
)
def test_a_held_out_sentence_is_known_by_its_characters(text: str) -> None:
    assert text.split(" ") in HELD_OUT


@pytest.mark.parametrize(
    "text",
    ["She", "has she ?", "Thank you !  Good bye .", "Has n't she been to Haifa before ?", "thank you !"],
)
def test_other_sentences_and_short_parts_are_not_held_out(text: str) -> None:
    assert text.split() not in HELD_OUT


def test_parts_of_two_held_out_sentences_are_no_part_of_one() -> None:
    held_out = HeldOut([["a" * SHORTEST], ["b" * SHORTEST]])
    assert ["a" * (SHORTEST - 5) + "b" * 5] not in held_out
    assert ["a" * SHORTEST, "b" * SHORTEST] in held_out


def test_nothing_is_held_out_of_nothing() -> None:
    assert ["a" * 50] not in HeldOut([])
