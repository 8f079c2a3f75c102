"""What a student learns from: the registry of objectives.

Each gives the loss against the teacher for every sentence of a batch; the target loss against gold labels is
the same for all. The names and where they come from:

    none        the student alone
    top1        the teacher's best structure as if it were gold (Kim and Rush 2016)
    topk        its k best structures, each counting the same (Wang et al. 2020a)
    topwk       its k best structures, weighted by their probability (Wang et al. 2020a)
    posterior   each token's label distribution of a CRF teacher against the CRF student's (Wang et al. 2020a)
    token       a softmax student against a softmax teacher, token by token (the paper's reference baseline)
    structural  the teacher's whole distribution, exactly (Wang et al. 2021, Eq. 3)

Top-1, Top-K and Top-WK replace the teacher by a few structures with weights. That is a distribution too, so
all of them are the structural loss with other marginals.

Names joined by + combine: ``X+top1`` lets the teacher's best structure stand in for the gold labels of
sentences without any (the paper's tables 2 and 3); any other pair is the mean of both losses. In
``token+top1`` that teacher is the softmax teacher. ``none+top1`` is the paper's Top-1 KD: gold labels where
there are any, the teacher's best structure elsewhere (its footnote 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from train.distill.divergence import cross_entropy, jeffreys, kl, renyi, reverse_kl
from train.distill.target_store import Content
from train.structs import HeadSelection, LinearChain, StructuredDistribution, TokenSoftmax


class BestTargets(NamedTuple):
    """The teacher's k best structures of a batch."""

    marginals: Any  # of the student's parts
    expressible: Tensor | None = None  # [B, n] tokens with a part that the student has; None for all


class TeacherTargets(NamedTuple):
    """What the teacher predicts of a batch."""

    marginals: Any  # of the student's parts, at the store's temperature
    best: Any  # the teacher's most probable structures
    temperature: float
    expressible: Tensor | None = None  # [B, n] tokens with a part that the student has; None for all
    entropy: Tensor | None = None  # [B] of the tempered teacher; None where it is not tractable
    topk: BestTargets | None = None  # its k best structures, each counting the same
    topwk: BestTargets | None = None  # its k best structures by their probability
    potentials: tuple[Tensor, ...] | None = None  # the teacher's scores of the student's parts, T = 1


TeacherLoss = Callable[[StructuredDistribution, TeacherTargets], Tensor]


def _top1(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Negative log-likelihood of the teacher's best structure: [B]."""
    return -_masked(student, targets.expressible).log_prob(targets.best)


def _topk(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    assert targets.topk is not None
    return cross_entropy(_masked(student, targets.topk.expressible), targets.topk.marginals)


def _topwk(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    assert targets.topwk is not None
    return cross_entropy(_masked(student, targets.topwk.expressible), targets.topwk.marginals)


def _posterior(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Token by token, the CRF teacher's label marginals against the CRF student's own: [B]."""
    assert isinstance(student, LinearChain)
    student = student.tempered(targets.temperature) if targets.temperature != 1 else student
    wanted = targets.marginals.tokens  # [B, n, L]
    found = student.marginals().tokens  # [B, n, L]
    log_found = found.clamp_min(torch.finfo(found.dtype).tiny).log()
    return -(targets.temperature**2) * (wanted * log_found).sum((1, 2))


def _cross_entropy(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Exact cross-entropy with the teacher's whole distribution: [B]."""
    return cross_entropy(_masked(student, targets.expressible), targets.marginals, targets.temperature)


def _kl(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    if targets.entropy is None:
        raise ValueError(
            "divergence: kl needs the teacher's entropy, which a mixture does not have in closed form; "
            "use divergence: cross_entropy, whose gradient is the same"
        )
    return kl(_masked(student, targets.expressible), targets.marginals, targets.entropy, targets.temperature)


def _against_teacher(divergence: Callable[..., Tensor]) -> TeacherLoss:
    def loss(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
        assert targets.potentials is not None
        teacher = student.with_potentials(targets.potentials)
        return divergence(student, teacher, temperature=targets.temperature)

    return loss


def _masked(student: StructuredDistribution, expressible: Tensor | None) -> StructuredDistribution:
    """The student without the tokens [B, n] whose whole teacher mass lies outside its closed label set."""
    if expressible is None:
        return student
    assert isinstance(student, HeadSelection)
    return student.only(expressible)


@dataclass(frozen=True)
class Divergence:
    """How the structural objective measures the distance, and what the target store must hold for it."""

    make: Callable[[float], TeacherLoss]  # of Rényi's α
    contents: tuple[Content, ...] = ("marginals",)


DIVERGENCES: dict[str, Divergence] = {
    "cross_entropy": Divergence(lambda _: _cross_entropy),
    "kl": Divergence(lambda _: _kl),
    "reverse_kl": Divergence(lambda _: _against_teacher(reverse_kl), ("marginals", "potentials")),
    "jeffreys": Divergence(lambda _: _against_teacher(jeffreys), ("marginals", "potentials")),
    "renyi": Divergence(
        lambda alpha: _against_teacher(partial(renyi, alpha=alpha)), ("marginals", "potentials")
    ),
}


@dataclass(frozen=True)
class Objective:
    """A loss against the teacher.

    Args:
        loss: None where no teacher takes part, or where the divergence decides it.
        contents: what the target store must hold for it.
        family: the only family of students it is for, where it is not for all.
    """

    loss: TeacherLoss | None
    contents: tuple[Content, ...] = ("marginals",)
    family: type[StructuredDistribution] | None = None


OBJECTIVES: dict[str, Objective] = {
    "none": Objective(None, ()),
    "top1": Objective(_top1),
    "topk": Objective(_topk, ("marginals", "topk")),
    "topwk": Objective(_topwk, ("marginals", "topwk")),
    "posterior": Objective(_posterior, family=LinearChain),
    "token": Objective(_cross_entropy, family=TokenSoftmax),
    "structural": Objective(None),
}


@dataclass(frozen=True)
class LossSettings:
    """An objective of a recipe, ready for training.

    Args:
        teacher_loss: KD, the loss against the teacher; None for ``none`` and ``none+top1``.
        pseudo_gold_loss: what stands in for the NLL where a sentence has no gold labels.
        contents: what the target store must hold.
        by_token_teacher: whether the targets are the softmax teacher's.
        anneal: fall of λ over the whole training: 0 keeps λ = 1; 1 reaches 0 at the end.
        unlabelled_weight: u, what a sentence without gold labels counts.
    """

    teacher_loss: TeacherLoss | None
    pseudo_gold_loss: TeacherLoss | None
    contents: tuple[Content, ...]
    by_token_teacher: bool
    anneal: float = 1.0
    unlabelled_weight: float = 1.0

    def teacher_weight(self, progress: float) -> float:
        """λ at a share of the training: from 1, linearly, never below 0; 0 without a teacher's loss."""
        return max(0.0, 1.0 - self.anneal * progress) if self.teacher_loss is not None else 0.0


def loss_settings(
    name: str,
    *,
    divergence: str = "cross_entropy",
    alpha: float = 0.5,
    anneal: float = 1.0,
    unlabelled_weight: float = 1.0,
) -> LossSettings:
    """The loss that an objective's name stands for.

    Raises:
        ValueError: a name is unknown, or stands where it means nothing.

    >>> loss_settings("structural", anneal=1.5).teacher_weight(0.5)
    0.25
    """
    names = name.split("+")
    for part in names:
        if part not in OBJECTIVES:
            raise ValueError(f"unknown objective {part!r}")
    repeated = len(set(names)) < len(names)
    paired_with_top1 = len(names) == 2 and "top1" in names
    if len(names) > 1 and (repeated or ({"none", "token"} & set(names) and not paired_with_top1)):
        raise ValueError(f"{name!r} can not be combined; known: {', '.join(OBJECTIVES)}, joined by +")
    pseudo_gold = len(names) > 1 and "top1" in names
    measure = DIVERGENCES[divergence]
    losses: list[TeacherLoss] = []
    contents: list[Content] = []
    for part in names:
        loss, needed = OBJECTIVES[part].loss, OBJECTIVES[part].contents
        if part == "structural":
            loss, needed = measure.make(alpha), measure.contents
        contents += needed
        if loss is not None and not (pseudo_gold and part == "top1"):
            losses.append(loss)
    return LossSettings(
        teacher_loss=partial(_mean_of, losses) if losses else None,
        pseudo_gold_loss=_top1 if pseudo_gold else None,
        contents=tuple(dict.fromkeys(contents)),
        by_token_teacher="token" in names,
        anneal=anneal,
        unlabelled_weight=unlabelled_weight,
    )


def is_for(name: str, family: type[StructuredDistribution]) -> bool:
    """Whether students of a family can learn by an objective."""
    wanted = {OBJECTIVES[part].family for part in name.split("+")} - {None}
    return wanted <= {family}


def _mean_of(
    losses: Sequence[TeacherLoss], student: StructuredDistribution, targets: TeacherTargets
) -> Tensor:
    return torch.stack([loss(student, targets) for loss in losses]).mean(0)  # [B]
