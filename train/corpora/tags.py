"""The entity tags of a file: which scheme it uses, and its tags in BIOES."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from structural_kd.labels import PREFIXES, TagError, repair_to_bioes
from train.corpora.sentence import CorpusError, warn


class TagRow(NamedTuple):
    """One sentence's tags as the file has them, and the line of each."""

    tags: Sequence[str]
    lines: Sequence[int]


def convert_tags(
    path: Path | str, rows: Sequence[TagRow], *, scheme: str = "auto", repair: bool = False
) -> list[tuple[str, ...]]:
    """The tags of a whole file in BIOES.

    A tag that the scheme does not allow where it stands is a `CorpusError`; with `repair` it is read
    leniently (`structural_kd.labels.repair_to_bioes`), counted and reported as a `CorpusWarning`. Unknown
    tags are errors in either case.
    """
    if scheme not in ("auto", *PREFIXES):
        raise ValueError(f"unknown tag scheme {scheme!r}; expected one of auto, {', '.join(PREFIXES)}")
    if scheme == "auto":
        scheme = detect_scheme(path, rows, repair=repair)
    result = []
    repaired: list[int] = []
    for row in rows:
        try:
            tags, faults = repair_to_bioes(row.tags, scheme)
            if faults and not repair:
                raise faults[0]
        except TagError as error:
            raise CorpusError(path, row.lines[error.position], error.reason) from error
        repaired += [row.lines[fault.position] for fault in faults]
        result.append(tuple(tags))
    if repaired:
        warn(path, repaired, f"misplaced entity tags were repaired as {scheme}")
    return result


def detect_scheme(path: Path | str, rows: Sequence[TagRow], *, repair: bool = False) -> str:
    """The scheme of a file: `bioes` if it has an `E-` or `S-` tag; otherwise by how entities begin.

    An `I-` that continues no entity of its type is right in `iob1` only, a `B-` that does not follow an
    entity of its type in `iob2` only. A file with neither is `iob2`; one with both is a `CorpusError` that
    names the first line of each (with `repair` it is `iob2`).
    """
    first_iob1: int | None = None
    first_iob2: int | None = None
    for row in rows:
        before = "O"
        for tag, line in zip(row.tags, row.lines, strict=True):
            if tag[:2] in ("E-", "S-"):
                return "bioes"
            follows_its_like = before != "O" and before[2:] == tag[2:]
            if tag.startswith("I-") and not follows_its_like:
                first_iob1 = first_iob1 or line
            if tag.startswith("B-") and not follows_its_like:
                first_iob2 = first_iob2 or line
            before = tag
    if first_iob1 and first_iob2 and not repair:
        raise CorpusError(
            path,
            first_iob1,
            f"I- begins an entity here (iob1), but B- begins one at line {first_iob2} (iob2); "
            "expected one scheme: correct the tags or name the scheme",
        )
    return "iob1" if first_iob1 and not first_iob2 else "iob2"
