"""Teacher targets of parsers as rows of the target store, for head selection students.

A row holds, of a sentence of n tokens with R relations:

    marginals   arc [m] (into [n, n+1, R]) and probability [m] of the arcs that matter; length [1]; heads [n]
                and relations [n] of the best tree; entropy [1] where it is tractable
    topk(wk)    arc [m], probability [m], length [1]
    potentials  scores [n·(n+1)·R]; length [1]
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from structural_kd.trees import RelativeLabel
from train.distill.objectives import BestTargets, TeacherTargets
from train.distill.projection import shared_parts
from train.distill.target_store import Content, TargetHeader, TargetRow
from train.distill.tempering import entropy_column, tempered_marginals
from train.models.batch import pad_rows
from train.structs import FORBIDDEN, ArcStatistics, LabelledHeads, StructuredDistribution

LOST_MASS = 1e-5
"""The most probability a token may lose because the store leaves out its least probable arcs."""


class TreeTargets:
    """Targets over a closed set of relations."""

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
        """Rows of a batch, of the content that the header names, for students of the family ``onto``.

        Raises:
            ValueError: the teacher's marginals are not numbers.
        """
        rows: list[TargetRow]
        lengths = teacher.lengths.tolist()
        if header.content == "potentials":
            (scores,) = shared_parts(teacher, onto).potentials  # [B, n, n+1, R]
            table = scores.cpu().numpy()
            return [
                {"scores": table[i, :n, : n + 1].reshape(-1), "length": np.array([n], np.int32)}
                for i, n in enumerate(lengths)
            ]
        if header.content != "marginals":
            assert header.k is not None
            table = self._of_the_best(teacher, header.k, weighted=header.content == "topwk").numpy()
            return [_arc_row(table[i, :n, : n + 1]) for i, n in enumerate(lengths)]
        marginals: Tensor = tempered_marginals(
            teacher, onto, temperature=header.temperature, temper=header.temper
        )  # [B, n, n+1, R]
        if torch.isnan(marginals).any():
            raise ValueError("the teacher's marginals are not numbers; it was trained with too high a rate")
        best = teacher.argmax()
        table, heads, relations = (t.cpu().numpy() for t in (marginals, best.heads, best.relations))
        rows = [
            _arc_row(table[i, :n, : n + 1])
            | {"heads": heads[i, :n].astype(np.int32), "relations": relations[i, :n].astype(np.int32)}
            for i, n in enumerate(lengths)
        ]
        for name, column in entropy_column(teacher, marginals, header).items():  # [B, 1]
            rows = [{**row, name: value} for row, value in zip(rows, column.cpu().numpy(), strict=True)]
        return rows

    def to_batch(
        self,
        rows: Mapping[Content, list[TargetRow]],
        temperature: float,
        closed: Sequence[RelativeLabel] = (),
    ) -> TeacherTargets:
        """Rows by content as one batch.

        Args:
            closed: the label set of a sequence labelling parser; arcs that it lacks are left out, and the
                others renormalised.
        """
        sentences = rows["marginals"]
        marginals, expressible = self._marginals(sentences, closed)
        heads, relations = (
            pad_rows([torch.from_numpy(row[name].astype(np.int64)) for row in sentences])
            for name in ("heads", "relations")
        )  # [B, n] each
        best = LabelledHeads(heads, relations)
        entropy = None
        if "entropy" in sentences[0]:
            entropy = torch.cat([torch.from_numpy(row["entropy"].copy()) for row in sentences])  # [B]
        if closed:
            best = self._best_expressible(best, marginals, closed)
            if entropy is not None:  # of the renormalised rest, token by token
                entropy = torch.zeros(len(sentences), dtype=marginals.probability.dtype).index_add(
                    0, marginals.sentence, torch.special.entr(marginals.probability)
                )
        return TeacherTargets(
            marginals=marginals,
            best=best,
            temperature=temperature,
            expressible=expressible,
            entropy=entropy,
            topk=BestTargets(*self._marginals(rows["topk"], closed)) if "topk" in rows else None,
            topwk=BestTargets(*self._marginals(rows["topwk"], closed)) if "topwk" in rows else None,
            potentials=self._potentials(rows["potentials"], closed) if "potentials" in rows else None,
        )

    def lost_mass(self, rows: list[TargetRow], closed: Sequence[RelativeLabel] = ()) -> float | None:
        """The teacher's mass a token that a closed label set can not express; None where there is none."""
        if not closed:
            return None
        lost, tokens = 0.0, 0
        for row in rows:
            arcs = self._arcs([row])
            outside = ~self._has(closed, arcs.dependent, arcs.head, arcs.relation)  # [m]
            lost += float(arcs.probability[outside].sum())
            tokens += int(row["length"][0])
        return lost / tokens

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

    def _arcs(self, rows: list[TargetRow]) -> "_Arcs":
        lengths = np.array([row["length"][0] for row in rows])
        sizes = [len(row["arc"]) for row in rows]
        flat = np.concatenate([row["arc"] for row in rows]).astype(np.int64)  # [m]
        arc, relation = np.divmod(flat, len(self.labels))
        dependent, head = np.divmod(arc, np.repeat(lengths + 1, sizes))
        sentence = np.repeat(np.arange(len(rows)), sizes)
        return _Arcs(
            sentence, dependent, head, relation, np.concatenate([row["probability"] for row in rows])
        )

    def _has(
        self, closed: Sequence[RelativeLabel], dependent: np.ndarray, head: np.ndarray, relation: np.ndarray
    ) -> np.ndarray:
        """Whether a closed label set has these arcs: in the shape of their parts."""
        known = _known_labels(tuple(closed), self.labels)  # [2·reach + 1, R]
        reach = len(known) // 2
        offset = np.where(head == 0, 0, head - dependent - 1)
        place = np.where(np.abs(offset) < reach, offset + reach, -1)  # nothing is known in the last row
        has: np.ndarray = known[place, relation]
        return has

    def _marginals(
        self, rows: list[TargetRow], closed: Sequence[RelativeLabel]
    ) -> tuple[ArcStatistics, Tensor | None]:
        """Arcs of a batch; for a closed label set those it has, renormalised, and the tokens left [B, n]."""
        arcs, expressible = self._arcs(rows), None
        if closed:
            keep = self._has(closed, arcs.dependent, arcs.head, arcs.relation)  # [m]
            arcs = _Arcs(*(part[keep] for part in arcs))
            width = max(int(row["length"][0]) for row in rows)
            token = arcs.sentence * width + arcs.dependent  # [m]
            mass = np.bincount(token, arcs.probability, minlength=len(rows) * width)  # [B·n]
            arcs = arcs._replace(probability=(arcs.probability / mass[token]).astype(np.float32))
            expressible = torch.from_numpy(mass.reshape(len(rows), width) > 0)
        return ArcStatistics(*(torch.from_numpy(part) for part in arcs)), expressible

    def _best_expressible(
        self, best: LabelledHeads, marginals: ArcStatistics, closed: Sequence[RelativeLabel]
    ) -> LabelledHeads:
        """The teacher's best structure; where a closed label set lacks its arc, the best arc it has."""
        heads, relations = best.heads.numpy(), best.relations.numpy()  # [B, n]
        keep = self._has(closed, np.arange(heads.shape[1]), heads, relations)  # [B, n]
        arcs = _Arcs(*(part.numpy() for part in marginals))
        order = np.argsort(arcs.probability, kind="stable")  # a token's best arc is written last
        other_heads, other_relations = np.zeros_like(heads), np.zeros_like(relations)
        other_heads[arcs.sentence[order], arcs.dependent[order]] = arcs.head[order]
        other_relations[arcs.sentence[order], arcs.dependent[order]] = arcs.relation[order]
        return LabelledHeads(
            torch.from_numpy(np.where(keep, heads, other_heads)),
            torch.from_numpy(np.where(keep, relations, other_relations)),
        )

    def _potentials(self, rows: list[TargetRow], closed: Sequence[RelativeLabel]) -> tuple[Tensor, ...]:
        """The teacher's scores in the shape of the student's: [B, n, n+1, R]."""
        if closed:
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


class _Arcs(NamedTuple):
    """Labelled arcs of a batch, as ArcStatistics has them, in numpy: [m] each."""

    sentence: np.ndarray
    dependent: np.ndarray
    head: np.ndarray
    relation: np.ndarray
    probability: np.ndarray


@lru_cache(maxsize=4)
def _known_labels(labels: tuple[RelativeLabel, ...], relations: tuple[str, ...]) -> np.ndarray:
    """Which (relative head, relation) a closed label set has: [2·reach + 1, R]; the root in the middle."""
    reach = max(abs(offset) for offset, _ in labels) + 1
    known = np.zeros((2 * reach + 1, len(relations)), bool)
    for offset, relation in labels:
        known[offset + reach, relations.index(relation)] = True
    return known


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
