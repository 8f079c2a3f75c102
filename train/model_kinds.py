"""Which kinds of models there are, the structured distribution of each, and the paper's case of each pair."""

from collections.abc import Sequence
from typing import Literal

from train.structs import HeadSelection, LinearChain, StructuredDistribution, TokenSoftmax

TaskName = Literal["ner", "parse"]
StudentKind = Literal["crf", "softmax", "biaffine", "labeller"]
NetworkKind = Literal[StudentKind, "span", "second_order", "matrix_tree", "projective_tree"]
"""All that is trained here."""
TeacherKind = Literal[
    "crf",
    "softmax",
    "span",
    "transformers",
    "biaffine",
    "second_order",
    "matrix_tree",
    "projective_tree",
]

STUDENTS: dict[str, tuple[StudentKind, ...]] = {"ner": ("crf", "softmax"), "parse": ("biaffine", "labeller")}
TEACHERS: dict[str, tuple[TeacherKind, ...]] = {
    "ner": ("crf", "softmax", "span", "transformers"),
    "parse": ("biaffine", "second_order", "matrix_tree", "projective_tree"),
}
"""The kinds of a task; the first is the one a recipe gets that names none."""

FAMILY: dict[StudentKind, type[StructuredDistribution]] = {
    "crf": LinearChain,
    "softmax": TokenSoftmax,
    "biaffine": HeadSelection,
    "labeller": HeadSelection,
}

SHARED_PARTS = {
    ("crf", "crf"),
    ("transformers", "crf"),
    ("softmax", "crf"),
    ("softmax", "softmax"),
    ("biaffine", "biaffine"),
    ("second_order", "biaffine"),
}
"""Teachers and students with the same parts, as the divergences that need the teacher's scores ask."""

WITHOUT_TOPK = ("matrix_tree", "projective_tree")

_CASES = {
    ("crf", "crf"): "1a",
    ("crf", "softmax"): "2a",
    ("softmax", "crf"): "3",
    ("softmax", "softmax"): "token",
    ("span", "softmax"): "4",
    ("span", "crf"): "span-chain",
    ("transformers", "crf"): "transformers-chain",
    ("transformers", "softmax"): "transformers-token",
    ("biaffine", "labeller"): "1b",
    ("biaffine", "biaffine"): "1b-biaffine",
    ("second_order", "labeller"): "2b",
    ("second_order", "biaffine"): "2b-biaffine",
    ("matrix_tree", "labeller"): "matrix-tree-labeller",
    ("matrix_tree", "biaffine"): "matrix-tree",
    ("projective_tree", "labeller"): "projective-tree-labeller",
    ("projective_tree", "biaffine"): "projective-tree",
}


def case_of(teachers: Sequence[str], student: str) -> str:
    """The paper's case of teachers and a student, or its name beyond the paper.

    >>> case_of(["crf"], "softmax"), case_of(["crf", "span"], "crf")
    ('2a', 'mixture-chain')
    """
    if len(teachers) > 1:
        return {"crf": "mixture-chain", "softmax": "mixture-token", "biaffine": "mixture-heads"}.get(
            student, f"mixture-{student}"
        )
    return _CASES[teachers[0], student]
