"""Trees as CoNLL-U (https://universaldependencies.org/format.html)."""

from collections.abc import Iterator, Sequence

from serve.requests.items import Item
from serve.schemas import ParseResult

MEDIA_TYPE = "text/x-conllu"


def write(items: Sequence[Item], results: Sequence[ParseResult], model: str) -> str:
    """One block a sentence. Item i of the request is the document `item-i`, counted from 0."""
    return "".join(
        line
        for index, (item, result) in enumerate(zip(items, results, strict=True))
        for line in _item_lines(f"item-{index}", item, result, model)
    )


def _item_lines(name: str, item: Item, result: ParseResult, model: str) -> Iterator[str]:
    for number, sentence in enumerate(result.sentences):
        if number == 0:
            yield f"# newdoc id = {name}\n# model = {model}\n"
        yield f"# sent_id = {name}-{number}\n"
        spaced = [_space_after(item, index) for index in range(sentence.start, sentence.end)]
        if item.text is not None:
            forms = result.tokens[sentence.start : sentence.end]
            text = "".join(form + " " * space for form, space in zip(forms, spaced, strict=True))
            yield f"# text = {text.rstrip()}\n"
        for index, space in zip(range(sentence.start, sentence.end), spaced, strict=True):
            head = result.heads[index]
            columns = (
                str(index - sentence.start + 1),
                result.tokens[index],
                *"____",
                str(head - sentence.start if head else 0),
                result.deprels[index],
                "_",
                "_" if space else "SpaceAfter=No",
            )
            yield "\t".join(columns) + "\n"
        yield "\n"


def _space_after(item: Item, index: int) -> bool:
    """Whether white space, the end of the text, or nothing known follows a token."""
    if item.places is None or index + 1 == len(item.places):
        return True
    return item.places[index][1] != item.places[index + 1][0]
