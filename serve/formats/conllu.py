"""Trees as CoNLL-U (https://universaldependencies.org/format.html)."""

from collections.abc import Iterator, Sequence
from typing import Any

from serve.requests.items import AnsweredRequest
from structural_kd.annotate.records import Record

MEDIA_TYPE = "text/x-conllu"


def write(answered: AnsweredRequest) -> str:
    """One block a sentence. Item i of the request is the document `item-i`, counted from 0."""
    return "".join(line for record, trees in answered for line in _lines(record, trees, answered.model.id))


def _lines(record: Record, trees: Sequence[Any], model: str) -> Iterator[str]:
    name = f"item-{record.line}"
    for number, ((start, end), tree) in enumerate(zip(record.sentences, trees, strict=True)):
        if number == 0:
            yield f"# newdoc id = {name}\n# model = {model}\n"
        yield f"# sent_id = {name}-{number}\n"
        forms = record.tokens[start:end]
        spaced = [_space_after(record, index) for index in range(start, end)]
        if record.text is not None:
            text = "".join(form + " " * space for form, space in zip(forms, spaced, strict=True))
            yield f"# text = {text.rstrip()}\n"
        rows = zip(forms, tree.heads, tree.deprels, spaced, strict=True)
        for place, (form, head, deprel, space) in enumerate(rows, 1):
            misc = "_" if space else "SpaceAfter=No"
            yield "\t".join((str(place), form, *"____", str(head), deprel, "_", misc)) + "\n"
        yield "\n"


def _space_after(record: Record, index: int) -> bool:
    """Whether white space, the end of the text, or nothing known follows a token."""
    if record.text is None or index + 1 == len(record.places):
        return True
    return record.places[index][1] != record.places[index + 1][0]
