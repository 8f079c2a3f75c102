"""Dependency parsers: biaffine, of first and of second order, and parsing as sequence labelling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from structural_kd.trees import RelativeLabel
from train.models.batch import Batch
from train.models.layers import Perceptron
from train.models.representation import Representation
from train.structs import FORBIDDEN, HeadSelection, MatrixTree, ProjectiveTree, SecondOrderHeads


class BiaffineParser(nn.Module):
    """Deep biaffine scores of arcs and relations (Dozat and Manning 2017), under a family of structures.

    Arcs: s(i, h) = d_iᵀ U k_h + b·k_h, and where it reads distances d_i·e_δ + c_δ for the clipped distance
    δ = h − i to a head that is not the root (relative positions as in Shaw et al. 2018). Relations:
    r(i, h) = C (d'_i ∘ k'_h) + D d'_i + K k'_h + c, the biaffine form in factors of a chosen rank: one small
    product a chosen arc, where a full tensor costs one a relation.

    Args:
        arc_distance: the largest distance that arc scores tell apart, longer ones count as it; 0 for none.
        family: what normalises the scores: ``HeadSelection`` each token by itself, ``MatrixTree`` over all
            trees, ``ProjectiveTree`` over the projective ones.
    """

    def __init__(
        self,
        representation: Representation,
        relations: Sequence[str],
        *,
        arc_size: int,
        relation_size: int,
        dropout: float,
        arc_distance: int = 0,
        family: type[HeadSelection | MatrixTree | ProjectiveTree] = HeadSelection,
    ) -> None:
        super().__init__()
        self.representation = representation
        self.relations = list(relations)
        self.family = family
        context = representation.output_size
        self.root = nn.Parameter(torch.empty(context).uniform_(-0.1, 0.1))
        self.arc_dependent = Perceptron(context, arc_size, dropout)
        self.arc_head = Perceptron(context, arc_size, dropout)
        self.arc = nn.Linear(arc_size, arc_size, bias=False)
        self.arc_bias = nn.Linear(arc_size, 1, bias=False)
        self.arc_distance = arc_distance
        if arc_distance:
            self.distance = nn.Linear(arc_size, 2 * arc_distance + 1)  # of −most, …, most
        self.relation_dependent = Perceptron(context, relation_size, dropout)
        self.relation_head = Perceptron(context, relation_size, dropout)
        self.relation_product = nn.Linear(relation_size, len(self.relations))
        self.relation_of_dependent = nn.Linear(relation_size, len(self.relations), bias=False)
        self.relation_of_head = nn.Linear(relation_size, len(self.relations), bias=False)

    def forward(self, batch: Batch) -> HeadSelection | MatrixTree | ProjectiveTree:
        arcs, relations = self.scores(*self.states(batch))
        return self.family(arcs=arcs, relations=relations, lengths=batch.lengths)

    def states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the tokens as dependents [B, n, 2H], and of the root and the tokens as heads [B, n+1, 2H]."""
        states = self.representation(batch)  # [B, n, 2H]
        root = self.root.expand(states.shape[0], 1, -1)
        return states, torch.cat([root.to(states.dtype), states], 1)

    def scores(self, states: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Arc scores [B, n, n+1] and relation scores [B, n, n+1, R] of the states."""
        dependent = self.arc_dependent(states)  # [B, n, A]
        head = self.arc_head(heads)  # [B, n+1, A]
        arcs = self.arc(dependent) @ head.transpose(1, 2)  # [B, n, n+1]
        arcs = arcs + self.arc_bias(head).transpose(1, 2)  # + [B, 1, n+1]
        if self.arc_distance:
            by_distance = self.distance(dependent)  # [B, n, 2M+1]
            places = distance_places(arcs.shape[1], self.arc_distance).to(arcs.device)  # [n, n]
            of_tokens = by_distance.gather(2, places.expand(len(arcs), -1, -1))  # [B, n, n]
            arcs = arcs + functional.pad(of_tokens, (1, 0))  # the root is at no distance
        dependent = self.relation_dependent(states)  # [B, n, K]
        head = self.relation_head(heads)  # [B, n+1, K]
        relations = self.relation_product(dependent[:, :, None] * head[:, None])  # [B, n, n+1, R]
        relations = relations + self.relation_of_dependent(dependent)[:, :, None]
        relations = relations + self.relation_of_head(head)[:, None]
        return arcs, relations

    def decode(self, distribution: HeadSelection | MatrixTree | ProjectiveTree) -> tuple[Tensor, Tensor]:
        """Log-probabilities of heads [B, n, n+1], and the best relation of each arc [B, n, n+1].

        Decoding takes each token's best head if that gives a tree, and the best tree otherwise. So that
        this is the most probable structure of the family, an arc of a ``MatrixTree`` counts with its best
        relation, and the scores of a token are shifted by a term that all its heads share, which changes no
        tree's rank; arcs outside the best tree of a ``ProjectiveTree`` are put behind all of those inside.
        """
        best, relations = distribution.scores.max(-1)  # [B, n, n+1] each
        if isinstance(distribution, MatrixTree):
            return best.log_softmax(-1), relations
        if isinstance(distribution, ProjectiveTree):
            chosen = functional.one_hot(distribution.argmax().heads, best.shape[-1]).bool()  # [B, n, n+1]
            arcs = best.log_softmax(-1)
            return torch.where(chosen, arcs, arcs + FORBIDDEN), relations
        return distribution.scores.logsumexp(-1).log_softmax(-1), relations


def distance_places(tokens: int, most: int) -> Tensor:
    """Of each dependent and head the place of their clipped distance among −most, …, most: [n, n] int64."""
    position = torch.arange(tokens)
    return (position - position[:, None]).clamp(-most, most) + most


class SecondOrderParser(BiaffineParser):
    """Biaffine arcs and relations, and pairs of arcs: siblings and grandparents (Wang and Tu 2020).

    Args:
        second_order_size: units of the projections of the three tokens that a pair of arcs joins, and the
            rank of its score.
        iterations: rounds of mean-field inference.
    """

    def __init__(
        self,
        representation: Representation,
        relations: Sequence[str],
        *,
        arc_size: int,
        relation_size: int,
        second_order_size: int,
        dropout: float,
        arc_distance: int = 0,
        iterations: int = 3,
    ) -> None:
        super().__init__(
            representation,
            relations,
            arc_size=arc_size,
            relation_size=relation_size,
            dropout=dropout,
            arc_distance=arc_distance,
        )
        self.iterations = iterations
        self.siblings = Trilinear(representation.output_size, second_order_size, dropout)
        self.grandparents = Trilinear(representation.output_size, second_order_size, dropout)

    def forward(self, batch: Batch) -> SecondOrderHeads:
        states, heads = self.states(batch)
        arcs, relations = self.scores(states, heads)
        return SecondOrderHeads(
            arcs=arcs,
            relations=relations,
            siblings=self.siblings(states, states, heads),  # [B, n, n, n+1] dependent, dependent, head
            grandparents=self.grandparents(states, states, heads),  # dependent, its head, the head's head
            lengths=batch.lengths,
            iterations=self.iterations,
        )


class Trilinear(nn.Module):
    """s(x, y, z) = Σ_r w_r a_r(x) b_r(y) c_r(z), a third-order tensor in factors (Wang et al. 2019).

    The weights w start at zero, so that a second-order parser starts as the first-order one.
    """

    def __init__(self, context: int, size: int, dropout: float) -> None:
        super().__init__()
        self.first = Perceptron(context, size, dropout)
        self.second = Perceptron(context, size, dropout)
        self.third = Perceptron(context, size, dropout)
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """[B, n, H], [B, m, H] and [B, k, H] to [B, n, m, k]."""
        a, b, c = self.first(first), self.second(second), self.third(third)  # [B, n | m | k, S]
        pairs = (self.weight * a)[:, :, None] * b[:, None]  # [B, n, m, S]
        return (pairs.flatten(1, 2) @ c.transpose(1, 2)).unflatten(1, pairs.shape[1:3])


class SequenceLabellingParser(nn.Module):
    """Parsing as tagging with one label (relative head, relation) a token (Strzyz et al. 2019).

    Args:
        labels: the closed set of labels seen in training, offset 0 for the root.
    """

    def __init__(
        self, representation: Representation, relations: Sequence[str], labels: Sequence[RelativeLabel]
    ) -> None:
        super().__init__()
        self.representation = representation
        self.relations = list(relations)
        self.labels = list(labels)
        identity = {relation: i for i, relation in enumerate(self.relations)}
        offsets = torch.tensor([offset for offset, _ in self.labels])  # [K] head − dependent, 0 for the root
        kinds = torch.tensor([identity[relation] for _, relation in self.labels])  # [K] relation ids
        self.offsets = nn.Buffer(offsets, persistent=False)
        self.kinds = nn.Buffer(kinds, persistent=False)
        self.label_scores = nn.Linear(representation.output_size, len(self.labels))

    def forward(self, batch: Batch) -> HeadSelection:
        scores = self.label_scores(self.representation(batch))  # [B, n, K]
        tokens = scores.shape[1]
        arcs = arcs_of_labels(self.offsets, tokens)  # [n, K]
        inside = (arcs >= 0) & (arcs <= tokens)
        flat = arcs.clamp(0, tokens) * len(self.relations) + self.kinds  # [n, K]
        # Labels that point outside the batch's width land on a column of their own, which is cut off.
        width = (tokens + 1) * len(self.relations)
        flat = torch.where(inside, flat, width).expand(scores.shape[0], -1, -1)
        spread = scores.new_full((*scores.shape[:2], width + 1), FORBIDDEN)
        spread = spread.scatter(2, flat, scores)[..., :width]  # [B, n, (n+1) R]
        return HeadSelection(spread.unflatten(2, (tokens + 1, len(self.relations))), batch.lengths)

    def decode(self, distribution: HeadSelection) -> tuple[Tensor, Tensor]:
        """Log-probabilities of each arc's best label [B, n, n+1], and that label's relation [B, n, n+1]."""
        best, relations = distribution.scores.max(-1)
        return best - distribution.scores.flatten(2).logsumexp(-1, keepdim=True), relations


def arcs_of_labels(offsets: Tensor, tokens: int) -> Tensor:
    """The head each relative label means at each token; may lie outside the sentence: [n, K]."""
    dependents = torch.arange(1, tokens + 1, device=offsets.device)[:, None]
    return torch.where(offsets == 0, 0, torch.where(dependents + offsets < 1, -1, dependents + offsets))
