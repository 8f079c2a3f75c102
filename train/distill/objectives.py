"""What a student learns from: the registry of objectives.

Each gives the loss against the teacher for every sentence of a batch; the target loss against gold labels is
the same for all. ``none`` is the student alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from train.distill.divergence import cross_entropy
from train.structs import HeadSelection, StructuredDistribution


@dataclass(frozen=True)
class TeacherTargets:
    """What the teacher said about a batch."""

    marginals: Any  # of the student's parts, at the store's temperature
    best: Any  # the teacher's most probable structures
    temperature: float
    tokens: Tensor | None = None  # [B, n] where the student can say anything of what the teacher says


TeacherLoss = Callable[[StructuredDistribution, TeacherTargets], Tensor]


def _top1(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Negative log-likelihood of the teacher's best structure: [B]."""
    student = _heard(student, targets)
    return -student.log_prob(targets.best)


def _structural(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Exact cross-entropy with the teacher's whole distribution: [B]."""
    student = _heard(student, targets)
    return cross_entropy(student, targets.marginals, targets.temperature)


def _heard(student: StructuredDistribution, targets: TeacherTargets) -> StructuredDistribution:
    """Tokens whose whole teacher mass lies outside a closed label set say nothing: they are left out."""
    if targets.tokens is None:
        return student
    assert isinstance(student, HeadSelection)
    return student.only(targets.tokens)


OBJECTIVES: dict[str, TeacherLoss | None] = {"none": None, "top1": _top1, "structural": _structural}
"""Objective by name; None where no teacher takes part."""
