"""Dependency trees: heads and relations."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from structural_kd.decoding import complete_trees
from train.corpora import Sentence
from train.distill.objectives import BestTargets, TeacherTargets
from train.distill.projection import project, shared_parts
from train.distill.target_store import Target, TargetHeader
from train.distill.tempering import entropy_column, tempered_marginals
from train.metrics import attachment_counts, attachment_scores_of
from train.models.batch import pad_rows
from train.models.parsers import SequenceLabellingParser
from train.structs import (
    FORBIDDEN,
    ArcStatistics,
    HeadSelection,
    LabelledHeads,
    Mixture,
    StructuredDistribution,
)

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

    def annotated(self, sentence: Sentence, prediction: Tree) -> Sentence:
        """The sentence with a prediction in place of gold."""
        heads, relations = prediction
        return Sentence(sentence.words, heads=tuple(heads), deprels=tuple(relations))

    def targets(
        self,
        teacher: StructuredDistribution,
        onto: type[StructuredDistribution],
        header: TargetHeader,
        *,
        allow_inconsistent: bool = False,
    ) -> list[Target]:
        """One row of the target store a sentence, of the content that the header names."""
        lengths = teacher.lengths.tolist()
        if header.content == "potentials":
            (scores,) = shared_parts(teacher, onto).potentials  # [B, n, n+1, R]
            table = scores.cpu().numpy()
            return [
                {"scores": table[i, :n, : n + 1].reshape(-1), "length": np.array([n], np.int32)}
                for i, n in enumerate(lengths)
            ]
        if header.content == "marginals":
            marginals: Tensor = tempered_marginals(
                teacher, onto, temperature=header.temperature, temper=header.temper
            )  # [B, n, n+1, R]
            if torch.isnan(marginals).any():
                raise ValueError(
                    "the teacher's marginals are not numbers; it was trained with too high a rate"
                )
            entropy = entropy_column(teacher, marginals, header)
            best = teacher.argmax()
            table, heads, relations = (t.cpu().numpy() for t in (marginals, best.heads, best.relations))
            rows: list[Target] = [
                _arc_row(table[i, :n, : n + 1])
                | {"heads": heads[i, :n].astype(np.int32), "relations": relations[i, :n].astype(np.int32)}
                for i, n in enumerate(lengths)
            ]
            if entropy:
                column = entropy["entropy"].cpu().numpy()  # [B, 1]
                rows = [{**row, "entropy": column[i]} for i, row in enumerate(rows)]
            return rows
        assert header.k is not None
        table = self._of_the_best(teacher, header.k, weighted=header.content == "topwk").numpy()
        return [_arc_row(table[i, :n, : n + 1]) for i, n in enumerate(lengths)]

    def _of_the_best(self, teacher: StructuredDistribution, k: int, *, weighted: bool) -> Tensor:
        """Arc frequencies in the k best structures under their weights: [B, n, n+1, R]."""
        best = teacher.topk(k)
        weights = best.weights(by_probability=weighted)  # [B, k]
        batch, tokens = best.structures[0].heads.shape
        table = torch.zeros(batch, tokens, (tokens + 1) * len(self.labels))
        for structure, weight in zip(best.structures, weights.float().cpu().unbind(1), strict=True):
            part = (structure.heads * len(self.labels) + structure.relations).cpu()  # [B, n]
            table.scatter_add_(2, part[..., None], weight[:, None, None].expand(-1, tokens, 1))
        return table.view(batch, tokens, tokens + 1, -1)

    def teacher_targets(
        self, rows: Mapping[str, list[Target]], model: nn.Module, temperature: float
    ) -> TeacherTargets:
        """Rows of the target store, by content, as one batch."""
        said = rows["marginals"]
        closed = model if isinstance(model, SequenceLabellingParser) else None
        marginals, tokens = self._collated(said, closed)
        heads = pad_rows([torch.from_numpy(row["heads"].astype(np.int64)) for row in said])  # [B, n]
        relations = pad_rows([torch.from_numpy(row["relations"].astype(np.int64)) for row in said])
        best = LabelledHeads(heads, relations)
        if closed is not None:
            best = self._expressible(best, marginals, closed)
        entropy = None
        if "entropy" in said[0]:
            entropy = torch.cat([torch.from_numpy(row["entropy"].copy()) for row in said])  # [B]
            if closed is not None:  # what is taught is the renormalised rest, token by token
                entropy = torch.zeros(len(said), dtype=marginals.probability.dtype).index_add(
                    0, marginals.sentence, torch.special.entr(marginals.probability)
                )
        return TeacherTargets(
            marginals=marginals,
            best=best,
            temperature=temperature,
            tokens=tokens,
            entropy=entropy,
            topk=BestTargets(*self._collated(rows["topk"], closed)) if "topk" in rows else None,
            topwk=BestTargets(*self._collated(rows["topwk"], closed)) if "topwk" in rows else None,
            potentials=self._collated_scores(rows["potentials"], closed) if "potentials" in rows else None,
        )

    def _collated(
        self, rows: list[Target], closed: SequenceLabellingParser | None
    ) -> tuple[ArcStatistics, Tensor | None]:
        """Arcs of a batch; for a closed label set those it has, renormalised, and the tokens left [B, n]."""
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
        if closed is not None:
            known = _known(tuple(closed.labels), self.labels)
            keep = known[_offset(dependent, head, known.shape[0]), relation]  # [m]
            sentence, dependent, head, relation, probability = (
                array[keep] for array in (sentence, dependent, head, relation, probability)
            )
            width = int(lengths.max())
            mass = np.bincount(sentence * width + dependent, probability, minlength=len(rows) * width)
            probability = (probability / mass[sentence * width + dependent]).astype(np.float32)
            tokens = torch.from_numpy(mass.reshape(len(rows), width) > 0)
        parts = (sentence, dependent, head, relation, probability)
        return ArcStatistics(*(torch.from_numpy(part) for part in parts)), tokens

    def _expressible(
        self, best: LabelledHeads, marginals: ArcStatistics, closed: SequenceLabellingParser
    ) -> LabelledHeads:
        """The teacher's best structure; where a closed label set lacks its arc, the best arc it has."""
        heads, relations = best.heads.numpy(), best.relations.numpy()
        known = _known(tuple(closed.labels), self.labels)
        dependent = np.broadcast_to(np.arange(heads.shape[1]), heads.shape)
        keep = torch.from_numpy(known[_offset(dependent, heads, known.shape[0]), relations])  # [B, n]
        sentence, token, head, relation, probability = (part.numpy() for part in marginals)
        other = _best(sentence, token, head, relation, probability, *heads.shape)
        return LabelledHeads(
            torch.where(keep, best.heads, other.heads), torch.where(keep, best.relations, other.relations)
        )

    def _collated_scores(
        self, rows: list[Target], closed: SequenceLabellingParser | None
    ) -> tuple[Tensor, ...]:
        """The teacher's scores in the shape of the student's: [B, n, n+1, R]."""
        if closed is not None:
            raise ValueError(
                "a labeller's closed label set lacks parts of its teacher, so that reverse_kl, jeffreys and "
                "renyi are not exact between them; use divergence: cross_entropy or kl"
            )
        tokens = max(int(row["length"][0]) for row in rows)
        scores = torch.full((len(rows), tokens, tokens + 1, len(self.labels)), FORBIDDEN)
        for i, row in enumerate(rows):
            n = int(row["length"][0])
            scores[i, :n, : n + 1] = torch.from_numpy(row["scores"].copy()).view(n, n + 1, -1)
        return (scores,)

    def lost_mass(self, rows: list[Target], model: nn.Module) -> float | None:
        """The teacher's mass a token that a closed label set can not express; None where there is none."""
        if not isinstance(model, SequenceLabellingParser):
            return None
        known = _known(tuple(model.labels), self.labels)
        lost, tokens = 0.0, 0
        for row in rows:
            length = int(row["length"][0])
            arc, relation = np.divmod(row["arc"].astype(np.int64), len(self.labels))
            dependent, head = np.divmod(arc, length + 1)
            outside = ~known[_offset(dependent, head, known.shape[0]), relation]
            lost += float(row["probability"][outside].sum())
            tokens += length
        return lost / tokens

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[Tree]:
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

    def counts(self, sentences: list[Sentence], predictions: list[Tree]) -> np.ndarray:
        return attachment_counts(sentences, predictions)

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        return attachment_scores_of(counts)


def _arc_row(table: np.ndarray) -> dict[str, np.ndarray]:
    """The arcs of a sentence that matter, of its marginals [n, n+1, R]."""
    length = len(table)
    arcs = table.reshape(length, -1)  # [n, (n+1) R]
    token, part = np.nonzero(arcs > LOST_MASS / arcs.shape[1])
    probability = arcs[token, part]  # [m]
    kept = np.bincount(token, probability, minlength=length)  # [n]
    return {
        "arc": (token * arcs.shape[1] + part).astype(np.int32),  # [m] into [n, n+1, R]
        "probability": (probability / kept[token]).astype(np.float32),  # [m]
        "length": np.array([length], np.int32),
    }


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
