"""The pretrained encoder in front of a teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from structural_kd.batches import length_batches
from structural_kd.manifest import BundleError, EncoderFeatures
from structural_kd.session import Session
from structural_kd.words import FloatArray

PIECES_A_RUN = 1024
"""Padded pieces of one run of an encoder. It computes padding, so windows of similar length go together."""


class PieceEncoder:
    """The pretrained encoder in front of a teacher."""

    def __init__(self, tokenizer: Path, graph: Session, settings: EncoderFeatures) -> None:
        # Students are served without the tokenizers package.
        from structural_kd.wordpieces import load_tokenizer, words_to_pieces

        try:
            self._tokenizer = load_tokenizer(tokenizer)
            words_to_pieces(self._tokenizer, [["a"]], settings.max_pieces)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises plain Exception, and where it panics not even that
            raise BundleError(f"{tokenizer}: cannot be read: {error}; export the bundle again") from error
        self._graph = graph
        self._max_pieces = settings.max_pieces
        self.size = settings.size

    def features(self, sentences: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Encoder features of each sentence's words, [n, E]; there is at least one word in all."""
        from structural_kd.wordpieces import pool, words_to_pieces

        pieces = words_to_pieces(self._tokenizer, sentences, self._max_pieces)
        sizes = pieces.mask.sum(1).tolist()  # [W]
        hidden = np.zeros((*pieces.ids.shape, self.size), np.float32)  # [W, p, E]
        for windows in length_batches(sizes, PIECES_A_RUN, padded_a_token=1):
            longest = sizes[windows[-1]]
            ids, mask = pieces.ids[windows, :longest], pieces.mask[windows, :longest]
            hidden[windows, :longest] = self._graph.run(ids=ids, mask=mask)["hidden"]
        return pool(hidden, pieces)
