"""Dependency trees: heads and relations."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from bundle.decoding import complete_trees
from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.distill.targets import Target
from train.metrics import attachment_scores
from train.models.batch import pad_rows
from train.models.parsers import BiaffineParser, SequenceLabellingParser
from train.project import project
from train.structs import ArcStatistics, HeadSelection, LabelledHeads

LOST_MASS = 1e-5
"""The most probability a token may lose because the store leaves out its least probable arcs."""

Tree = tuple[list[int], list[str]]


class TreeTask:
    """Parsing over a closed set of relations."""

    name = "parse"
    metric = "las"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
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

    def targets(self, teacher: HeadSelection, onto: type) -> list[Target]:
        marginals: Tensor = project(teacher, onto=onto)  # [B, n, n+1, R]
        if torch.isnan(marginals).any():
            raise ValueError("the teacher's marginals are not numbers; it was trained with too high a rate")
        entropy = teacher.entropy().cpu().numpy()  # [B]
        table = marginals.cpu().numpy()
        rows: list[Target] = []
        for i, length in enumerate(teacher.lengths.tolist()):
            arcs = table[i, :length, : length + 1].reshape(length, -1)  # [n, (n+1) R]
            token, part = np.nonzero(arcs > LOST_MASS / arcs.shape[1])
            probability = arcs[token, part]  # [m]
            kept = np.bincount(token, probability, minlength=length)  # [n]
            rows.append(
                {
                    "arc": (token * arcs.shape[1] + part).astype(np.int32),  # [m] into [n, n+1, R]
                    "probability": (probability / kept[token]).astype(np.float32),  # [m]
                    "entropy": entropy[i : i + 1],
                    "length": np.array([length], np.int32),
                }
            )
        return rows

    def teacher_targets(self, rows: list[Target], model: nn.Module, temperature: float) -> TeacherTargets:
        lengths = np.array([row["length"][0] for row in rows])
        sizes = [len(row["arc"]) for row in rows]
        sentence = np.repeat(np.arange(len(rows)), sizes)  # [m]
        flat = np.concatenate([row["arc"] for row in rows]).astype(np.int64)  # [m]
        probability = np.concatenate([row["probability"] for row in rows])  # [m]
        relation = flat % len(self.labels)
        arc = flat // len(self.labels)
        heads = np.repeat(lengths + 1, sizes)
        dependent, head = arc // heads, arc % heads
        tokens = None
        if isinstance(model, SequenceLabellingParser):
            known = _known(tuple(model.labels), self.labels)
            keep = known[_offset(dependent, head, known.shape[0]), relation]  # [m]
            sentence, dependent, head, relation, probability = (
                array[keep] for array in (sentence, dependent, head, relation, probability)
            )
            width = int(lengths.max())
            mass = np.bincount(sentence * width + dependent, probability, minlength=len(rows) * width)
            probability = (probability / mass[sentence * width + dependent]).astype(np.float32)
            tokens = torch.from_numpy(mass.reshape(len(rows), width) > 0)
        best = _best(sentence, dependent, head, relation, probability, len(rows), int(lengths.max()))
        parts = (sentence, dependent, head, relation, probability)
        return TeacherTargets(
            ArcStatistics(*(torch.from_numpy(part) for part in parts)), best, temperature, tokens
        )

    def lost_mass(self, rows: list[Target], model: SequenceLabellingParser) -> tuple[float, int]:
        """The teacher's mass that a closed label set can not express, summed over tokens; and the tokens."""
        known = _known(tuple(model.labels), self.labels)
        lost, tokens = 0.0, 0
        for row in rows:
            length = int(row["length"][0])
            arc, relation = np.divmod(row["arc"].astype(np.int64), len(self.labels))
            dependent, head = np.divmod(arc, length + 1)
            outside = ~known[_offset(dependent, head, known.shape[0]), relation]
            lost += float(row["probability"][outside].sum())
            tokens += length
        return lost, tokens

    def decode(
        self, model: BiaffineParser | SequenceLabellingParser, distribution: HeadSelection
    ) -> list[Tree]:
        arcs, relations = (tensor.float().cpu().numpy() for tensor in model.decode(distribution))
        lengths = distribution.lengths.cpu().numpy()
        heads, _ = complete_trees(arcs.argmax(-1), lengths, lambda rows: arcs[rows])  # [B, n]
        trees = []
        for i, length in enumerate(lengths.tolist()):
            chosen = heads[i, :length]
            kinds = relations[i, np.arange(length), chosen].astype(int)
            trees.append((chosen.tolist(), [self.labels[kind] for kind in kinds]))
        return trees

    def score(self, sentences: list[Sentence], predictions: list[Tree]) -> dict[str, float]:
        return attachment_scores(sentences, predictions)


def _offset(dependent: np.ndarray, head: np.ndarray, size: int) -> np.ndarray:
    """Rows of the table of known labels: relative heads, 0 for the root, the last row for what is too far."""
    reach = (size - 1) // 2
    offset = np.where(head == 0, 0, head - dependent - 1)
    return np.where(np.abs(offset) < reach, offset + reach, size - 1)


@lru_cache(maxsize=4)
def _known(labels: tuple[tuple[int, str], ...], relations: tuple[str, ...]) -> np.ndarray:
    """Which (relative head, relation) a closed label set has: [2·reach + 1, R]."""
    reach = max(abs(offset) for offset, _ in labels) + 1
    known = np.zeros((2 * reach + 1, len(relations)), bool)
    identity = {relation: i for i, relation in enumerate(relations)}
    for offset, relation in labels:
        known[offset + reach, identity[relation]] = True
    return known


def _best(
    sentence: np.ndarray,
    dependent: np.ndarray,
    head: np.ndarray,
    relation: np.ndarray,
    probability: np.ndarray,
    batch: int,
    width: int,
) -> LabelledHeads:
    """The most probable arc of each token, 0 where a token has none."""
    order = np.argsort(probability, kind="stable")  # a token's best arc is written last
    heads = np.zeros((batch, width), np.int64)
    relations = np.zeros((batch, width), np.int64)
    heads[sentence[order], dependent[order]] = head[order]
    relations[sentence[order], dependent[order]] = relation[order]
    return LabelledHeads(torch.from_numpy(heads), torch.from_numpy(relations))
