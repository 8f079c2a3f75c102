"""Divergences between a teacher and a student, each exact.

Cross-entropy and KL need only the teacher's marginals of the student's parts, so they are exact for every
pair that ``train.distill.projection`` knows. The others also need the teacher's scores of the student's
parts: they are exact where teacher and student share their parts, and refused elsewhere.

With A = log Z and μ = ∇A of either side (the distributions are exponential families with a common base):

    cross-entropy  A_s − ⟨μ_t, θ_s⟩
    KL(t ‖ s)      A_s − ⟨μ_t, θ_s⟩ − H_t
    KL(s ‖ t)      A_t − A_s + ⟨μ_s, θ_s − θ_t⟩
    Jeffreys       KL(t ‖ s) + KL(s ‖ t) = ⟨μ_t − μ_s, θ_t − θ_s⟩
    Rényi-α        (A(αθ_t + (1−α)θ_s) − αA_t − (1−α)A_s) / (α − 1)

All are [B] in nats, times T² where a temperature is given, which keeps the gradient's size comparable between
temperatures (Hinton et al. 2015).
"""

from typing import Any

import torch
from torch import Tensor

from train.structs import FORBIDDEN, StructuredDistribution


def cross_entropy(student: StructuredDistribution, marginals: Any, temperature: float = 1.0) -> Tensor:
    """T² · (A(θ_s / T) − ⟨μ_t, θ_s / T⟩), the exact structural distillation loss (paper Eq. 3): [B], in nats.

    Args:
        student: the student's distribution, not tempered.
        marginals: the tempered teacher's marginals (or sufficient statistics) of the student's parts.
        temperature: T.

    Equals T² · H(teacher) where the student is the teacher, and its gradient is zero there.
    """
    student = student.tempered(temperature) if temperature != 1 else student
    return temperature**2 * (student.log_partition() - student.expected_score(marginals))


def kl(student: StructuredDistribution, marginals: Any, entropy: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(teacher ‖ student): the cross-entropy less the tempered teacher's entropy [B].

    Its gradient is the cross-entropy's; its value is zero where the student is the teacher.
    """
    return cross_entropy(student, marginals, temperature) - temperature**2 * entropy


def reverse_kl(
    student: StructuredDistribution, teacher: StructuredDistribution, temperature: float = 1.0
) -> Tensor:
    """T² · KL(student ‖ teacher): [B], in nats. Both are passed untempered and share their parts."""
    student, teacher = _over_the_same_parts(student, teacher, temperature)
    mu = student.marginals()
    gap = student.expected_score(mu) - teacher.expected_score(mu)  # ⟨μ_s, θ_s − θ_t⟩ [B]
    return temperature**2 * (teacher.log_partition() - student.log_partition() + gap)


def jeffreys(
    student: StructuredDistribution, teacher: StructuredDistribution, temperature: float = 1.0
) -> Tensor:
    """T² · (KL(teacher ‖ student) + KL(student ‖ teacher)): [B], in nats."""
    student, teacher = _over_the_same_parts(student, teacher, temperature)
    mine, theirs = student.marginals(), teacher.marginals()
    gap = teacher.expected_score(theirs) - student.expected_score(theirs)
    return temperature**2 * (gap - teacher.expected_score(mine) + student.expected_score(mine))


def renyi(
    student: StructuredDistribution,
    teacher: StructuredDistribution,
    alpha: float,
    temperature: float = 1.0,
) -> Tensor:
    """T² · Rényi divergence of order α of the teacher from the student: [B], in nats.

    Tends to KL(teacher ‖ student) as α → 1; at α = ½ it is symmetric.

    Raises:
        ValueError: α is not positive, or is 1, where the divergence is ``kl``.
    """
    if not alpha > 0 or alpha == 1:
        raise ValueError(f"Rényi's order must be positive and not 1 (there it is kl), got {alpha}")
    student, teacher = _over_the_same_parts(student, teacher, temperature)
    between = student.with_potentials(
        [_between(t, s, alpha) for t, s in zip(teacher.potentials, student.potentials, strict=True)]
    )
    mixed = alpha * teacher.log_partition() + (1 - alpha) * student.log_partition()
    return temperature**2 * (between.log_partition() - mixed) / (alpha - 1)


def _between(teacher: Tensor, student: Tensor, alpha: float) -> Tensor:
    """αθ_t + (1−α)θ_s; what both forbid stays forbidden."""
    forbidden = (teacher <= FORBIDDEN / 2) & (student <= FORBIDDEN / 2)
    return torch.where(forbidden, FORBIDDEN, alpha * teacher + (1 - alpha) * student)


def _over_the_same_parts(
    student: StructuredDistribution, teacher: StructuredDistribution, temperature: float
) -> tuple[StructuredDistribution, StructuredDistribution]:
    shapes = [[tuple(theta.shape) for theta in side.potentials] for side in (teacher, student)]
    if type(teacher) is not type(student) or shapes[0] != shapes[1]:
        raise ValueError(
            "this divergence is exact only where teacher and student share their parts; the teacher is a "
            f"{type(teacher).__name__} over {shapes[0]}, the student a {type(student).__name__} over "
            f"{shapes[1]}. Use cross_entropy or kl, which need only the teacher's marginals"
        )
    if temperature == 1:
        return student, teacher
    return student.tempered(temperature), teacher.tempered(temperature)
