"""Divergences between a teacher and a student."""

from typing import Any

from torch import Tensor

from train.structs import StructuredDistribution


def cross_entropy(student: StructuredDistribution, marginals: Any, temperature: float = 1.0) -> Tensor:
    """T² · (A(θ_s / T) − ⟨μ_t, θ_s / T⟩), the exact structural distillation loss (paper Eq. 3): [B], in nats.

    Args:
        student: the student's distribution, not tempered.
        marginals: the tempered teacher's marginals (or sufficient statistics) of the student's parts.
        temperature: T; the factor T² keeps the gradient's size comparable between temperatures
            (Hinton et al. 2015).

    Equals T² · H(teacher) where the student is the teacher, and its gradient is zero there.
    """
    student = student.tempered(temperature) if temperature != 1 else student
    return temperature**2 * (student.log_partition() - student.expected_score(marginals))
