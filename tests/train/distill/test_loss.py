"""The loss of a batch against its formula, sentence by sentence."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from train.batching import TrainingBatch
from train.distill.divergence import cross_entropy
from train.distill.loss import distillation_loss, gold_loss
from train.distill.objectives import LossSettings, TeacherTargets, loss_settings
from train.models.batch import Batch
from train.structs import TokenSoftmax

LENGTHS = torch.tensor([3, 1, 2])
HAS_GOLD = torch.tensor([True, False, True])
TOKENS = 6
PROGRESS, WEIGHT = 0.25, 0.75  # λ where the teacher's weight falls from 1 to 0


def tokens(seed: int) -> TokenSoftmax:
    scores = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TokenSoftmax(scores, LENGTHS)


@pytest.fixture
def batch() -> TrainingBatch:
    teacher = tokens(1)
    targets = TeacherTargets(teacher.marginals(), teacher.argmax(), temperature=1.0)
    inputs = Batch(torch.zeros(3, 3, dtype=torch.int64), LENGTHS, (("a",) * 3, ("a",), ("a",) * 2))
    gold = torch.tensor([[1, 0, 2], [0, 0, 0], [3, 3, 0]])
    return TrainingBatch([0, 1, 2], inputs, gold, HAS_GOLD, targets)


def kd(batch: TrainingBatch) -> Tensor:
    return cross_entropy(tokens(2), batch.targets.marginals)


def nll(structure: Tensor) -> Tensor:
    return -tokens(2).log_prob(structure)


Expected = Callable[[TrainingBatch], tuple[Tensor, Tensor]]
CASES: dict[str, Expected] = {
    "structural": lambda b: (WEIGHT * kd(b) + (1 - WEIGHT) * nll(b.gold), kd(b)),
    "structural+top1": lambda b: (
        WEIGHT * kd(b) + (1 - WEIGHT) * nll(b.gold),
        WEIGHT * kd(b) + (1 - WEIGHT) * nll(b.targets.best),
    ),
    "none+top1": lambda b: (nll(b.gold), nll(b.targets.best)),
    "top1": lambda b: (WEIGHT * nll(b.targets.best) + (1 - WEIGHT) * nll(b.gold), nll(b.targets.best)),
}
"""The loss [B] of sentences with gold and of those without, for each objective."""


@pytest.mark.parametrize("objective", CASES)
def test_labelled_sentences_mix_teacher_and_gold_and_others_learn_from_the_teacher(
    batch: TrainingBatch, objective: str
) -> None:
    settings = loss_settings(objective, anneal=1.0, unlabelled_weight=0.5)
    with_gold, without = CASES[objective](batch)
    expected = torch.where(HAS_GOLD, with_gold, 0.5 * without).sum() / TOKENS
    torch.testing.assert_close(distillation_loss(tokens(2), batch, PROGRESS, settings=settings), expected)


def test_a_student_alone_has_the_loss_of_a_teacher(batch: TrainingBatch) -> None:
    labelled = batch._replace(has_gold=torch.ones(3, dtype=torch.bool), targets=None)
    alone: LossSettings = loss_settings("none")
    found = distillation_loss(tokens(2), labelled, PROGRESS, settings=alone)
    torch.testing.assert_close(found, gold_loss(tokens(2), labelled, PROGRESS))
    torch.testing.assert_close(found, nll(batch.gold).sum() / TOKENS)
