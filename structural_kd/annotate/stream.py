"""Records through the predictors, a window at a time, so that a file of any size takes the same memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from structural_kd.annotate.lines import Lines
from structural_kd.annotate.records import BadRecord, Record
from structural_kd.annotate.writers import AnnotatedRecord

BYTES_A_TOKEN = 128
"""A window ends after this many bytes for each of its tokens: comments and other columns take memory too."""


class SentencePredictor(Protocol):
    """What annotation needs of a loaded bundle; `structural_kd.Predictor` is one."""

    def predict(self, sentences: Sequence[Sequence[str]]) -> Sequence[Any]: ...


Window = list[Record | BadRecord]
Item = AnnotatedRecord | BadRecord


def windows(records: Iterable[Record | BadRecord], lines: Lines, tokens: int) -> Iterator[Window]:
    """Records of about `tokens` tokens together, in order; `lines` are those that they are made of.

    Where a window ends depends on the input from its beginning alone, so that a run that goes on at the end
    of one has the same windows, and the same batches, as a run from the beginning.
    """
    window: Window = []
    size = 0
    begin = lines.bytes
    for record in records:
        window.append(record)
        size += 1 if isinstance(record, BadRecord) else 1 + len(record.tokens)
        if size >= tokens or lines.bytes - begin >= tokens * BYTES_A_TOKEN:
            yield window
            window, size, begin = [], 0, lines.bytes
    if window:
        yield window


def annotate(window: Window, predictors: Mapping[str, SentencePredictor]) -> list[Item]:
    """The records of a window with their answers; `predictors` are by task, "ner" or "parse" or both."""
    sentences = [
        record.tokens[start:end]
        for record in window
        if isinstance(record, Record)
        for start, end in record.sentences
    ]
    answers = {task: _answers(predictor, sentences) for task, predictor in predictors.items()}
    items: list[Item] = []
    first = 0
    for record in window:
        if isinstance(record, BadRecord):
            items.append(record)
            continue
        end = first + len(record.sentences)
        own = {task: found[first:end] for task, found in answers.items()}
        items.append(AnnotatedRecord(record, own.get("ner"), own.get("parse")))
        first = end
    return items


def _answers(predictor: SentencePredictor, sentences: Sequence[Sequence[str]]) -> Sequence[Any]:
    answers = predictor.predict(sentences) if sentences else []
    if len(answers) != len(sentences):
        raise RuntimeError(f"{len(answers)} answers for {len(sentences)} sentences")
    return answers
