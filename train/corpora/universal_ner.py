"""Universal NER corpora: downloaded once, their entities reduced to common types, with trees if wanted."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from train.corpora.conll import read_conll
from train.corpora.sentence import CorpusError, CorpusWarning
from train.corpora.text import read_lines, write_lines
from train.offline import UnavailableError, download

HOME = "https://raw.githubusercontent.com"
TYPES = ("LOC", "ORG", "PER")
"""The types that every Universal NER corpus has."""


def fetch(name: str, folder: Path, entities: Mapping[str, str], trees: str | None = None) -> None:
    """The splits of a corpus as files in a folder, downloaded where they are not there yet.

    Args:
        entities: repository and commit that has the entities, by split.
        trees: repository and commit of the treebank that was annotated. With it a split is a CoNLL-U file
            with the entities in MISC, without it an `.iob2` file.

    Raises CorpusError: no network, which says which files to put where; or a file is no such table.
    """
    suffix = "conllu" if trees else "iob2"
    instead = f"in this folder train.{suffix}, dev.{suffix} and test.{suffix}: the "
    source = entities["train"].split("/")[1]
    if trees:
        instead += f"trees of {trees.split('/')[1]} with the entities of {source} as NER= in MISC"
    else:
        instead += f"files of {source}"
    folder.mkdir(parents=True, exist_ok=True)
    for split, home in entities.items():
        target = folder / f"{split}.{suffix}"
        if target.is_file():
            continue
        published = folder / f"{name}-ud-{split}.iob2"
        _download(f"{HOME}/{home}/{published.name}", published, instead)
        if trees is None:
            write_core_entities(published, target)
        else:
            core, treebank = folder / f"{split}.iob2", folder / f"{name}-ud-{split}.conllu"
            write_core_entities(published, core)
            _download(f"{HOME}/{trees}/{treebank.name}", treebank, instead)
            write_merged(treebank, core, target)
            core.unlink()
            treebank.unlink()
        published.unlink()


def _download(url: str, target: Path, instead: str) -> None:
    try:
        download(url, target, instead)
    except UnavailableError as error:
        raise CorpusError(target.parent, None, str(error)) from error


def write_core_entities(published: Path, target: Path) -> None:
    """Id, word and tag of a Universal NER file, and its comments.

    Tags of other types than PER, LOC and ORG are O, as in the published task; so is the `_` of some versions.
    """
    lines: list[str] = []
    for number, line in enumerate(read_lines(published), start=1):
        cells = line.split("\t")
        if len(cells) == 1 and (not line.strip() or line.startswith("#")):
            lines.append(line)
        elif len(cells) < 3:
            raise CorpusError(published, number, f"{len(cells)} columns; expected id, word and tag, by tabs")
        else:
            lines.append("\t".join((*cells[:2], cells[2] if cells[2][2:] in TYPES else "O")))
    write_lines(target, lines)


def write_merged(trees: Path, entities: Path, target: Path) -> None:
    """The CoNLL-U lines of the trees with the entities of the same sentences as `NER=` (BIOES) in MISC.

    Sentences are paired by `sent_id`. One whose words differ is left out and counted in a `CorpusWarning`;
    more than one in a hundred is a `CorpusError`.
    """
    read = read_conll(entities, id_column=0, word_column=1, column=2, scheme="iob2", repair=True)
    blocks = [b for b in _paragraphs(read_lines(entities)) if not all(line[0] == "#" for _, line in b)]
    annotated = dict(zip((_sent_id(entities, block) for block in blocks), read, strict=True))
    lines: list[str] = []
    differing = total = 0
    for block in _paragraphs(read_lines(trees)):
        total += 1
        sentence = annotated.get(_sent_id(trees, block))
        rows = [line.split("\t") for _, line in block]
        words = [row for row in rows if row[0].isdigit()]
        if sentence is None or sentence.words != tuple(row[1] for row in words):
            differing += 1
            continue
        for row, tag in zip(words, sentence.tags or (), strict=True):
            row[-1] = "|".join([f"NER={tag}", *([] if row[-1] == "_" else [row[-1]])])
        lines += [*("\t".join(row) for row in rows), ""]
    if differing * 100 > total:
        message = f"{differing} of {total} sentences have other words than {trees.name}; expected the same"
        raise CorpusError(entities, None, message)
    if differing:
        message = f"{differing} of {total} sentences were left out: other words in trees and entities"
        warnings.warn(f"{target}: {message}", CorpusWarning, stacklevel=2)
    write_lines(target, lines)


def _paragraphs(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of each run of lines that are not blank."""
    for blank, block in itertools.groupby(enumerate(lines, start=1), key=lambda row: not row[1].strip()):
        if not blank:
            yield list(block)


def _sent_id(path: Path, block: Sequence[tuple[int, str]]) -> str:
    for _, line in block:
        if line.startswith("# sent_id = "):
            return line.removeprefix("# sent_id = ")
    raise CorpusError(path, block[0][0], "a sentence without a comment sent_id; expected # sent_id = ...")
