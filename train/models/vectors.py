"""fastText vectors: trained on the corpus at hand, or read from a .bin or .vec file."""

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fasttext_pybind  # type: ignore[import-not-found]
import numpy as np
from fasttext import FastText
from numpy.typing import NDArray

from structural_kd.words import SubwordVectors

LINE_END = "</s>"
SPACES = " \n\r\t\v\f\0"
NO_BREAK_SPACE = "\u00a0"

LEARNING_RATE, SUBSAMPLING = 0.1, 1e-3
"""The rate, and the share of the text beyond which occurrences of a word are thinned out.

Twice and ten times fastText's defaults, with which a corpus of a few hundred thousand words leaves all
vectors nearly parallel.
"""


def train_vectors(
    sentences: Iterable[Sequence[str]],
    *,
    dim: int = 100,
    epochs: int = 10,
    buckets: int = 100_000,
    min_n: int = 3,
    max_n: int = 6,
    seed: int = 0,
) -> SubwordVectors:
    """Trains skip-gram vectors with subwords (Bojanowski et al. 2017) on tokenised sentences.

    The same sentences and seed give the same vectors: it trains with one thread. With one, fastText gives
    random initial values to the first tenth of its rows only (the words come first, the buckets after them)
    and zeros to the rest: a bucket that training never met stays exactly zero, and fewer than about 1,000
    rows in all leave too few directions to tell words apart.
    A word with a space inside is trained as one word. A word that fastText itself reserves (`</s>`, or
    one that begins with `__label__`) is left to its subwords.

    >>> train_vectors([["a", "small", "corpus"]] * 9, dim=4, epochs=1, buckets=50).vectors.shape
    (3, 4)
    """
    joined = str.maketrans(dict.fromkeys(SPACES, NO_BREAK_SPACE))
    written: dict[str, str] = {}  # word -> the token that stands for it in the file
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt", newline="\n") as file:
        for sentence in sentences:
            tokens = [word.translate(joined) for word in sentence]
            written.update(zip(sentence, tokens, strict=True))
            file.write(" ".join(tokens) + "\n")
        file.flush()
        if not written:
            raise ValueError("no words to train vectors on")
        model = _train(
            input=file.name,
            model="skipgram",
            dim=dim,
            epoch=epochs,
            bucket=buckets,
            minn=min_n,
            maxn=max_n,
            minCount=1,
            lr=LEARNING_RATE,
            t=SUBSAMPLING,
            seed=seed,
            thread=1,
            verbose=0,
        )
    return _subword_vectors(model, written)


def _train(**arguments: Any) -> Any:
    # fasttext.train_unsupervised knows no seed, though the library below it does.
    settings = {**FastText.unsupervised_default, **arguments}
    built = FastText._build_args(settings, list(arguments))
    model = FastText._FastText(args=built)
    fasttext_pybind.train(model.f, built)
    model.set_args(model.f.getArgs())
    return model


def load_vectors(path: Path, words: Collection[str] | None, *, most: int | None = None) -> SubwordVectors:
    """Reads the vectors of `words` (None: all) from a fastText .bin or a text file .vec.

    A .bin also brings its subword table whole (1.2 GB for 2,000,000 buckets of 150 values), a .vec none:
    its unknown words have the vector of their lower-cased form, or zeros. A .vec may lack the header line,
    as GloVe's files do.

    most: the first so many words of a .vec, which are the most frequent ones, in place of `words`, so that a
    model also knows words that its own text does not have.

    Raises ValueError, with file and line, for a malformed line or a file shorter than its header says.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of word vectors")
    if path.suffix == ".bin":
        if most is not None:
            raise ValueError(f"{path}: a .bin composes words from subwords; leave out most")
        model = FastText.load_model(str(path))
        if model.is_quantized():
            raise ValueError(
                f"{path}: quantised fastText models have no exact subword rows; use the full .bin"
            )
        wanted = model.get_words() if words is None else words
        return _subword_vectors(model, {word: word for word in wanted})
    if most is not None or words is None:
        return _read_text_vectors(path, None, most)
    return _read_text_vectors(path, {form for word in words for form in (word, word.lower())}, None)


def _subword_vectors(model: Any, written: Mapping[str, str]) -> SubwordVectors:
    known = set(model.get_words())
    vocabulary = [word for word, token in written.items() if token in known and token != LINE_END]
    vectors = np.zeros((len(vocabulary), model.get_dimension()), np.float32)  # [V, d]
    for row, word in enumerate(vocabulary):
        vectors[row] = model.get_word_vector(written[word])
    arguments = model.f.getArgs()
    inputs = np.asarray(model.f.getInputMatrix())  # [known + buckets, d]
    composed = arguments.maxn > 0 and len(inputs) > len(known)
    subwords = inputs[len(known) :].astype(np.float32) if composed else None
    return SubwordVectors(vocabulary, vectors, subwords, arguments.minn, arguments.maxn)


def _read_text_vectors(path: Path, words: set[str] | None, most: int | None) -> SubwordVectors:
    vectors: dict[str, NDArray[np.float32]] = {}
    size = announced = None
    rows = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8").rstrip(" \r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
            if number == 1 and text.count(" ") == 1 and all(part.isdigit() for part in text.split(" ")):
                announced, size = (int(part) for part in text.split(" "))
                continue
            size = text.count(" ") if size is None else size
            if size == 0 or text.count(" ") != size:
                raise ValueError(
                    f"{path}:{number}: expected a word and {size or 'some'} values, "
                    f"found {text.count(' ')} values"
                )
            rows += 1
            word, values = text.split(" ", 1)
            if (words is not None and word not in words) or word in vectors or len(vectors) == most:
                continue
            try:
                vectors[word] = np.array(values.split(" "), np.float32)
            except ValueError:
                raise ValueError(f"{path}:{number}: a value is not a number") from None
    if size is None or (announced is not None and announced != rows):
        raise ValueError(
            f"{path}: the header says {announced or 'nothing'}, the file holds {rows} vectors; "
            "it may be truncated"
        )
    matrix = np.stack(list(vectors.values())) if vectors else np.zeros((0, size), np.float32)
    return SubwordVectors(list(vectors), matrix, None, 0, 0)
