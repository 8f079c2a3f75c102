"""Entities: BIOES tags."""

from collections.abc import Sequence, Set
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from structural_kd.labels import bioes_labels, spans_from_bioes
from train.corpora import Sentence
from train.distill.projection import project
from train.metrics import entity_counts, entity_scores_of
from train.model_kinds import TaskName
from train.models.batch import pad_rows
from train.models.taggers import constrained
from train.structs import Mixture, StructuredDistribution, TokenSoftmax
from train.tasks.ner_targets import EntityTargets


class EntityTask:
    """Tagging over a closed set of BIOES labels."""

    name: TaskName = "ner"
    metric = "f1"  # the score that chooses checkpoints

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.targets = EntityTargets(self.labels)
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

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[list[str]]:
        """Predictions for a batch; a mixture of teachers is decoded without its models."""
        if isinstance(distribution, Mixture):
            tokens: Tensor = project(distribution, onto=TokenSoftmax)  # [B, n, L]
            scores = tokens.clamp_min(torch.finfo(tokens.dtype).tiny).log()
            best = constrained(TokenSoftmax(scores, distribution.lengths), self.labels).argmax()  # [B, n]
        else:
            best = model.decode(distribution)  # [B, n]
        return [
            [self.labels[label] for label in row[:length]]
            for row, length in zip(best.tolist(), distribution.lengths.tolist(), strict=True)
        ]

    def counts(
        self, sentences: list[Sentence], predictions: list[list[str]], *, known: Set[str] = frozenset()
    ) -> np.ndarray:
        """What is right in each sentence, and of how much: [n, 3]; entities of ``known`` words left out."""
        return entity_counts(sentences, predictions, known=known)

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """The scores, in percent, of the sentences of these counts together."""
        return entity_scores_of(counts)
