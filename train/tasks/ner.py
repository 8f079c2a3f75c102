"""Entities: BIOES tags."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from structural_kd.labels import bioes_labels, spans_from_bioes
from train.corpora import Sentence
from train.distill.objectives import BestTargets, TeacherTargets
from train.distill.projection import project, shared_parts
from train.distill.target_store import Target, TargetHeader
from train.distill.tempering import entropy_column, tempered_marginals
from train.metrics import entity_counts, entity_scores_of
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


class EntityTask:
    """Tagging over a closed set of BIOES labels."""

    name = "ner"
    metric = "f1"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._id = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> Self:
        """The task over every entity type of the labelled sentences."""
        types = {
            span.label for sentence in sentences if sentence.tags for span in spans_from_bioes(sentence.tags)
        }
        return cls(bioes_labels(types))

    def has_gold(self, sentence: Sentence) -> bool:
        return sentence.tags is not None

    def gold(self, sentences: list[Sentence]) -> Tensor:
        """Label ids [B, n]; an unlabelled sentence's are 0."""
        return pad_rows(
            [torch.tensor([self._id[tag] for tag in s.tags or ["O"] * len(s.words)]) for s in sentences]
        )

    def annotated(self, sentence: Sentence, prediction: list[str]) -> Sentence:
        """The sentence with a prediction in place of gold."""
        return Sentence(sentence.words, tags=tuple(prediction))

    def targets(
        self,
        teacher: StructuredDistribution,
        onto: type[StructuredDistribution],
        header: TargetHeader,
        *,
        allow_inconsistent: bool = False,
    ) -> list[Target]:
        """One row of the target store a sentence, of the content that the header names."""
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
            columns = {
                **_statistics(marginals),
                "best": valid.argmax(),
                **entropy_column(teacher, marginals, header),
            }
            if lost is not None and onto is LinearChain:
                columns["lost"] = lost[:, None]
        else:
            assert header.k is not None
            columns = self._of_the_best(valid, onto, header.k, weighted=header.content == "topwk")
        return _rows(columns, teacher.lengths.tolist())

    def _valid(self, teacher: StructuredDistribution) -> tuple[StructuredDistribution, Tensor | None]:
        """The teacher given that its labels are valid BIOES, and the mass that leaves out [B].

        A softmax teacher gives mass to invalid sequences, which a CRF student forbids: no student could match
        it there. Other teachers have no such mass: then None.
        """
        if isinstance(teacher, TokenSoftmax):
            chain = constrained(teacher, self.labels)
            return chain, -torch.expm1(chain.log_partition())
        if isinstance(teacher, Mixture):
            parts = [self._valid(component) for component in teacher.components]
            lost = [torch.zeros(len(teacher.lengths)) if left is None else left.cpu() for _, left in parts]
            valid = Mixture([part for part, _ in parts], teacher.weights)
            if all(left is None for _, left in parts):
                return valid, None
            return valid, (torch.stack(lost, -1) * teacher.weights.cpu()).sum(-1)  # [B, K] -> [B]
        return teacher, None

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

    def teacher_targets(
        self, rows: Mapping[str, list[Target]], model: nn.Module, temperature: float
    ) -> TeacherTargets:
        """Rows of the target store, by content, as one batch."""
        said = rows["marginals"]
        return TeacherTargets(
            marginals=_collated(said),
            best=pad_rows(_column(said, "best")),  # [B, n]
            temperature=temperature,
            entropy=torch.cat(_column(said, "entropy")) if "entropy" in said[0] else None,  # [B]
            topk=BestTargets(_collated(rows["topk"])) if "topk" in rows else None,
            topwk=BestTargets(_collated(rows["topwk"])) if "topwk" in rows else None,
            potentials=_collated_potentials(rows["potentials"]) if "potentials" in rows else None,
        )

    def lost_mass(self, rows: list[Target], model: nn.Module) -> float | None:
        """The teacher's mean mass on invalid label sequences, which a CRF student can not express."""
        if "lost" not in rows[0]:
            return None
        return sum(lost.item() for lost in _column(rows, "lost")) / len(rows)

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[list[str]]:
        if isinstance(distribution, Mixture):
            tokens: Tensor = project(distribution, onto=TokenSoftmax)  # [B, n, L]
            scores = tokens.clamp_min(torch.finfo(tokens.dtype).tiny).log()
            best = constrained(TokenSoftmax(scores, distribution.lengths), self.labels).argmax()
        else:
            best = model.decode(distribution)
        return [
            [self.labels[label] for label in row[:length]]
            for row, length in zip(best.tolist(), distribution.lengths.tolist(), strict=True)
        ]

    def counts(self, sentences: list[Sentence], predictions: list[list[str]]) -> np.ndarray:
        return entity_counts(sentences, predictions)

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        return entity_scores_of(counts)


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


_WHOLE = {"transitions", "tables", "entropy", "lost"}
"""Columns that belong to a sentence, not to its tokens."""


def _rows(columns: Mapping[str, Tensor], lengths: list[int]) -> list[Target]:
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    return [
        {
            name: column[i] if name in _WHOLE and column.ndim < 4 else column[i, : _tokens(name, length)]
            for name, column in arrays.items()
        }
        for i, length in enumerate(lengths)
    ]


def _tokens(name: str, length: int) -> int:
    return length - 1 if name == "tables" else length


def _column(rows: list[Target], name: str) -> list[Tensor]:
    return [torch.from_numpy(row[name].copy()) for row in rows]


def _collated(rows: list[Target]) -> Tensor | ChainStatistics:
    tokens = pad_rows(_column(rows, "tokens"))  # [B, n, L]
    if "transitions" not in rows[0]:
        return tokens
    return ChainStatistics(tokens, torch.stack(_column(rows, "transitions")))  # [B, L, L]


def _collated_potentials(rows: list[Target]) -> tuple[Tensor, ...]:
    """Scores in the shapes of the student's potentials: unary [B, n, L], pairs [B, n−1, L, L]."""
    unary = pad_rows(_column(rows, "unary"))
    if "tables" not in rows[0]:
        return (unary,)
    tables = _column(rows, "tables")
    if tables[0].dim() == 3:
        return unary, pad_rows(tables)
    shared = torch.stack(tables)[:, None]  # [B, 1, L, L]
    return unary, shared.expand(-1, unary.shape[1] - 1, -1, -1)
