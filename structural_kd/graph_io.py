"""What each graph of a bundle reads and answers, as `export` writes it and the code here relies on."""

from typing import NamedTuple

from structural_kd.session import Array, Signature, Value
from structural_kd.words import FloatArray, IntArray


class GraphInputs(NamedTuple):
    """A batch of sentences, as a graph reads it.

    rows: [W, G] float32, one for each distinct word.
    words: [B, n] int64, places in ``rows``; beyond a sentence's end anything valid.
    lengths: [B] int64.
    encoded: [B, n, E] float32, an encoder's features, where the model has one.
    """

    rows: FloatArray
    words: IntArray
    lengths: IntArray
    encoded: FloatArray | None = None

    def feeds(self) -> dict[str, Array]:
        """The graph's inputs by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


FLOATS, NUMBERS = "tensor(float)", "tensor(int64)"

_WORDS = {
    "rows": Value(FLOATS, 2),
    "words": Value(NUMBERS, 2),
    "lengths": Value(NUMBERS, 1),
    "encoded": Value(FLOATS, 3),
}
_OPTIONAL = frozenset({"encoded"})

_TAGGER = Signature(
    _WORDS,
    {
        "labels": Value(NUMBERS, 2),
        "token_log_probs": Value(FLOATS, 2),
        "pair_log_probs": Value(FLOATS, 2),
    },
    _OPTIONAL,
)
_TREES = {
    "heads": Value(NUMBERS, 2),
    "relations": Value(NUMBERS, 2),
    "log_probs": Value(FLOATS, 2),
}

MODELS: dict[str, Signature] = {
    "crf": _TAGGER,
    "softmax": _TAGGER,
    "biaffine": Signature(
        _WORDS,
        _TREES
        | {
            "arc_log_probs": Value(FLOATS, 3),
            "dependents": Value(FLOATS, 2),
            "governors": Value(FLOATS, 2),
        },
        _OPTIONAL,
    ),
    "labeller": Signature(_WORDS, _TREES | {"label_log_probs": Value(FLOATS, 2)}, _OPTIONAL),
}
"""``model.onnx`` of each kind."""

RELATIONS = Signature(
    {"dependents": Value(FLOATS, 2), "governors": Value(FLOATS, 2)},
    {"relations": Value(NUMBERS, 1), "relation_log_probs": Value(FLOATS, 1)},
)
ENCODER = Signature(
    {"ids": Value(NUMBERS, 2), "mask": Value(NUMBERS, 2)},
    {"hidden": Value(FLOATS, 3)},
)
