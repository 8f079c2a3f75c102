"""What a graph reads, and where the tokens of its sentences are."""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var, argument

from export.layers import axis


@dataclass(frozen=True)
class InputVars:
    """The inputs of a graph.

    rows: [distinct, G] float32, projected words: what the context reads of a word alone.
    words: [batch, tokens] int64, places in rows; anything valid beyond a sentence's end.
    lengths: [batch] int64, at least 1.
    encoded: [batch, tokens, E] float32, of a model that reads an encoder as well.
    encoded_size: E, 0 without an encoder.
    """

    rows: Var
    words: Var
    lengths: Var
    encoded: Var | None
    encoded_size: int

    @classmethod
    def of(cls, projected_size: int, encoded_size: int) -> "InputVars":
        """New inputs, of G and E values (0 for no encoder)."""
        return cls(
            rows=argument(Tensor(np.float32, ("distinct", projected_size))),
            words=argument(Tensor(np.int64, ("batch", "tokens"))),
            lengths=argument(Tensor(np.int64, ("batch",))),
            encoded=argument(Tensor(np.float32, ("batch", "tokens", encoded_size))) if encoded_size else None,
            encoded_size=encoded_size,
        )

    def named(self) -> dict[str, Var]:
        feeds = {"rows": self.rows, "words": self.words, "lengths": self.lengths}
        return feeds if self.encoded is None else feeds | {"encoded": self.encoded}


def token_places(inside: Var) -> Var:
    """Each token's place among all tokens: [B, n] bool -> [B, n] int64; on padding anything valid."""
    flat = op.cast(op.reshape(inside, axis(-1)), to=np.int64)
    places = op.sub(op.cum_sum(flat, op.const(np.int64(0))), op.const(np.int64(1)))
    return op.reshape(places, op.shape(inside))
