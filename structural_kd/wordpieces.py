"""Words to an encoder's pieces and back, the same in training and in serving.

Each word is tokenised by itself, after a space, so that its pieces do not depend on its neighbours and
words and pieces always agree. Nothing is lost in silence: a sentence that is longer than the encoder's
positions becomes several windows, cut between words.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structural_kd.extras import extra

with extra("encoder", "a model with an encoder"):
    from tokenizers import Tokenizer

IntArray = NDArray[np.int64]

UNKNOWN_PIECES = ("[UNK]", "<unk>", "<|unk|>")
PADDING_PIECES = ("[PAD]", "<pad>", "<|pad|>")


class LongWordWarning(UserWarning):
    """Some words have more pieces than a window holds; their last pieces were not encoded."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Encoder input for a batch of sentences.

    ids, mask: [W, p], one row a window; a sentence has at least one window if it has a word.
    window, first, end: [T], for each word of the batch in order its window and its pieces first..end-1.
    lengths: [B], words of each sentence (T in all).
    """

    ids: IntArray
    mask: IntArray
    window: IntArray
    first: IntArray
    end: IntArray
    lengths: tuple[int, ...]

    @property
    def counts(self) -> IntArray:
        """Pieces of each word [T], at least 1."""
        return self.end - self.first

    @property
    def positions(self) -> IntArray:
        """Where the words' pieces lie, word by word, in ids.reshape(-1); [sum of counts]."""
        counts = self.counts
        before = np.cumsum(counts) - counts
        start = self.window * self.ids.shape[1] + self.first
        return np.repeat(start - before, counts) + np.arange(counts.sum())


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.json and makes it ready for `words_to_pieces` (see `prepare_tokenizer`)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a Hugging Face tokenizer.json is needed")
    return prepare_tokenizer(Tokenizer.from_file(str(path)))


def prepare_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Turns off truncation and padding, and reads a special piece in a text, `[SEP]` say, as characters.

    A Unigram model that has `</s>` among its own pieces still finds it; the windows stay right.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def count_pieces(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[int]:
    """Pieces of each sentence, without those that begin and end a window."""
    pieces = _pieces_of(tokenizer, sentences)
    return [sum(len(pieces[word]) for word in words) for words in sentences]


def words_to_pieces(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_pieces: int) -> Pieces:
    """Cuts words into pieces and packs them into windows of at most `max_pieces`, special ones included.

    A word without pieces (a control character, say) gets the unknown piece. A word that does not fit
    into a window of its own keeps its first pieces, with a warning.
    """
    before, after = _special_pieces(tokenizer)
    room = max_pieces - len(before) - len(after)
    if room < 1:
        raise ValueError(f"max_pieces is {max_pieces}, too few for a word between special pieces")
    pieces = _pieces_of(tokenizer, sentences)
    windows: list[list[int]] = []
    places: list[tuple[int, int, int]] = []
    shortened = 0
    for words in sentences:
        window: list[int] | None = None
        for word in words:
            found = pieces[word]
            if len(found) > room:
                shortened += 1
                found = found[:room]
            if window is None or len(window) + len(found) > len(before) + room:
                window = before.copy()
                windows.append(window)
            places.append((len(windows) - 1, len(window), len(window) + len(found)))
            window += found
    if shortened:
        warnings.warn(
            f"{shortened} word(s) with more than {room} pieces: only the first {room} are encoded",
            LongWordWarning,
            stacklevel=2,
        )
    longest = max(map(len, windows), default=0) + len(after)
    ids = np.full((len(windows), longest), _piece(tokenizer, PADDING_PIECES, 0), np.int64)  # [W, p]
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        length = len(window) + len(after)
        ids[row, :length] = window + after
        mask[row, :length] = 1
    places_array = np.array(places, np.int64).reshape(-1, 3)  # [T, 3]
    return Pieces(
        ids=ids,
        mask=mask,
        window=places_array[:, 0],
        first=places_array[:, 1],
        end=places_array[:, 2],
        lengths=tuple(map(len, sentences)),
    )


def pool(hidden: NDArray[np.floating[Any]], pieces: Pieces) -> list[NDArray[np.float32]]:
    """Word vectors, for each sentence [n, D]: the mean over a word's pieces of hidden states [W, p, D]."""
    counts = pieces.counts  # [T]
    size = hidden.shape[-1]
    if not len(counts):
        return [np.zeros((0, size), np.float32) for _ in pieces.lengths]
    flat = hidden.reshape(-1, size)[pieces.positions].astype(np.float32, copy=False)  # [P, D]
    sums = np.add.reduceat(flat, np.cumsum(counts) - counts, axis=0)  # [T, D]
    means = sums / counts[:, None].astype(np.float32)  # [T, D]
    return np.split(means, np.cumsum(pieces.lengths)[:-1])


def _pieces_of(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    distinct = list(dict.fromkeys(word for words in sentences for word in words))
    # A lone surrogate, which JSON can carry, has no UTF-8; the tokenizer would refuse the whole batch.
    texts = [" " + word.encode("utf-8", "replace").decode("utf-8") for word in distinct]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    found = {word: encoding.ids for word, encoding in zip(distinct, encodings, strict=True)}
    empty = [word for word, ids in found.items() if not ids]
    if empty:
        unknown = _piece(tokenizer, UNKNOWN_PIECES, None)
        found.update((word, [unknown]) for word in empty)
    return found


def _special_pieces(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    encoding = tokenizer.encode("a")
    ordinary = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    if not ordinary:
        raise ValueError("the tokenizer finds no piece in the letter a")
    return encoding.ids[: ordinary[0]], encoding.ids[ordinary[-1] + 1 :]


def _piece(tokenizer: Tokenizer, names: Sequence[str], default: int | None) -> int:
    for name in names:
        number: int | None = tokenizer.token_to_id(name)
        if number is not None:
            return number
    if default is None:
        raise ValueError(f"a word has no pieces and the tokenizer none of {', '.join(names)}")
    return default
