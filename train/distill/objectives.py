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
from typing import Any

import torch
from torch import Tensor

from train.distill.divergence import cross_entropy, jeffreys, kl, renyi, reverse_kl
from train.distill.target_store import Content
from train.structs import HeadSelection, LinearChain, StructuredDistribution, TokenSoftmax


@dataclass(frozen=True)
class BestTargets:
    """What the teacher's k best structures say about a batch."""

    marginals: Any  # of the student's parts
    tokens: Tensor | None = None  # [B, n] where the student can say anything of it


@dataclass(frozen=True)
class TeacherTargets:
    """What the teacher said about a batch."""

    marginals: Any  # of the student's parts, at the store's temperature
    best: Any  # the teacher's most probable structures
    temperature: float
    tokens: Tensor | None = None  # [B, n] where the student can say anything of what the teacher says
    entropy: Tensor | None = None  # [B] of the tempered teacher; None where it is not tractable
    topk: BestTargets | None = None  # its k best structures, each counting the same
    topwk: BestTargets | None = None  # its k best structures by their probability
    potentials: tuple[Tensor, ...] | None = None  # the teacher's scores of the student's parts, T = 1


TeacherLoss = Callable[[StructuredDistribution, TeacherTargets], Tensor]


def _top1(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    """Negative log-likelihood of the teacher's best structure: [B]."""
    return -_heard(student, targets.tokens).log_prob(targets.best)


def _topk(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    assert targets.topk is not None
    return cross_entropy(_heard(student, targets.topk.tokens), targets.topk.marginals)


def _topwk(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    assert targets.topwk is not None
    return cross_entropy(_heard(student, targets.topwk.tokens), targets.topwk.marginals)


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
    return cross_entropy(_heard(student, targets.tokens), targets.marginals, targets.temperature)


def _kl(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
    if targets.entropy is None:
        raise ValueError(
            "divergence: kl needs the teacher's entropy, which a mixture does not have in closed form; "
            "use divergence: cross_entropy, whose gradient is the same"
        )
    return kl(_heard(student, targets.tokens), targets.marginals, targets.entropy, targets.temperature)


def _against_teacher(divergence: Callable[..., Tensor]) -> TeacherLoss:
    def loss(student: StructuredDistribution, targets: TeacherTargets) -> Tensor:
        assert targets.potentials is not None
        teacher = student.with_potentials(targets.potentials)
        return divergence(student, teacher, temperature=targets.temperature)

    return loss


def _heard(student: StructuredDistribution, tokens: Tensor | None) -> StructuredDistribution:
    """Tokens whose whole teacher mass lies outside a closed label set say nothing: they are left out."""
    if tokens is None:
        return student
    assert isinstance(student, HeadSelection)
    return student.only(tokens)


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
class Lesson:
    """An objective of a recipe, ready for training.

    ``loss`` is the loss against the teacher, None for ``none`` and ``none+top1``; ``pseudo_gold`` the loss
    that stands in for the target loss where a sentence has no gold labels.
    """

    loss: TeacherLoss | None
    pseudo_gold: TeacherLoss | None
    contents: tuple[Content, ...]
    by_token_teacher: bool


def lesson(name: str, *, divergence: str = "cross_entropy", alpha: float = 0.5) -> Lesson:
    """The lesson a name stands for.

    Raises:
        ValueError: a name is unknown, or stands where it means nothing.

    >>> lesson("structural+top1").pseudo_gold is not None
    True
    """
    names = name.split("+")
    for part in names:
        if part not in OBJECTIVES:
            raise ValueError(f"unknown objective {part!r}")
    repeated = len(set(names)) < len(names)
    paired_with_top1 = len(names) == 2 and "top1" in names
    if len(names) > 1 and (repeated or ({"none", "token"} & set(names) and not paired_with_top1)):
        raise ValueError(f"{name!r} can not be combined; known: {', '.join(OBJECTIVES)}, joined by +")
    measure = DIVERGENCES[divergence]
    pseudo = len(names) > 1 and "top1" in names
    losses: list[TeacherLoss | None] = []
    contents: list[Content] = []
    for part in names:
        objective = OBJECTIVES[part]
        contents += measure.contents if part == "structural" else objective.contents
        if not (pseudo and part == "top1"):
            losses.append(measure.make(alpha) if part == "structural" else objective.loss)
    taught = [loss for loss in losses if loss is not None]
    return Lesson(
        loss=partial(_mean_of, tuple(taught)) if taught else None,
        pseudo_gold=_top1 if pseudo else None,
        contents=tuple(dict.fromkeys(contents)),
        by_token_teacher="token" in names,
    )


def is_for(name: str, family: type[StructuredDistribution]) -> bool:
    """Whether students of a family can learn by an objective."""
    wanted = {OBJECTIVES[part].family for part in name.split("+")} - {None}
    return wanted <= {family}


def _mean_of(
    losses: Sequence[TeacherLoss], student: StructuredDistribution, targets: TeacherTargets
) -> Tensor:
    return torch.stack([loss(student, targets) for loss in losses]).mean(0)  # [B]
