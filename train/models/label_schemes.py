"""Tags of other schemes as BIOES: what the labels of a token-classification model mean."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from train.structs import FORBIDDEN

Scheme = Literal["iob1", "iob2", "bioes", "io"]

_PREFIXES: dict[Scheme, str] = {"iob1": "BI", "iob2": "BI", "bioes": "BIES"}
_SYNONYMS = {"L": "E", "U": "S", "M": "I"}
"""BILOU's last and unit, BMES's middle."""

SOURCES: dict[Scheme, dict[str, str]] = {
    "bioes": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "iob2": {"B": "B", "S": "B", "I": "I", "E": "I"},
    "iob1": dict.fromkeys("BIES", "I"),
    "io": dict.fromkeys("BIES", ""),
}
"""Which prefix of a scheme each prefix of BIOES reads; in `io` any."""


class SourceLabel(NamedTuple):
    """A label of the model: O, or a prefix (empty for a bare name) and an entity type."""

    prefix: str
    type: str | None  # None counts as O


def read_labels(
    name: str, names: Sequence[str], scheme: str, types: Mapping[str, str | None]
) -> tuple[Scheme, list[SourceLabel]]:
    """The scheme of a model's labels, and what each of them means under `types`.

    Raises ValueError: a label is none of the scheme, or no entity type is left; says which, and what to set.

    >>> read_labels("a model", ["O", "B-PERSON", "I-PERSON"], "auto", {"PERSON": "PER"})[1][1]
    SourceLabel(prefix='B', type='PER')
    """
    parts = [_split(label) for label in names]
    prefixes = {prefix for prefix, _ in parts}
    if scheme == "auto":
        scheme = "bioes" if prefixes & {"E", "S"} else "iob2" if "B" in prefixes else "io"
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme: expected auto, {', '.join(get_args(Scheme))}, found {scheme!r}")
    chosen: Scheme = scheme  # type: ignore[assignment]
    known = {label for prefix, label in parts if prefix != "O"}
    if unknown := sorted(types.keys() - known):
        raise ValueError(
            f"types: {name} has no type {', '.join(unknown)}; its types are {', '.join(sorted(known))}"
        )
    sources = []
    for label, (prefix, kind) in zip(names, parts, strict=True):
        mapped = None if prefix == "O" else types.get(kind, kind)
        if mapped is not None and chosen != "io" and prefix not in tuple(_PREFIXES[chosen]):
            expected = ", ".join(f"{letter}-TYPE" for letter in _PREFIXES[chosen])
            raise ValueError(
                f"{name} has the label {label}, which is none of the scheme {chosen} (O, {expected}); set "
                f"another scheme, or count it as O with types: {{{kind}: null}}"
            )
        sources.append(SourceLabel(prefix, mapped))
    if not any(source.type for source in sources):
        raise ValueError(f"{name} has no entity type left: its labels are {', '.join(names)}")
    return chosen, sources


def _split(label: str) -> tuple[str, str]:
    if label == "O":
        return "O", ""
    tag = re.fullmatch(r"([BIESLUM])[-_](.+)", label)
    return (_SYNONYMS.get(tag[1], tag[1]), tag[2]) if tag else ("", label)


def reads(
    parts: Sequence[tuple[str, str]], sources: Sequence[SourceLabel], prefixes: Mapping[str, str]
) -> Tensor:
    """0 where BIOES label l reads the model's label m, FORBIDDEN elsewhere: [L, M].

    Args:
        parts: prefix and type of each BIOES label.
        prefixes: which prefix of the model's scheme each prefix of BIOES reads.
    """

    def is_read(prefix: str, label: str, source: SourceLabel) -> bool:
        if prefix == "O" or source.type is None:
            return prefix == "O" and source.type is None
        return source.type == label and prefixes[prefix] in ("", source.prefix)

    read = [[is_read(prefix, label, source) for source in sources] for prefix, label in parts]
    return torch.where(torch.tensor(read), 0.0, FORBIDDEN)
