import itertools
import math

import pytest
import torch
from torch import Tensor

from structural_kd.labels import bioes_constraints, bioes_labels
from tests.train.structs.test_span_families import bioes_sequences, random
from train.distill.projection import project
from train.structs import ChainMarginals, LinearChain, SpanSet, TokenSoftmax

TYPES = 2
LABELS = 4 * TYPES + 1


def teacher(lengths: tuple[int, ...] = (5, 1, 3), seed: int = 0, scale: float = 1.0) -> SpanSet:
    n = max(lengths)
    return SpanSet(random((len(lengths), n, n, TYPES), seed, scale), torch.tensor(lengths))


def enumerated(spans: SpanSet, sentence: int) -> tuple[Tensor, Tensor]:
    """Token [n, 4L+1] and pair [n-1, 4L+1, 4L+1] marginals by listing every BIOES sequence, in float64."""
    n = int(spans.lengths[sentence])
    alone = SpanSet(spans.scores[sentence : sentence + 1, :n, :n].double(), torch.tensor([n]))
    sequences = torch.tensor(list(bioes_sequences(TYPES, n)))  # [m, n]
    many = SpanSet(alone.scores.expand(len(sequences), n, n, TYPES), alone.lengths.expand(len(sequences)))
    weights = many.score(sequences).softmax(0)  # [m]
    one_hot = torch.nn.functional.one_hot(sequences, LABELS).double()  # [m, n, 4L+1]
    tokens = torch.einsum("m,mnk->nk", weights, one_hot)
    return tokens, torch.einsum("m,mnk,mnl->nkl", weights, one_hot[:, :-1], one_hot[:, 1:])


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_token_and_pair_marginals_are_those_of_the_enumeration(scale: float) -> None:
    spans = teacher(scale=scale)
    tokens = project(spans, onto=TokenSoftmax)
    chain = project(spans, onto=LinearChain)
    assert isinstance(chain, ChainMarginals)
    assert chain.pairs.shape == (3, 4, LABELS, LABELS)
    for i, n in enumerate(spans.lengths.tolist()):
        expected_tokens, expected_pairs = enumerated(spans, i)
        torch.testing.assert_close(tokens[i, :n], expected_tokens)
        torch.testing.assert_close(chain.tokens[i, :n], expected_tokens)
        torch.testing.assert_close(chain.pairs[i, : n - 1], expected_pairs)


def test_pair_marginals_sum_to_token_marginals_on_both_sides() -> None:
    marginals = project(teacher((30, 12, 2), scale=3.0), onto=LinearChain)
    inside = marginals.tokens[:, 1:].sum(-1, keepdim=True) > 0  # [B, n-1, 1]
    torch.testing.assert_close(marginals.pairs.sum(2), marginals.tokens[:, 1:])
    torch.testing.assert_close(marginals.pairs.sum(3), marginals.tokens[:, :-1] * inside)


def test_every_real_token_has_a_distribution_and_the_padding_has_nothing() -> None:
    spans = teacher((30, 12, 1))
    marginals = project(spans, onto=LinearChain)
    torch.testing.assert_close(marginals.tokens.sum(-1), spans.mask.double())
    assert not marginals.tokens[~spans.mask].any()
    assert not marginals.pairs[~spans.mask[:, 1:]].any()


def test_pairs_that_are_not_bioes_have_exactly_no_mass() -> None:
    valid = torch.from_numpy(bioes_constraints(bioes_labels(["A", "B"])).transitions)  # [4L+1, 4L+1]
    pairs = project(teacher((8,)), onto=LinearChain).pairs
    assert not pairs[..., ~valid].any()
    assert (pairs[0, 1:-1, valid] > 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_tiny_marginals_of_a_nearly_certain_teacher_keep_their_relative_precision(
    dtype: torch.dtype, tolerance: float
) -> None:
    scores = torch.full((1, 5, 5, TYPES), -30.0, dtype=torch.float64) + random((1, 5, 5, TYPES), 3)
    scores[0, 1, 3, 0] = 30.0
    spans = SpanSet(scores.to(dtype), torch.tensor([5]))
    marginals = project(spans, onto=LinearChain)
    # What float32 cannot represent at full precision it need not get right.
    for mine, exact in zip((marginals.tokens[0], marginals.pairs[0]), enumerated(spans, 0), strict=True):
        known = exact > torch.finfo(dtype).tiny
        assert float(exact[known].min()) < 1e-25
        relative = ((mine.double()[known] - exact[known]) / exact[known]).abs()
        assert float(relative.max()) < tolerance


def test_projections_are_differentiable_where_the_teacher_is() -> None:
    scores = random((1, 3, 3, TYPES), 1).requires_grad_()
    weights = random((1, 2, LABELS, LABELS), 2)

    def pairs(scores: Tensor) -> Tensor:
        return (project(SpanSet(scores, torch.tensor([3])), onto=LinearChain).pairs * weights).sum()

    assert torch.autograd.gradcheck(pairs, (scores,))
    assert not project(teacher(), onto=TokenSoftmax).requires_grad


class TestCorrectionsToAppendixA:
    """The paper's tables of path sums, and where its formulas as printed part from the enumeration.

    ``forward[i]`` (→DP(i, F)) is the sum over all that can stand on tokens 1..i−1, ``backward[j]``
    (←DP(j, F)) over tokens j+1..n.
    """

    spans = teacher((4,), seed=5)
    n = 4
    weights = spans.scores[0].exp()  # [n, n, L]

    def forward(self) -> Tensor:
        total = torch.ones(self.n + 1, dtype=torch.float64)
        for i in range(1, self.n + 1):
            total[i] = total[i - 1] + sum(total[k] * self.weights[k, i - 1].sum() for k in range(i))
        return total[:-1]  # [n]; the last one is Z

    def backward(self) -> Tensor:
        total = torch.ones(self.n + 1, dtype=torch.float64)
        for i in reversed(range(self.n)):
            total[i] = total[i + 1] + sum(total[j + 1] * self.weights[i, j].sum() for j in range(i, self.n))
        return total[1:]  # [n]

    def test_the_partition_sums_over_the_types_of_a_last_span_and_the_paper_s_does_not(self) -> None:
        z = float(self.spans.log_partition().exp())
        forward, last = self.forward(), self.n - 1
        # →DP(n, l) for each type: paths whose last span ends with the last token.
        ending = (forward[:, None] * self.weights[:, last]).sum(0)  # [L]
        assert math.isclose(float(forward[last] + ending.sum()), z, rel_tol=1e-9)
        for type_ in range(TYPES):  # as printed, for whichever type
            assert abs(float(forward[last] + ending[type_]) - z) > 0.01 * z

    def test_inside_a_span_needs_the_backward_table_where_the_paper_prints_the_forward_one(self) -> None:
        z = self.spans.log_partition().exp()[0]
        forward, backward = self.forward(), self.backward()
        expected, _ = enumerated(self.spans, 0)
        for i, type_ in itertools.product(range(1, self.n - 1), range(TYPES)):
            right, printed = (
                sum(
                    self.weights[k, j, type_] * forward[k] * table[j]
                    for k in range(i)
                    for j in range(i + 1, self.n)
                )
                / z
                for table in (backward, forward)
            )
            inside = expected[i, 1 + 4 * type_ + 1]
            torch.testing.assert_close(right, inside)
            assert abs(float(printed - inside)) > 0.05 * float(inside)

    def test_span_scores_are_relative_to_no_entity(self) -> None:
        """A constant on every class, no entity included, must not change anything: only differences count."""
        entity, none = random((1, 3, 3, TYPES), 8), random((1, 3, 3, 1), 9)
        lengths = torch.tensor([3])
        relative = [SpanSet(entity + c - (none + c), lengths).marginals() for c in (0.0, 2.0)]
        torch.testing.assert_close(*relative)
        printed = [SpanSet(entity + c, lengths).marginals() for c in (0.0, 2.0)]
        assert (printed[0] - printed[1]).abs().max() > 0.05
