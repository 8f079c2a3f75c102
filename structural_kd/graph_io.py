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


_FLOATS = {rank: Value("tensor(float)", rank) for rank in (1, 2, 3)}
_NUMBERS = {rank: Value("tensor(int64)", rank) for rank in (1, 2)}

_WORDS = {"rows": _FLOATS[2], "words": _NUMBERS[2], "lengths": _NUMBERS[1], "encoded": _FLOATS[3]}
_TAGS = {"labels": _NUMBERS[2], "token_log_probs": _FLOATS[2], "pair_log_probs": _FLOATS[2]}
_TREES = {"heads": _NUMBERS[2], "relations": _NUMBERS[2], "log_probs": _FLOATS[2]}
_STATES = {"dependents": _FLOATS[2], "governors": _FLOATS[2]}
_OPTIONAL = frozenset({"encoded"})

MODELS: dict[str, Signature] = {
    "crf": Signature(_WORDS, _TAGS, _OPTIONAL),
    "softmax": Signature(_WORDS, _TAGS, _OPTIONAL),
    "biaffine": Signature(_WORDS, {**_TREES, "arc_log_probs": _FLOATS[3], **_STATES}, _OPTIONAL),
    "labeller": Signature(_WORDS, {**_TREES, "label_log_probs": _FLOATS[2]}, _OPTIONAL),
}
"""``model.onnx`` of each kind."""

RELATIONS = Signature(_STATES, {"relations": _NUMBERS[1], "relation_log_probs": _FLOATS[1]})
ENCODER = Signature({"ids": _NUMBERS[2], "mask": _NUMBERS[2]}, {"hidden": _FLOATS[3]})
