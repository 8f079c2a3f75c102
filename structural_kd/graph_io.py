"""What each graph of a bundle reads and answers, as `export` writes it and the code here relies on."""

from structural_kd.session import Signature, Value

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
