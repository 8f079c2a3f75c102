"""Softening a teacher by a temperature: its potentials, or its marginals.

Dividing the potentials by T and running inference again (the paper's "global" way) gives marginals that agree
with one another for every family. Raising each marginal to the power 1/T and normalising it by itself (the
paper's "local" way) is sound only where the student's parts are whole tokens: pair tables softened one by one
disagree about the token between them, no distribution has them, and the loss built from them can fall without
bound.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from train.distill.projection import project
from train.distill.target_store import TargetHeader
from train.structs import ChainMarginals, StructuredDistribution


class InconsistentTargetsError(ValueError):
    """Pair marginals were to be softened one by one."""


class InconsistentTargetsWarning(UserWarning):
    """Pair marginals are softened one by one, as asked for."""


def tempered_marginals(
    teacher: StructuredDistribution,
    onto: type[StructuredDistribution],
    *,
    temperature: float = 1.0,
    temper: str = "potentials",
    allow_inconsistent: bool = False,
) -> Any:
    """The softened teacher's marginals of the student's parts.

    Args:
        temper: ``potentials`` or ``marginals``.
        allow_inconsistent: permit ``marginals`` for a student with pair parts; warns. It is there to redo the
            paper's table 5.

    Raises:
        InconsistentTargetsError: pair marginals would be softened one by one.
    """
    if temper == "potentials":
        return project(teacher.tempered(temperature) if temperature != 1 else teacher, onto=onto)
    marginals = project(teacher, onto=onto)
    if temperature == 1:
        return marginals
    if not isinstance(marginals, ChainMarginals):
        return _soften(marginals, temperature)  # each token's table by itself
    message = (
        f"temper: marginals softens each pair table of a {onto.__name__} by itself; the tables then disagree "
        "about the tokens they share"
    )
    if not allow_inconsistent:
        raise InconsistentTargetsError(
            f"{message}. Use temper: potentials; or allow_inconsistent: true to redo the paper's table 5"
        )
    warnings.warn(message, InconsistentTargetsWarning, stacklevel=2)
    pairs = _soften(marginals.pairs, temperature)  # [B, n-1, L, L]
    start = _soften(marginals.tokens[:, :1], temperature)  # [B, 1, L]
    # The emission of a token belongs to the pair that ends in it, as in the authors' score of a pair.
    tokens = torch.cat([start, pairs.sum(2)], 1)  # [B, n, L]
    return ChainMarginals(tokens, pairs)


def entropy_column(
    teacher: StructuredDistribution, marginals: Any, header: TargetHeader
) -> dict[str, Tensor]:
    """The softened teacher's entropy as a column [B, 1] of the store; none where it is not tractable."""
    softened = header.temperature != 1
    if softened and header.temper == "marginals":
        # The targets are the product of the softened tables, where they are such a product at all.
        if isinstance(marginals, ChainMarginals):
            return {}
        return {"entropy": torch.special.entr(marginals).flatten(1).sum(1, keepdim=True)}  # [B, 1]
    try:
        return {"entropy": (teacher.tempered(header.temperature) if softened else teacher).entropy()[:, None]}
    except NotImplementedError:
        return {}


def _soften(tables: Tensor, temperature: float) -> Tensor:
    """Tables [B, n, …] of a token each, to the power 1/T and normalised; padding stays zero."""
    flat = tables.flatten(2)  # [B, n, m]
    powered = torch.where(flat > 0, flat.clamp_min(torch.finfo(flat.dtype).tiny) ** (1 / temperature), 0.0)
    total = powered.sum(-1, keepdim=True)
    return (powered / torch.where(total > 0, total, 1.0)).view_as(tables)
