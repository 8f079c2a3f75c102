"""The pretrained encoder in front of a teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.manifest import BundleError, EncoderSettings
from bundle.session import Session
from bundle.words import FloatArray

PIECES_A_RUN = 8192
"""Padded pieces of one run of an encoder: words of hundreds of pieces would take gigabytes in one run."""


class PieceEncoder:
    """The pretrained encoder in front of a teacher."""

    def __init__(self, tokenizer: Path, graph: Session, settings: EncoderSettings) -> None:
        # Students are served without the tokenizers package.
        from bundle.pieces import load_tokenizer, words_to_pieces

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
        from bundle.pieces import pool, words_to_pieces

        pieces = words_to_pieces(self._tokenizer, sentences, self._max_pieces)
        windows, longest = pieces.ids.shape
        several = max(1, PIECES_A_RUN // longest)
        hidden = [
            self._graph.run(ids=pieces.ids[i : i + several], mask=pieces.mask[i : i + several])["hidden"]
            for i in range(0, windows, several)
        ]
        return pool(np.concatenate(hidden), pieces)  # [W, p, E]
