"""Entities: BIOES tags."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bundle.labels import bioes_labels, spans_from_bioes
from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.distill.targets import Target
from train.metrics import entity_scores
from train.models.batch import pad_rows
from train.models.taggers import CRFTagger, SoftmaxTagger
from train.project import project
from train.structs import ChainMarginals, ChainStatistics, LinearChain, TokenSoftmax


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

    def targets(self, teacher: LinearChain | TokenSoftmax, onto: type) -> list[Target]:
        marginals = project(teacher, onto=onto)
        best, entropy = teacher.argmax(), teacher.entropy()
        tokens = marginals.tokens if isinstance(marginals, ChainMarginals) else marginals  # [B, n, L]
        rows: list[dict[str, torch.Tensor]] = []
        for i, length in enumerate(teacher.lengths.tolist()):
            rows.append(
                {
                    "tokens": tokens[i, :length],  # [n, L]
                    "best": best[i, :length],  # [n]
                    "entropy": entropy[i : i + 1],  # [1]
                }
            )
        if isinstance(marginals, ChainMarginals):
            for row, transitions in zip(rows, marginals.statistics().transitions, strict=True):
                row["transitions"] = transitions  # [L, L]
        return [{name: tensor.cpu().numpy() for name, tensor in row.items()} for row in rows]

    def teacher_targets(self, rows: list[Target], model: nn.Module, temperature: float) -> TeacherTargets:
        tokens = pad_rows([torch.from_numpy(row["tokens"].copy()) for row in rows])  # [B, n, L]
        best = pad_rows([torch.from_numpy(row["best"].copy()) for row in rows])  # [B, n]
        if "transitions" not in rows[0]:
            return TeacherTargets(tokens, best, temperature)
        transitions = torch.stack([torch.from_numpy(row["transitions"].copy()) for row in rows])  # [B, L, L]
        return TeacherTargets(ChainStatistics(tokens, transitions), best, temperature)

    def decode(
        self, model: CRFTagger | SoftmaxTagger, distribution: LinearChain | TokenSoftmax
    ) -> list[list[str]]:
        labels = model.decode(distribution).tolist()  # type: ignore[arg-type]
        return [
            [self.labels[label] for label in row[:length]]
            for row, length in zip(labels, distribution.lengths.tolist(), strict=True)
        ]

    def score(self, sentences: list[Sentence], predictions: list[list[str]]) -> dict[str, float]:
        return entity_scores(sentences, predictions)
