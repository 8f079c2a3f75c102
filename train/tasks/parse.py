"""Dependency trees: heads and relations."""

from collections.abc import Sequence, Set
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from structural_kd.decoding import complete_trees
from train.corpora import Sentence
from train.distill.projection import project
from train.metrics import attachment_counts, attachment_scores_of
from train.model_kinds import TaskName
from train.models.batch import pad_rows
from train.structs import HeadSelection, LabelledHeads, Mixture, StructuredDistribution
from train.tasks.parse_targets import TreeTargets

Tree = tuple[list[int], list[str]]


class TreeTask:
    """Parsing over a closed set of relations."""

    name: TaskName = "parse"
    metric = "las"  # the score that chooses checkpoints

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.targets = TreeTargets(self.labels)
        self._id = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> Self:
        """The task over every relation of the labelled sentences."""
        return cls(sorted({relation for sentence in sentences for relation in sentence.deprels or ()}))

    def has_gold(self, sentence: Sentence) -> bool:
        return sentence.heads is not None and sentence.deprels is not None

    def gold(self, sentences: list[Sentence]) -> LabelledHeads:
        """Heads and relation ids, each [B, n]; an unlabelled sentence's are 0."""
        heads = [torch.tensor(s.heads or [0] * len(s.words)) for s in sentences]
        relations = [
            torch.tensor([self._id[r] for r in s.deprels] if s.deprels else [0] * len(s.words))
            for s in sentences
        ]
        return LabelledHeads(pad_rows(heads), pad_rows(relations))

    def annotated(self, sentence: Sentence, prediction: Tree) -> Sentence:
        """The sentence with a prediction in place of gold."""
        heads, relations = prediction
        return Sentence(sentence.words, heads=tuple(heads), deprels=tuple(relations))

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[Tree]:
        """Predictions for a batch; a mixture of teachers is decoded without its models."""
        if isinstance(distribution, Mixture):
            marginals: Tensor = project(distribution, onto=HeadSelection)  # [B, n, n+1, R]
            scores = (
                marginals.sum(-1).clamp_min(torch.finfo(marginals.dtype).tiny).log(),
                marginals.argmax(-1),
            )
        else:
            scores = model.decode(distribution)
        arcs, relations = (tensor.float().cpu().numpy() for tensor in scores)
        lengths = distribution.lengths.cpu().numpy()
        heads, _ = complete_trees(arcs.argmax(-1), lengths, lambda rows: arcs[rows])  # [B, n]
        trees = []
        for i, length in enumerate(lengths.tolist()):
            chosen = heads[i, :length]
            kinds = relations[i, np.arange(length), chosen].astype(int)
            trees.append((chosen.tolist(), [self.labels[kind] for kind in kinds]))
        return trees

    def counts(
        self, sentences: list[Sentence], predictions: list[Tree], *, known: Set[str] = frozenset()
    ) -> np.ndarray:
        """What is right in each sentence, and of how much: [n, 3]; ``known`` words left out."""
        return attachment_counts(sentences, predictions, known=known)

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """The scores, in percent, of the sentences of these counts together."""
        return attachment_scores_of(counts)
