"""Which sentences of an experiment keep their labels, are raw text, are held out."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from train.corpora import Corpus, Sentence, load_corpus
from train.corpora.named import UNKNOWN_LANGUAGE
from train.corpora.personal_data import MADE_TEXTS
from train.held_out import HeldOut
from train.progress import log
from train.raw_sentences import MANY_LANGUAGES, raw_sentences
from train.recipe import Recipe, RecipeError, TextSource

HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 1000
"""What is held out of raw text for dev and for test, where there is no corpus."""

NO_CORPUS = -1
"""The corpus of added text."""


@dataclass(frozen=True)
class Splits:
    """The sentences of an experiment, in the order in which word ids and features are kept.

    That order is each corpus's own (train, dev, test, then added text), so that features in the cache serve
    every choice of labelled sentences. Sentences not labelled in this experiment have no labels here. Each
    split is a list of places in ``sentences``.
    """

    name: str
    language: str
    digest: str
    corpora: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    corpus_of: tuple[int, ...]  # the place in ``corpora`` of each sentence's own; NO_CORPUS for added text
    labelled: list[int]  # keep their gold labels; teachers learn from them
    raw: list[int]  # all other training text of the students' language
    unlabelled: list[int]  # the part of it that students learn from
    student_train: list[int]  # what students learn from: labelled and unlabelled, or raw text alone
    teacher_dev: list[int]  # chooses teachers
    dev: list[int]  # chooses students
    test: list[int]

    def select(self, numbers: Iterable[int]) -> list[Sentence]:
        """The sentences of these numbers."""
        return [self.sentences[i] for i in numbers]

    def of_corpus(self, numbers: Iterable[int], corpus: int) -> list[int]:
        """Those of these numbers whose sentences are of one corpus."""
        return [i for i in numbers if self.corpus_of[i] == corpus]

    @cached_property
    def words_digest(self) -> str:
        return words_digest(self.sentences)

    @cached_property
    def taught_words(self) -> frozenset[str]:
        """Every word of the students' training text, labelled and raw."""
        return frozenset(word for i in self.student_train for word in self.sentences[i].words)


def words_digest(sentences: Iterable[Sentence]) -> str:
    """SHA-256 over the words of sentences, in order: whether stored targets belong to them."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update("\t".join(sentence.words).encode("utf-8") + b"\n")
    return digest.hexdigest()


def load_splits(recipe: Recipe, *, quiet: bool = False) -> Splits:
    """Read the corpora and decide which training sentences keep their labels.

    Raw text beside a corpus has none of the sentences of the corpus: those of dev and test must not be
    learnt from, those of train are there already.

    Args:
        quiet: raw text is read without a bar and a line about what was dropped.

    Raises:
        RecipeError: more sentences are asked for than there are.
        CorpusError: a corpus or raw text can not be read.
    """
    corpora = [_read_corpus(recipe, name) for name in recipe.corpus]
    made = MADE_TEXTS.get(recipe.text[0].path) if recipe.text else None
    if made is not None:
        if corpora or recipe.target or len(recipe.text or ()) > 1:
            raise RecipeError("text: text that is made stands alone; leave out corpus, target and other text")
        return _made_alone(recipe, made())
    if recipe.target is not None:
        target = _read_corpus(recipe, recipe.target)
        language = recipe.language or target.language
        text = _read_raw(recipe, language, [*corpora, target], quiet)
        return _zero_shot(recipe, language, corpora, target, text)
    if corpora:
        languages = {corpus.language for corpus in corpora}
        language = recipe.language or (languages.pop() if len(languages) == 1 else MANY_LANGUAGES)
        return _partly_labelled(recipe, language, corpora, _read_raw(recipe, language, corpora, quiet))
    assert recipe.text is not None
    return _raw_alone(recipe, recipe.text, quiet)


class _Sentences:
    """Sentences as they are put together, with the corpus of each."""

    def __init__(self) -> None:
        self.all: list[Sentence] = []
        self.corpus_of: list[int] = []

    def add(self, found: Sequence[Sentence], corpus: int) -> range:
        """Put more sentences after the others; the result is their numbers."""
        self.all += found
        self.corpus_of += [corpus] * len(found)
        return range(len(self.all) - len(found), len(self.all))


def _partly_labelled(
    recipe: Recipe, language: str, corpora: Sequence[Corpus], text: Sequence[Sentence]
) -> Splits:
    """The chosen sentences keep their labels; all other training text is raw."""
    sentences = _Sentences()
    labelled: list[int] = []
    raw: list[int] = []
    dev: list[int] = []
    test: list[int] = []
    for place, corpus in enumerate(corpora):
        chosen, others = _choose_labelled(recipe, corpus)
        keeps = set(chosen)
        train = sentences.add(
            [s if i in keeps else s.unlabelled() for i, s in enumerate(corpus.train)], place
        )
        labelled += [train[i] for i in sorted(keeps)]
        raw += [train[i] for i in others]
        dev += sentences.add(corpus.dev, place)
        test += sentences.add(corpus.test, place)
    raw += sentences.add(text, NO_CORPUS)
    unlabelled = _choose_raw(recipe, raw)
    return Splits(
        name="+".join(corpus.name for corpus in corpora),
        language=language,
        digest=_digest_of(corpora),
        corpora=tuple(corpus.name for corpus in corpora),
        sentences=tuple(sentences.all),
        corpus_of=tuple(sentences.corpus_of),
        labelled=labelled,
        raw=sorted(raw),
        unlabelled=unlabelled,
        student_train=sorted([*labelled, *unlabelled]),
        teacher_dev=dev,
        dev=dev,
        test=test,
    )


def _zero_shot(
    recipe: Recipe, language: str, sources: Sequence[Corpus], target: Corpus, text: Sequence[Sentence]
) -> Splits:
    """Teachers learn from the sources; students see the target's train and dev splits without labels."""
    sentences = _Sentences()
    labelled: list[int] = []
    teacher_dev: list[int] = []
    for place, corpus in enumerate(sources):
        chosen, _ = _choose_labelled(recipe, corpus)
        labelled += sentences.add([corpus.train[i] for i in sorted(chosen)], place)
        teacher_dev += sentences.add(corpus.dev, place)
    raw = sentences.add([*(s.unlabelled() for s in target.train), *text], len(sources))
    dev = sentences.add([s.unlabelled() for s in target.dev], len(sources))
    test = sentences.add(target.test, len(sources))
    unlabelled = _choose_raw(recipe, raw)
    return Splits(
        name="+".join(corpus.name for corpus in sources) + f"-to-{target.name}",
        language=language,
        digest=_digest_of([*sources, target]),
        corpora=(*(corpus.name for corpus in sources), target.name),
        sentences=tuple(sentences.all),
        corpus_of=tuple(sentences.corpus_of),
        labelled=labelled,
        raw=list(raw),
        unlabelled=unlabelled,
        student_train=unlabelled,
        teacher_dev=teacher_dev,
        dev=list(dev),
        test=list(test),
    )


def _raw_alone(recipe: Recipe, sources: Sequence[TextSource], quiet: bool) -> Splits:
    """Raw text and nothing else: some of it is held out, to compare the student with its teacher on."""
    language = recipe.language or UNKNOWN_LANGUAGE
    text, counts = raw_sentences(sources, language, quiet=quiet)
    order = np.random.default_rng(recipe.selection_seed).permutation(len(text)).tolist()
    held = min(HELD_OUT_MOST, int(len(text) * HELD_OUT_SHARE))
    if not held:
        paths = ", ".join(source.path for source in sources)
        beside = f" ({counts.duplicates:,} duplicates were dropped)" if counts.duplicates else ""
        raise RecipeError(f"text: {paths} has {len(text)} sentences; at least 10 are needed{beside}")
    held_out = HeldOut(text[i].words for i in order[: 2 * held])
    raw = sorted(i for i in order[2 * held :] if text[i].words not in held_out)
    dropped = len(text) - 2 * held - len(raw)
    if dropped and not quiet:
        log(f"raw text: {dropped:,} more sentences dropped that are parts of held-out ones, or contain them")
    unlabelled = _choose_raw(recipe, raw)
    name = "+".join(_stem(source.path) for source in sources)
    return Splits(
        name=name,
        language=language,
        digest=hashlib.sha256(json.dumps([s.words for s in text]).encode()).hexdigest(),
        corpora=(name,),
        sentences=tuple(text),
        corpus_of=(0,) * len(text),
        labelled=[],
        raw=raw,
        unlabelled=unlabelled,
        student_train=unlabelled,
        teacher_dev=[],
        dev=sorted(order[:held]),
        test=sorted(order[held : 2 * held]),
    )


def _made_alone(recipe: Recipe, made: Corpus) -> Splits:
    """Raw text that was made, with dev and test of its own."""
    sentences = _Sentences()
    train, dev, test = (list(sentences.add(split, 0)) for split in (made.train, made.dev, made.test))
    unlabelled = _choose_raw(recipe, train)
    return Splits(
        name=made.name,
        language=recipe.language or made.language,
        digest=made.digest,
        corpora=(made.name,),
        sentences=tuple(sentences.all),
        corpus_of=tuple(sentences.corpus_of),
        labelled=[],
        raw=train,
        unlabelled=unlabelled,
        student_train=unlabelled,
        teacher_dev=[],
        dev=dev,
        test=test,
    )


def _read_corpus(recipe: Recipe, name: str) -> Corpus:
    corpus = _load_once(name, recipe.merge_subtokens)
    if recipe.sentences is None:
        return corpus
    first = slice(recipe.sentences)
    return replace(corpus, train=corpus.train[first], dev=corpus.dev[first], test=corpus.test[first])


@lru_cache(maxsize=8)
def _load_once(name: str, merge_subtokens: bool | None) -> Corpus:
    """A corpus, read once for all the runs of a process."""
    return load_corpus(name, merge_subtokens=merge_subtokens)


def _choose_labelled(recipe: Recipe, corpus: Corpus) -> tuple[list[int], list[int]]:
    """The training sentences that keep their labels, and the others, both in the order of the draw."""
    size = len(corpus.train)
    wanted = recipe.labelled or size
    if wanted > size:
        raise RecipeError(
            f"labelled: {wanted} sentences are wanted, {corpus.name} has {size} in its training split"
        )
    order = np.random.default_rng(recipe.selection_seed).permutation(size).tolist()
    return order[:wanted], order[wanted:]


def _choose_raw(recipe: Recipe, raw: Sequence[int]) -> list[int]:
    """The raw sentences that students learn from, in the order of the corpus."""
    if recipe.unlabelled is None:
        return sorted(raw)
    if recipe.unlabelled > len(raw):
        raise RecipeError(
            f"unlabelled: {recipe.unlabelled} sentences are wanted, there are {len(raw)}; "
            "name a file of raw text under text, or ask for fewer"
        )
    order = np.random.default_rng(recipe.selection_seed).permutation(raw)
    return sorted(order[: recipe.unlabelled].tolist())


def _digest_of(corpora: Sequence[Corpus]) -> str:
    if len(corpora) == 1:
        return corpora[0].digest
    return hashlib.sha256("".join(corpus.digest for corpus in corpora).encode()).hexdigest()


def _read_raw(recipe: Recipe, language: str, corpora: Sequence[Corpus], quiet: bool) -> list[Sentence]:
    """The sentences under ``text``, none of which is in the corpora."""
    if recipe.text is None:
        return []
    held_out = [s.words for corpus in corpora for s in (*corpus.dev, *corpus.test)]
    training = [s.words for corpus in corpora for s in corpus.train]
    return raw_sentences(recipe.text, language, training=training, held_out=held_out, quiet=quiet)[0]


def _stem(path: str) -> str:
    """The name of a file without its suffixes, or of a folder; of a glob, what is no pattern."""
    return Path(path).name.partition(".")[0].replace("*", "") or Path(path).parent.name
