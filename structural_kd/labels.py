"""Entity tags and spans: IOB1, IOB2 and BIOES sequences, and the constraints of BIOES.

A tag is `O` or a prefix and a type, `B-PER`. The schemes (Ramshaw and Marcus 1995; Tjong Kim Sang and
Veenstra 1999; Ratinov and Roth 2009) differ in what begins and ends an entity:

| scheme | begins with | goes on with | ends with |
|---|---|---|---|
| `iob1` | `I-`, or `B-` directly after an entity of the same type | `I-` | anything else |
| `iob2` | `B-` | `I-` | anything else |
| `bioes` | `B-`, or `S-` for an entity of one token | `I-` | `E-`, or `S-` |
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PREFIXES = {"iob1": "BI", "iob2": "BI", "bioes": "BIES"}


class Span(NamedTuple):
    """An entity over the tokens `start`, ..., `end - 1`."""

    label: str
    start: int
    end: int


class TagError(ValueError):
    """A tag, or a tag where it stands, is not allowed; `position` is its 0-based place in the sequence."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"position {position}: {message}")
        self.position = position
        self.reason = message


@dataclass(frozen=True)
class Constraints:
    """Which label sequences are valid: `transitions` [L, L] (from, to), `start` [L], `end` [L]; all bool."""

    transitions: NDArray[np.bool_]
    start: NDArray[np.bool_]
    end: NDArray[np.bool_]


def repair_to_bioes(tags: Sequence[str], scheme: str) -> tuple[list[str], list[TagError]]:
    """The same entities in BIOES, and an error for each tag that the scheme does not allow where it stands.

    Such a tag is read leniently: one that should continue an entity where there is none begins one; an
    entity that a following tag leaves without its end ends before that tag. An unknown tag raises `TagError`.

    >>> repair_to_bioes(["B-PER", "I-PER", "S-PER"], "bioes")[0]
    ['B-PER', 'E-PER', 'S-PER']
    """
    spans, faults = _read_spans(tags, scheme)
    return bioes_from_spans(spans, len(tags)), faults


def from_bioes(tags: Sequence[str], scheme: str) -> list[str]:
    """The same entities in another scheme; an invalid sequence is a `TagError`.

    >>> from_bioes(["S-PER", "B-PER", "E-PER"], "iob1")
    ['I-PER', 'B-PER', 'I-PER']
    """
    spans = spans_from_bioes(tags)
    if scheme == "bioes":
        return list(tags)
    if scheme not in PREFIXES:
        raise ValueError(f"unknown tag scheme {scheme!r}; expected one of {', '.join(PREFIXES)}")
    result = ["O"] * len(tags)
    before = Span("", -1, -1)
    for span in spans:
        result[span.start : span.end] = [f"I-{span.label}"] * (span.end - span.start)
        touches_its_like = before.end == span.start and before.label == span.label
        if scheme == "iob2" or touches_its_like:
            result[span.start] = f"B-{span.label}"
        before = span
    return result


def spans_from_bioes(tags: Sequence[str]) -> list[Span]:
    """The entities of a BIOES sequence, from left to right; an invalid sequence is a `TagError`.

    >>> spans_from_bioes(["S-LOC", "O", "B-PER", "E-PER"])
    [Span(label='LOC', start=0, end=1), Span(label='PER', start=2, end=4)]
    """
    spans, faults = _read_spans(tags, "bioes")
    if faults:
        raise faults[0]
    return spans


def bioes_from_spans(spans: Iterable[Span], length: int) -> list[str]:
    """The tags of `length` tokens with these entities; overlapping or outlying spans are a `ValueError`.

    >>> bioes_from_spans([Span("PER", 1, 3)], 4)
    ['O', 'B-PER', 'E-PER', 'O']
    """
    tags = ["O"] * length
    for span in spans:
        label, start, end = span
        if not label:
            raise ValueError(f"{span} has an empty label")
        if not 0 <= start < end <= length:
            raise ValueError(f"{span} does not lie within {length} tokens")
        if any(tag != "O" for tag in tags[start:end]):
            raise ValueError(f"{span} overlaps another span")
        if end - start == 1:
            tags[start] = f"S-{label}"
        else:
            tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 2), f"E-{label}"]
    return tags


def bioes_labels(types: Iterable[str]) -> list[str]:
    """The label set of these entity types, types sorted.

    >>> bioes_labels(["PER"])
    ['O', 'B-PER', 'I-PER', 'E-PER', 'S-PER']
    """
    return ["O", *(f"{prefix}-{label}" for label in sorted(set(types)) for prefix in PREFIXES["bioes"])]


def bioes_constraints(labels: Sequence[str]) -> Constraints:
    """Which of these labels may begin, follow one another and end in a valid BIOES sequence."""
    parts = [split_tag(label, position, "bioes") for position, label in enumerate(labels)]
    opens = np.array([prefix in "OBS" for prefix, _ in parts], dtype=np.bool_)  # [L]
    closes = np.array([prefix in "OES" for prefix, _ in parts], dtype=np.bool_)  # [L]
    types = np.array([label for _, label in parts], dtype=object)  # [L]
    same_type = np.equal.outer(types, types).astype(np.bool_)  # [L, L]
    between = closes[:, None] & opens[None, :]  # [L, L]
    within = ~closes[:, None] & ~opens[None, :] & same_type  # [L, L]
    return Constraints(transitions=between | within, start=opens, end=closes)


def split_tag(tag: str, position: int, scheme: str) -> tuple[str, str]:
    """The prefix and the type of one tag, `("O", "")` outside; one unknown to the scheme is a `TagError`."""
    if tag == "O":
        return "O", ""
    prefix, dash, label = tag.partition("-")
    if not dash or not label or len(prefix) != 1 or prefix not in PREFIXES[scheme]:
        known = ", ".join(f"{letter}-TYPE" for letter in PREFIXES[scheme])
        raise TagError(position, f"unknown tag {tag!r} in the scheme {scheme}; expected O, {known}")
    return prefix, label


def _read_spans(tags: Sequence[str], scheme: str) -> tuple[list[Span], list[TagError]]:
    """The entities, read leniently, and the misplaced tags."""
    if scheme not in PREFIXES:
        raise ValueError(f"unknown tag scheme {scheme!r}; expected one of {', '.join(PREFIXES)}")
    spans: list[Span] = []
    faults: list[TagError] = []
    open_label, start = "", 0
    before = "O"
    for position, tag in enumerate(tags):
        prefix, label = split_tag(tag, position, scheme)
        goes_on = prefix in "IE" and label == open_label
        if not goes_on:
            if open_label:
                spans.append(Span(open_label, start, position))
            fault = _fault(prefix, label, open_label, before, scheme)
            if fault:
                faults.append(TagError(position, f"{tag} {fault}"))
            open_label, start = label, position
        if scheme == "bioes" and prefix in "ES":
            spans.append(Span(label, start, position + 1))
            open_label = ""
        before = tag
    if open_label:
        spans.append(Span(open_label, start, len(tags)))
        if scheme == "bioes":
            faults.append(
                TagError(
                    len(tags) - 1,
                    f"{before} at the end of the sentence leaves an entity open; "
                    f"expected E-{open_label} or S-{open_label}",
                )
            )
    return spans, faults


def _fault(prefix: str, label: str, open_label: str, before: str, scheme: str) -> str:
    """What is wrong with a tag that does not continue the entity before it, or nothing."""
    if scheme == "bioes" and open_label:
        return f"after {before} leaves an entity open; expected I-{open_label} or E-{open_label}"
    if prefix in "IE" and scheme != "iob1":
        return f"after {before} continues no entity; expected B-{label}" + (
            f" or S-{label}" if scheme == "bioes" else ""
        )
    if prefix == "B" and scheme == "iob1" and open_label != label:
        return f"after {before} begins an entity that I-{label} begins in iob1"
    return ""
