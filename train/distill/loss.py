"""The loss of a batch: of a teacher, which learns from gold, and of a student."""

import torch
from torch import Tensor

from train.batching import TrainingBatch
from train.distill.objectives import LossSettings
from train.structs import StructuredDistribution


def gold_loss(teacher: StructuredDistribution, batch: TrainingBatch, progress: float) -> Tensor:
    """The negative log-likelihood of gold structures, in nats a token."""
    return -teacher.log_prob(batch.gold).sum() / teacher.lengths.sum()


def distillation_loss(
    student: StructuredDistribution, batch: TrainingBatch, progress: float, *, settings: LossSettings
) -> Tensor:
    """λ·KD + (1−λ)·NLL of a sentence with gold, u·KD of one without: their sum, in nats a token.

    KD is ``A(θ_s) − ⟨μ_t, θ_s⟩`` (Wang et al. 2021, Eq. 3) or what the objective has in its place, NLL
    ``−log p_s(gold)``. With pseudo gold (``X+top1``) a sentence without gold costs
    u·(λ·KD + (1−λ)·NLL of the teacher's best structure).

    Args:
        student: the student's distribution over the batch's B sentences.
        batch: their gold and the teacher's targets; ``none`` needs no targets.
        progress: share of the training that is done, 0 to 1, by which λ falls.
    """
    student = student.kept()  # one log-partition for all terms
    weight = settings.teacher_weight(progress)  # λ
    kd = torch.zeros_like(student.log_partition())  # [B]
    nll = -student.log_prob(batch.gold)  # [B]
    if settings.teacher_loss:
        kd = settings.teacher_loss(student, batch.targets)
    with_gold = weight * kd + (1 - weight) * nll  # [B]
    without = kd  # [B]
    if settings.pseudo_gold_loss:
        without = weight * kd + (1 - weight) * settings.pseudo_gold_loss(student, batch.targets)
    loss = torch.where(batch.has_gold, with_gold, settings.unlabelled_weight * without)  # [B]
    return loss.sum() / student.lengths.sum()
