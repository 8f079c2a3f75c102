import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.train.structs.contract import FamilyContract, label_sequences
from train.structs import (
    FORBIDDEN,
    ArcStatistics,
    ChainMarginals,
    HeadSelection,
    LabelledHeads,
    LinearChain,
    TokenSoftmax,
)

LABELS = 3
RELATIONS = 2


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestTokenSoftmax(FamilyContract[TokenSoftmax]):
    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> TokenSoftmax:
        return TokenSoftmax(random((len(lengths), max(lengths), LABELS), seed, scale), torch.tensor(lengths))

    def structures(self, distribution: TokenSoftmax, sentence: int) -> Iterator[Tensor]:
        batch, width, labels = distribution.scores.shape
        return label_sequences(labels, int(distribution.lengths[sentence]), batch, width)

    def alone(self, distribution: TokenSoftmax, sentence: int) -> TokenSoftmax:
        n = distribution.lengths[sentence]
        return TokenSoftmax(distribution.scores[sentence : sentence + 1, :n], n[None])

    def closed_form_count(self, length: int) -> float:
        return LABELS**length


class TestLinearChain(FamilyContract[LinearChain]):
    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> LinearChain:
        return LinearChain(
            random((len(lengths), max(lengths), LABELS), seed, scale),
            random((LABELS, LABELS), seed + 1, scale),
            random((LABELS,), seed + 2, scale),
            random((LABELS,), seed + 3, scale),
            torch.tensor(lengths),
        )

    def structures(self, distribution: LinearChain, sentence: int) -> Iterator[Tensor]:
        batch, width, labels = distribution.unary.shape
        return label_sequences(labels, int(distribution.lengths[sentence]), batch, width)

    def alone(self, distribution: LinearChain, sentence: int) -> LinearChain:
        n = int(distribution.lengths[sentence])
        zero = torch.zeros(LABELS, dtype=torch.float64)
        unary = distribution.unary[sentence : sentence + 1, :n]
        tables = distribution.transitions
        if tables.dim() == 4:
            tables = tables[sentence : sentence + 1, : n - 1]
        return LinearChain(unary, tables, zero, zero, torch.tensor([n]))

    def closed_form_count(self, length: int) -> float:
        return LABELS**length

    def with_lengths(self, distribution: LinearChain, lengths: Tensor) -> LinearChain:
        zero = torch.zeros(LABELS)
        return LinearChain(distribution.unary, distribution.transitions, zero, zero, lengths)

    def test_pair_marginals_sum_to_token_marginals(self) -> None:
        marginals = self.build((5, 2)).marginals()
        torch.testing.assert_close(marginals.pairs[0].sum(1), marginals.tokens[0, 1:])
        torch.testing.assert_close(marginals.pairs[0].sum(2), marginals.tokens[0, :-1])

    def test_marginals_are_the_same_before_and_after_a_backward_pass_through_log_z(self) -> None:
        emissions = random((2, 4, LABELS), 1).requires_grad_()
        table = random((LABELS, LABELS), 2).requires_grad_()
        zero = torch.zeros(LABELS, dtype=torch.float64)
        chain = LinearChain(emissions, table, zero, zero, torch.tensor([4, 2]))
        with torch.no_grad():
            first = chain.marginals()
        total = chain.log_partition().sum()
        with torch.no_grad():
            between = chain.marginals()
        loss = total - chain.marginals().tokens.square().sum()
        loss.backward()
        assert emissions.grad is not None
        freed = chain.marginals()
        for other in (between, freed):
            torch.testing.assert_close(other.tokens, first.tokens)
            torch.testing.assert_close(other.pairs, first.pairs)
        again = emissions.detach().clone().requires_grad_()
        alone = LinearChain(again, table.detach(), zero, zero, torch.tensor([4, 2]))
        (alone.log_partition().sum() - alone.marginals().tokens.square().sum()).backward()
        torch.testing.assert_close(emissions.grad, again.grad)

    def test_statistics_give_the_loss_of_the_pair_tables(self) -> None:
        teacher, student = self.build((5, 1, 3), seed=1), self.build((5, 1, 3), seed=9)
        marginals = teacher.marginals()
        whole = student.expected_score(marginals)
        torch.testing.assert_close(student.expected_score(marginals.statistics()), whole)

    def test_statistics_are_refused_where_transitions_depend_on_the_position(self) -> None:
        chain = self.build((3,))
        per_position = chain.with_potentials(chain.potentials)
        with pytest.raises(ValueError, match="shared"):
            per_position.expected_score(chain.marginals().statistics())

    def test_transitions_may_differ_between_positions(self) -> None:
        tables = random((1, 2, LABELS, LABELS), 5)
        emissions, zero = random((1, 3, LABELS), 6), torch.zeros(LABELS, dtype=torch.float64)
        chain = LinearChain(emissions, tables, zero, zero, torch.tensor([3]))
        expected = torch.stack(
            [
                emissions[0, 0, a]
                + tables[0, 0, a, b]
                + emissions[0, 1, b]
                + tables[0, 1, b, c]
                + emissions[0, 2, c]
                for a, b, c in itertools.product(range(LABELS), repeat=3)
            ]
        )
        torch.testing.assert_close(chain.log_partition()[0], expected.logsumexp(0))
        torch.testing.assert_close(chain.score(chain.argmax())[0], expected.max())
        torch.testing.assert_close(chain.topk(27).scores[0], expected.sort(descending=True).values)

    def test_the_k_best_have_no_forbidden_part(self) -> None:
        chain = self.build((2,))
        unary, tables = (theta.clone() for theta in chain.potentials)
        unary[0, 0, 0] = tables[0, 0, 1, 2] = FORBIDDEN
        best = chain.with_potentials((unary, tables)).topk(9)
        found = {tuple(y[0].tolist()) for y in best.structures[:5]}
        assert found == {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
        assert (best.scores[0, 5:] == -math.inf).all()

    def test_k_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            self.build((2,)).topk(0)

    def test_a_forbidden_transition_has_no_mass_in_decoding_marginals_and_count(self) -> None:
        transitions = torch.zeros(LABELS, LABELS)
        transitions[0, 1] = FORBIDDEN
        emissions = torch.zeros(1, 2, LABELS)
        emissions[0, 0, 0] = emissions[0, 1, 1] = 5.0
        zero = torch.zeros(LABELS)
        chain = LinearChain(emissions, transitions, zero, zero, torch.tensor([2]))
        assert chain.argmax().tolist() != [[0, 1]]
        for temperature in (1.0, 5.0, 100.0):
            assert chain.tempered(temperature).marginals().pairs[0, 0, 0, 1] == 0
        assert math.isclose(chain.log_count().exp().item(), LABELS**2 - 1, rel_tol=1e-6)

    def test_gaps_beyond_the_range_of_float64_are_summed_in_log_space(self) -> None:
        emissions = torch.tensor([[[0.0, 3000.0], [3000.0, 0.0]]])
        transitions = torch.tensor([[0.0, FORBIDDEN], [FORBIDDEN, 0.0]])
        chain = LinearChain(emissions, transitions, torch.zeros(2), torch.zeros(2), torch.tensor([2]))
        torch.testing.assert_close(chain.log_partition(), torch.tensor([3000.0 + math.log(2)]))
        torch.testing.assert_close(chain.marginals().tokens, torch.full((1, 2, 2), 0.5), rtol=0, atol=1e-4)

    def test_shapes_that_do_not_fit_are_errors_that_name_both(self) -> None:
        with pytest.raises(ValueError, match=r"transitions must be \[3, 3\]"):
            LinearChain(
                torch.zeros(1, 2, 3), torch.zeros(2, 2), torch.zeros(3), torch.zeros(3), torch.tensor([2])
            )
        with pytest.raises(ValueError, match="start and end"):
            LinearChain(
                torch.zeros(1, 2, 3), torch.zeros(3, 3), torch.zeros(2), torch.zeros(3), torch.tensor([2])
            )

    def test_marginals_come_with_names(self) -> None:
        assert isinstance(self.build((2,)).marginals(), ChainMarginals)


class TestHeadSelection(FamilyContract[HeadSelection]):
    lengths = (3, 1, 2)

    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> HeadSelection:
        n = max(lengths)
        return HeadSelection(random((len(lengths), n, n + 1, RELATIONS), seed, scale), torch.tensor(lengths))

    def structures(self, distribution: HeadSelection, sentence: int) -> Iterator[LabelledHeads]:
        batch, width = distribution.mask.shape
        n = int(distribution.lengths[sentence])
        choices = [[h for h in range(n + 1) if h != i + 1] for i in range(n)]
        for heads in itertools.product(*choices):
            for relations in itertools.product(range(RELATIONS), repeat=n):
                pad = [0] * (width - n)
                yield LabelledHeads(
                    torch.tensor([*heads, *pad]).expand(batch, width),
                    torch.tensor([*relations, *pad]).expand(batch, width),
                )

    def scores_of_all(self, distribution: HeadSelection, sentence: int) -> Tensor:
        n = int(distribution.lengths[sentence])
        if n <= 3:
            return super().scores_of_all(distribution, sentence)
        total = torch.zeros(1, dtype=torch.float64)
        for i in range(n):
            heads = [h for h in range(n + 1) if h != i + 1]
            total = (total[:, None] + distribution.scores[sentence, i, heads].flatten()).flatten()
        return total

    def alone(self, distribution: HeadSelection, sentence: int) -> HeadSelection:
        n = int(distribution.lengths[sentence])
        return HeadSelection(distribution.scores[sentence : sentence + 1, :n, : n + 1], torch.tensor([n]))

    def closed_form_count(self, length: int) -> float:
        return (length * RELATIONS) ** length

    def test_arcs_and_relations_apart_are_the_product_of_two_softmaxes(self) -> None:
        arcs, relations = random((1, 3, 4), 1).float(), random((1, 3, 4, RELATIONS), 2).float()
        marginals = HeadSelection(arcs=arcs, relations=relations, lengths=torch.tensor([3])).marginals()
        allowed = ~torch.eye(3, 4).roll(1, 1).bool()
        expected = arcs.masked_fill(~allowed, -torch.inf).softmax(-1)[..., None] * relations.softmax(-1)
        torch.testing.assert_close(marginals, expected)

    def test_a_token_is_never_its_own_head(self) -> None:
        scores = torch.zeros(1, 3, 4, RELATIONS)
        for i in range(3):
            scores[0, i, i + 1] = 100.0
        selection = HeadSelection(scores, torch.tensor([3]))
        assert all(int(head) != i + 1 for i, head in enumerate(selection.argmax().heads[0]))
        assert all(selection.marginals()[0, i, i + 1].sum() == 0 for i in range(3))

    def test_a_list_of_arcs_gives_the_expected_score_of_the_table(self) -> None:
        teacher, student = self.build((3, 1, 2), seed=1), self.build((3, 1, 2), seed=2)
        table = teacher.marginals()
        sentence, dependent, head, relation = table.nonzero(as_tuple=True)
        arcs = ArcStatistics(sentence, dependent, head, relation, table[sentence, dependent, head, relation])
        torch.testing.assert_close(student.expected_score(arcs), student.expected_score(table))

    def test_tokens_left_out_drop_out_of_every_sum(self) -> None:
        selection = self.build((3,))
        first = selection.only(torch.tensor([[True, False, False]]))
        expected = selection.scores[0, 0].flatten().logsumexp(0)
        torch.testing.assert_close(first.log_partition()[0], expected)
        best = selection.argmax()
        torch.testing.assert_close(first.score(best)[0], selection.scores[0, 0].max())
        two_best = selection.scores[0, 0].flatten().sort(descending=True).values[:2]
        torch.testing.assert_close(first.topk(2).scores[0], two_best)
        assert first.topk(7).scores[0].isfinite().sum() == 3 * RELATIONS
        assert all(not y.heads[0, 1:].any() for y in first.topk(6).structures)

    def test_kept_values_serve_other_tokens_as_well(self) -> None:
        tokens = torch.tensor([[True, False, True], [True, False, False]])
        theta = self.build((3, 2)).scores.requires_grad_()
        selection = HeadSelection(theta, torch.tensor([3, 2])).kept()
        both = [selection.log_partition(), selection.only(tokens).log_partition()]
        fresh = HeadSelection(theta, torch.tensor([3, 2]))
        torch.testing.assert_close(both, [fresh.log_partition(), fresh.only(tokens).log_partition()])
        assert selection.only(tokens).log_prob(selection.argmax()).shape == (2,)
        sum(both).sum().backward()  # type: ignore[union-attr]
        assert theta.grad is not None

    def test_scores_and_arcs_together_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="either"):
            HeadSelection(torch.zeros(1, 1, 2, 1), torch.tensor([1]), arcs=torch.zeros(1, 1, 2))
        with pytest.raises(ValueError, match="either"):
            HeadSelection(lengths=torch.tensor([1]))
