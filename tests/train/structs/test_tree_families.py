import itertools
import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from structural_kd.trees import are_trees
from tests.train.structs.contract import FamilyContract
from train.structs import FORBIDDEN, ArcStatistics, HeadSelection, LabelledHeads, MatrixTree, ProjectiveTree

RELATIONS = 2
Trees = MatrixTree | ProjectiveTree
PROJECTIVE_COUNTS = {1: 1, 2: 2, 3: 7, 4: 30, 5: 143, 6: 728}


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def all_trees(length: int) -> Tensor:
    """The heads of every tree with one child of the root: [trees, length]."""
    choices = itertools.product(*([h for h in range(length + 1) if h != i + 1] for i in range(length)))
    heads = np.array(list(choices))
    return torch.from_numpy(heads[are_trees(heads, np.full(len(heads), length))])


@cache
def projective_trees(length: int) -> Tensor:
    """Those of them in which every token between a head and its dependent is below that head."""
    kept = []
    for heads in all_trees(length).tolist():
        parents = [0, *heads]
        inside = True
        for dependent, head in enumerate(heads, 1):
            for between in range(min(head, dependent) + 1, max(head, dependent)):
                above = between
                while above not in (0, head):
                    above = parents[above]
                inside &= above == head
        if inside:
            kept.append(heads)
    return torch.tensor(kept)


class TreeContract(FamilyContract[Trees]):
    """What both families of trees promise, with every tree and labelling of a sentence listed at once."""

    lengths = (3, 1, 2)
    has_topk = False
    family: type[Trees]

    @staticmethod
    def trees(length: int) -> Tensor:
        raise NotImplementedError

    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Trees:
        n = max(lengths)
        scores = random((len(lengths), n, n + 1, RELATIONS), seed, scale)
        return self.family(scores, torch.tensor(lengths))

    def labelled(self, length: int) -> tuple[Tensor, Tensor]:
        """Heads [trees, 1, n] and relations [1, labellings, n]."""
        relations = torch.cartesian_prod(*[torch.arange(RELATIONS)] * length).view(-1, length)
        return self.trees(length)[:, None], relations[None]

    def structures(self, distribution: Trees, sentence: int) -> Iterator[LabelledHeads]:
        batch, width = distribution.mask.shape
        n = int(distribution.lengths[sentence])
        for pair in zip(*(part.flatten(0, 1) for part in self.pairs(n)), strict=True):
            yield LabelledHeads(*(torch.nn.functional.pad(y, (0, width - n)).expand(batch, -1) for y in pair))

    def pairs(self, length: int) -> tuple[Tensor, Tensor]:
        heads, relations = torch.broadcast_tensors(*self.labelled(length))
        return heads, relations

    def scores_of_all(self, distribution: Trees, sentence: int) -> Tensor:
        n = int(distribution.lengths[sentence])
        scores = distribution.scores[sentence][torch.arange(n), *self.labelled(n)]  # [trees, labellings, n]
        return scores.sum(-1).flatten()

    def alone(self, distribution: Trees, sentence: int) -> Trees:
        n = int(distribution.lengths[sentence])
        return self.family(distribution.scores[sentence : sentence + 1, :n, : n + 1], torch.tensor([n]))

    def closed_form_count(self, length: int) -> float:
        return len(self.trees(length)) * RELATIONS**length

    def arc_marginals(self, scores: Tensor) -> Tensor:
        """P(h_i) by enumeration, [n, n+1] from [n, n+1] scores of a single relation."""
        n = len(scores)
        heads = self.trees(n)  # [trees, n]
        weights = scores[torch.arange(n), heads].sum(1).softmax(0)  # [trees]
        return (weights[:, None, None] * torch.nn.functional.one_hot(heads, n + 1)).sum(0)

    def test_the_score_of_a_structure_is_the_sum_of_its_arcs(self) -> None:
        distribution = self.build((3,))
        one_by_one = [distribution.score(y)[0] for y in self.structures(distribution, 0)]
        torch.testing.assert_close(torch.stack(one_by_one), self.scores_of_all(distribution, 0))

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
    def test_arc_marginals_and_lone_root_children_of_every_length(self, length: int) -> None:
        scores = random((1, length, length + 1, 1), seed=length, scale=2.0)
        marginals = self.family(scores, torch.tensor([length])).marginals()[0, ..., 0]
        torch.testing.assert_close(marginals, self.arc_marginals(scores[0, ..., 0]))
        torch.testing.assert_close(marginals[:, 0].sum(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(marginals.sum(1), torch.ones(length, dtype=torch.float64))

    @pytest.mark.parametrize("seed", range(4))
    def test_nearly_deterministic_scores_keep_their_marginals(self, seed: int) -> None:
        scores = 60 * torch.rand(1, 5, 6, 1, generator=torch.Generator().manual_seed(seed)).double() - 30
        marginals = self.family(scores, torch.tensor([5])).marginals()[0, ..., 0]
        assert (marginals >= 0).all()
        assert (marginals - self.arc_marginals(scores[0, ..., 0])).abs().max() < 1e-12

    def test_samples_of_longer_sentences_have_the_probabilities_of_the_trees(self) -> None:
        copies = 5000
        scores = random((1, 4, 5, 1), 2).expand(copies, -1, -1, -1)
        distribution = self.family(scores, torch.full((copies,), 4))
        drawn = distribution.sample(torch.Generator().manual_seed(1)).heads  # [copies, 4]
        trees = self.trees(4)
        expected = scores[0, torch.arange(4), trees, 0].sum(1).softmax(0)  # [trees]
        found = (drawn[:, None] == trees).all(2).double().mean(0)  # [trees]
        assert abs(found.sum() - 1) < 1e-9  # no other structure was drawn
        assert ((found - expected).abs() < 5 * (expected * (1 - expected) / copies).sqrt()).all()

    def test_samples_of_a_batch_are_structures_of_the_family(self) -> None:
        distribution = self.build((7, 1, 4, 2), scale=3.0)
        for seed in range(20):
            drawn = distribution.sample(torch.Generator().manual_seed(seed))
            assert distribution.contains(drawn).all()
            assert (drawn.heads[1, 1:] == 0).all()
            assert (drawn.relations[1, 1:] == 0).all()

    @pytest.mark.parametrize("scale", [0.0, 0.1, 50.0])
    def test_the_argmax_is_one_structure_of_the_family_however_many_are_the_best(self, scale: float) -> None:
        distribution = self.build((9, 1, 5), scale=scale)
        best = distribution.argmax()
        assert distribution.contains(best).all()
        assert (best.heads[1, 1:] == 0).all()
        assert (best.relations[1, 1:] == 0).all()

    def test_forbidden_arcs_have_no_mass_in_marginals_count_decoding_and_samples(self) -> None:
        scores = random((1, 4, 5, RELATIONS), 4)
        scores[0, 0, 3] = scores[0, 2, 0] = FORBIDDEN  # arcs 3 -> 1 and root -> 3
        scores[0, 1, 3, 1] = FORBIDDEN  # one relation of the arc 3 -> 2
        distribution = self.family(scores, torch.tensor([4]))
        for temperature in (1.0, 5.0, 100.0):
            marginals = distribution.tempered(temperature).marginals()
            assert (marginals[scores <= FORBIDDEN / 2] == 0).all()
            torch.testing.assert_close(marginals.sum((2, 3)), torch.ones(1, 4, dtype=torch.float64))
        count = sum(
            2**4 if heads[1] != 3 else 2**3
            for heads in self.trees(4).tolist()
            if heads[0] != 3 and heads[2] != 0
        )
        assert math.isclose(distribution.log_count().exp().item(), count, rel_tol=1e-9)
        for seed in range(20):
            drawn = distribution.sample(torch.Generator().manual_seed(seed))
            assert distribution.score(drawn) > FORBIDDEN / 2
        assert distribution.score(distribution.argmax()) > FORBIDDEN / 2

    @pytest.mark.parametrize("forced", [1, 2, 4])
    def test_a_token_with_no_head_but_the_root_is_the_only_one_under_it(self, forced: int) -> None:
        scores = random((1, 4, 5, 1), forced)
        scores[0, forced - 1, 1:] = FORBIDDEN
        distribution = self.family(scores, torch.tensor([4]))
        torch.testing.assert_close(distribution.log_partition()[0], self.of_all(scores))
        marginals = distribution.marginals()[0, ..., 0]
        expected = torch.zeros(4, dtype=torch.float64)
        expected[forced - 1] = 1
        torch.testing.assert_close(marginals[:, 0], expected)
        torch.testing.assert_close(marginals, self.arc_marginals(scores[0, ..., 0]), rtol=0, atol=1e-11)
        drawn = distribution.sample(torch.Generator().manual_seed(0))
        assert int(drawn.heads[0, forced - 1]) == 0

    def of_all(self, scores: Tensor) -> Tensor:
        n = scores.shape[1]
        return scores[0, torch.arange(n), self.trees(n), 0].sum(1).logsumexp(0)

    @pytest.mark.parametrize("broken", ["no head", "two roots", "a cycle"])
    def test_a_sentence_whose_arcs_admit_no_tree_is_an_error_that_names_it(self, broken: str) -> None:
        scores = torch.zeros(2, 3, 4, RELATIONS)
        if broken == "no head":
            scores[1, 1] = FORBIDDEN
        elif broken == "two roots":
            scores[1, :2, 1:] = FORBIDDEN
        else:
            scores[1, 0, [0, 1, 3]] = scores[1, 1, [0, 2, 3]] = FORBIDDEN
        distribution = self.family(scores, torch.tensor([3, 3]))
        for question in (distribution.log_partition, distribution.marginals, distribution.entropy):
            with pytest.raises(ValueError, match="sentence 1: every structure is forbidden"):
                question()

    def test_heads_that_are_no_tree_of_the_family_have_no_probability_and_no_gradient(self) -> None:
        scores = torch.zeros(3, 3, 4, 1, requires_grad=True)
        distribution = self.family(scores, torch.tensor([3, 3, 3]))
        heads = torch.tensor([[2, 1, 0], [0, 0, 1], [0, 1, 2]])
        log_prob = distribution.log_prob(LabelledHeads(heads, torch.zeros_like(heads)))
        assert log_prob[:2].tolist() == [FORBIDDEN, FORBIDDEN]
        torch.testing.assert_close(log_prob[2], -torch.tensor(float(len(self.trees(3)))).log())
        log_prob.sum().backward()
        assert scores.grad is not None
        assert (scores.grad[:2] == 0).all()
        assert (scores.grad[2] != 0).any()

    def test_trees_are_no_head_selection_though_their_parts_are_the_same(self) -> None:
        assert not issubclass(self.family, HeadSelection)
        scores = random((2, 3, 4, RELATIONS), 1)
        table = HeadSelection(scores, torch.tensor([3, 2])).marginals()
        sentence, token, head, relation = table.nonzero(as_tuple=True)
        distribution = self.family(scores, torch.tensor([3, 2]))
        arcs = ArcStatistics(sentence, token, head, relation, table[sentence, token, head, relation])
        listed = distribution.expected_score(arcs)
        torch.testing.assert_close(listed, distribution.expected_score(table))

    def test_float32_scores_give_float32_answers(self) -> None:
        single = self.family(random((2, 3, 4, RELATIONS), 1).float(), torch.tensor([3, 2]))
        assert single.log_partition().dtype == single.marginals().dtype == torch.float32


class TestMatrixTree(TreeContract):
    family = MatrixTree
    trees = staticmethod(all_trees)

    def test_the_number_of_trees_is_n_to_the_n_minus_one(self) -> None:
        for n in range(1, 7):
            assert len(all_trees(n)) == n ** (n - 1)
        long = MatrixTree(torch.zeros(2, 60, 61, 1, dtype=torch.float64), torch.tensor([60, 31]))
        expected = torch.tensor([59 * math.log(60), 30 * math.log(31)], dtype=torch.float64)
        torch.testing.assert_close(long.log_count(), expected)

    def test_the_partition_is_the_single_root_determinant(self) -> None:
        """Koo et al. 2007: the Laplacian of the tokens with its first row replaced by the root scores."""
        n = 12
        weights = random((n, n + 1), 3).exp()
        weights[torch.arange(n), torch.arange(1, n + 1)] = 0
        laplacian = torch.diag(weights[:, 1:].sum(1)) - weights[:, 1:].T
        laplacian[0] = weights[:, 0]
        log_partition = MatrixTree(weights.log().clamp_min(-9e3)[None, ..., None], torch.tensor([n]))
        torch.testing.assert_close(log_partition.log_partition()[0], torch.logdet(laplacian))

    def test_small_marginals_survive_where_a_determinant_has_no_digit_left(self) -> None:
        """Two tokens that choose each other with all but e^−80 of their weight: LU sees a singular matrix."""
        scores = torch.full((1, 4, 5, 1), -40.0, dtype=torch.float64)
        scores[0, 0, 2] = scores[0, 1, 1] = 40.0
        scores[0, 0, 3] = -37.0
        distribution = MatrixTree(scores, torch.tensor([4]))
        torch.testing.assert_close(distribution.log_partition()[0], self.of_all(scores), rtol=1e-13, atol=0)
        marginals = distribution.marginals()[0, ..., 0]
        torch.testing.assert_close(marginals, self.arc_marginals(scores[0, ..., 0]), rtol=0, atol=1e-13)


class TestProjectiveTree(TreeContract):
    family = ProjectiveTree
    trees = staticmethod(projective_trees)

    def test_the_number_of_projective_trees_is_known(self) -> None:
        for n, count in PROJECTIVE_COUNTS.items():
            assert len(projective_trees(n)) == count == math.comb(3 * n - 2, n - 1) // n
        long = ProjectiveTree(torch.zeros(2, 40, 41, 1, dtype=torch.float64), torch.tensor([40, 23]))
        expected = [math.log(math.comb(3 * n - 2, n - 1) // n) for n in (40, 23)]
        torch.testing.assert_close(long.log_count(), torch.tensor(expected, dtype=torch.float64))

    def test_a_tree_with_crossing_arcs_is_not_in_the_family(self) -> None:
        heads = torch.tensor([[3, 0, 2, 2], [2, 0, 4, 2], [3, 4, 0, 3]])
        distribution = ProjectiveTree(torch.zeros(3, 4, 5, 1), torch.tensor([4, 4, 4]))
        inside = distribution.contains(LabelledHeads(heads, torch.zeros_like(heads)))
        assert inside.tolist() == [False, True, False]

    def test_padding_is_not_looked_at_for_crossings(self) -> None:
        heads = torch.tensor([[2, 0, 1, 7]])
        distribution = ProjectiveTree(torch.zeros(1, 4, 5, 1), torch.tensor([2]))
        assert distribution.contains(LabelledHeads(heads, torch.zeros_like(heads))).all()
