"""Teacher targets of taggers as rows of the target store, for chain and token students.

A row holds, of a sentence of n tokens with L labels:

    marginals   tokens [n, L]; for a chain student transitions [L, L] (expected counts) and lost [1] (mass on
                invalid sequences); best [n]; entropy [1] where it is tractable
    topk(wk)    tokens [n, L]; for a chain student transitions [L, L]
    potentials  unary [n, L]; of a chain tables [L, L], or [n−1, L, L] where they differ between positions
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from structural_kd.trees import RelativeLabel
from train.distill.objectives import BestTargets, TeacherTargets
from train.distill.projection import shared_parts
from train.distill.target_store import Content, TargetHeader, TargetRow
from train.distill.tempering import entropy_column, tempered_marginals
from train.models.batch import pad_rows
from train.models.taggers import constrained
from train.structs import (
    ChainMarginals,
    ChainStatistics,
    LinearChain,
    Mixture,
    StructuredDistribution,
    TokenSoftmax,
)


class EntityTargets:
    """Targets over a closed set of BIOES labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def to_rows(
        self,
        teacher: StructuredDistribution,
        onto: type[StructuredDistribution],
        header: TargetHeader,
        *,
        allow_inconsistent: bool = False,
    ) -> list[TargetRow]:
        """Rows of a batch, of the content that the header names, for students of the family ``onto``."""
        valid, lost = self._valid(teacher)
        if onto is LinearChain:
            teacher = valid
        if header.content == "potentials":
            columns = _potentials(shared_parts(teacher, onto))
        elif header.content == "marginals":
            marginals = tempered_marginals(
                teacher,
                onto,
                temperature=header.temperature,
                temper=header.temper,
                allow_inconsistent=allow_inconsistent,
            )
            columns = _statistics(marginals) | entropy_column(teacher, marginals, header)
            columns["best"] = valid.argmax()
            if lost is not None and onto is LinearChain:
                columns["lost"] = lost[:, None]
        else:
            assert header.k is not None
            columns = self._of_the_best(valid, onto, header.k, weighted=header.content == "topwk")
        return _split(columns, teacher.lengths.tolist())

    def to_batch(
        self,
        rows: Mapping[Content, list[TargetRow]],
        temperature: float,
        closed: Sequence[RelativeLabel] = (),
    ) -> TeacherTargets:
        """Rows by content as one batch."""
        marginals = rows["marginals"]
        return TeacherTargets(
            marginals=_marginals(marginals),
            best=pad_rows(_column(marginals, "best")),  # [B, n]
            temperature=temperature,
            entropy=torch.cat(_column(marginals, "entropy")) if "entropy" in marginals[0] else None,  # [B]
            topk=BestTargets(_marginals(rows["topk"])) if "topk" in rows else None,
            topwk=BestTargets(_marginals(rows["topwk"])) if "topwk" in rows else None,
            potentials=_padded_potentials(rows["potentials"]) if "potentials" in rows else None,
        )

    def lost_mass(self, rows: list[TargetRow], closed: Sequence[RelativeLabel] = ()) -> float | None:
        """The teacher's mean mass on invalid label sequences, which a CRF student can not express."""
        if "lost" not in rows[0]:
            return None
        return sum(lost.item() for lost in _column(rows, "lost")) / len(rows)

    def _valid(self, teacher: StructuredDistribution) -> tuple[StructuredDistribution, Tensor | None]:
        """The teacher given that its labels are valid BIOES, and the mass that leaves out [B].

        A softmax teacher gives mass to invalid sequences, which a CRF student forbids: no student could match
        it there. Other teachers have no such mass: then None.
        """
        if isinstance(teacher, TokenSoftmax):
            chain = constrained(teacher, self.labels)
            return chain, -torch.expm1(chain.log_partition())
        if not isinstance(teacher, Mixture):
            return teacher, None
        parts = [self._valid(component) for component in teacher.components]
        valid = Mixture([part for part, _ in parts], teacher.weights)
        if all(lost is None for _, lost in parts):
            return valid, None
        masses = [torch.zeros(len(teacher.lengths)) if lost is None else lost.cpu() for _, lost in parts]
        return valid, (torch.stack(masses, -1) * teacher.weights.cpu()).sum(-1)  # [B, K] -> [B]

    def _of_the_best(
        self, teacher: StructuredDistribution, onto: type, k: int, *, weighted: bool
    ) -> dict[str, Tensor]:
        """Statistics of the k best structures under their weights: [B, n, L] and [B, L, L]."""
        best = teacher.topk(k)
        weights = best.weights(by_probability=weighted)  # [B, k]
        labels = len(self.labels)
        tokens = torch.zeros(*best.structures[0].shape, labels, device=weights.device)  # [B, n, L]
        pairs = torch.zeros(len(weights), labels * labels, device=weights.device)  # [B, L·L]
        inside = torch.arange(tokens.shape[1], device=weights.device) < teacher.lengths[:, None]  # [B, n]
        for structure, weight in zip(best.structures, weights.float().unbind(1), strict=True):
            share = weight[:, None] * inside  # [B, n]
            tokens += functional.one_hot(structure, labels) * share[..., None]
            pairs.scatter_add_(1, structure[:, :-1] * labels + structure[:, 1:], share[:, 1:])
        if onto is not LinearChain:
            return {"tokens": tokens}
        return {"tokens": tokens, "transitions": pairs.view(-1, labels, labels)}


def _statistics(marginals: Tensor | ChainMarginals) -> dict[str, Tensor]:
    if isinstance(marginals, ChainMarginals):
        return {"tokens": marginals.tokens, "transitions": marginals.pairs.sum(1)}
    return {"tokens": marginals}


def _potentials(teacher: StructuredDistribution) -> dict[str, Tensor]:
    if isinstance(teacher, LinearChain):
        tables = teacher.transitions  # [L, L] or [B, n-1, L, L]
        if tables.dim() == 2:
            tables = tables.expand(len(teacher.lengths), *tables.shape)  # [B, L, L]
        return {"unary": teacher.unary, "tables": tables}
    (scores,) = teacher.potentials
    return {"unary": scores}


def _split(columns: Mapping[str, Tensor], lengths: list[int]) -> list[TargetRow]:
    """Columns [B, …] as rows without padding."""
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}

    def row(i: int, n: int) -> TargetRow:
        sizes: dict[str, Any] = dict.fromkeys(("tokens", "unary", "best"), n)
        if "tables" in arrays and arrays["tables"].ndim == 4:
            sizes["tables"] = n - 1
        return {
            name: array[i, : sizes[name]] if name in sizes else array[i] for name, array in arrays.items()
        }

    return [row(i, n) for i, n in enumerate(lengths)]


def _column(rows: list[TargetRow], name: str) -> list[Tensor]:
    return [torch.from_numpy(row[name].copy()) for row in rows]


def _marginals(rows: list[TargetRow]) -> Tensor | ChainStatistics:
    tokens = pad_rows(_column(rows, "tokens"))  # [B, n, L]
    if "transitions" not in rows[0]:
        return tokens
    return ChainStatistics(tokens, torch.stack(_column(rows, "transitions")))  # [B, L, L]


def _padded_potentials(rows: list[TargetRow]) -> tuple[Tensor, ...]:
    """Scores in the shapes of the student's potentials: unary [B, n, L], pairs [B, n−1, L, L]."""
    unary = pad_rows(_column(rows, "unary"))
    if "tables" not in rows[0]:
        return (unary,)
    tables = _column(rows, "tables")
    if tables[0].dim() == 3:
        return unary, pad_rows(tables)
    shared = torch.stack(tables)[:, None]  # [B, 1, L, L]
    return unary, shared.expand(-1, unary.shape[1] - 1, -1, -1)
