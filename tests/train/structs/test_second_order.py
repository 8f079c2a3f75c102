import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.structs.contract import TEMPERATURES, FamilyContract
from train.structs import FORBIDDEN, HeadSelection, LabelledHeads, SecondOrderHeads

RELATIONS = 2


def random(
    shape: tuple[int, ...], seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(
    lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0, iterations: int = 3
) -> SecondOrderHeads:
    batch, n = len(lengths), max(lengths)
    return SecondOrderHeads(
        random((batch, n, n + 1, RELATIONS), seed, scale),
        torch.tensor(lengths),
        siblings=random((batch, n, n, n + 1), seed + 1, scale, torch.float32),
        grandparents=random((batch, n, n, n + 1), seed + 2, scale, torch.float32),
        iterations=iterations,
    )


def head_choices(length: int) -> list[tuple[int, ...]]:
    """Every choice of heads of a sentence, a tree or not."""
    choices = [[h for h in range(length + 1) if h != i + 1] for i in range(length)]
    return list(itertools.product(*choices))


class TestSecondOrderHeads(FamilyContract[SecondOrderHeads]):
    """The contract of the product that mean-field inference gives."""

    lengths = (3, 1, 2)

    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> SecondOrderHeads:
        if max(lengths) <= 50:
            return build(lengths, seed, scale)
        # The contract gives long sentences other potentials, after which no pairs are left; the rounds of
        # long sentences have a test of their own below.
        n = max(lengths)
        return SecondOrderHeads(
            random((len(lengths), n, n + 1, RELATIONS), seed, scale), torch.tensor(lengths)
        )

    def structures(self, distribution: SecondOrderHeads, sentence: int) -> Iterator[LabelledHeads]:
        batch, width = distribution.mask.shape
        n = int(distribution.lengths[sentence])
        pad = [0] * (width - n)
        for heads in head_choices(n):
            for relations in itertools.product(range(RELATIONS), repeat=n):
                yield LabelledHeads(
                    torch.tensor([*heads, *pad]).expand(batch, width),
                    torch.tensor([*relations, *pad]).expand(batch, width),
                )

    def scores_of_all(self, distribution: SecondOrderHeads, sentence: int) -> Tensor:
        n = int(distribution.lengths[sentence])
        heads = torch.tensor(head_choices(n))[:, None]  # [choices, 1, n]
        relations = torch.cartesian_prod(*[torch.arange(RELATIONS)] * n).view(1, -1, n)
        return distribution.scores[sentence][torch.arange(n), heads, relations].sum(-1).flatten()

    def alone(self, distribution: SecondOrderHeads, sentence: int) -> SecondOrderHeads:
        n = int(distribution.lengths[sentence])
        one = slice(sentence, sentence + 1)
        siblings, grandparents = (
            None if parts is None else parts[one, :n, :n, : n + 1]
            for parts in (distribution.siblings, distribution.grandparents)
        )
        return SecondOrderHeads(
            distribution.first_order[one, :n, : n + 1],
            torch.tensor([n]),
            siblings=siblings,
            grandparents=grandparents,
        )

    def closed_form_count(self, length: int) -> float:
        return (length * RELATIONS) ** length

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_a_tempered_distribution_divides_every_score(self, temperature: float) -> None:
        """Of p, not of q: the mean field is found again."""
        distribution = self.build(self.lengths)
        assert distribution.siblings is not None
        assert distribution.grandparents is not None
        expected = SecondOrderHeads(
            distribution.first_order / temperature,
            distribution.lengths,
            siblings=distribution.siblings / temperature,
            grandparents=distribution.grandparents / temperature,
        )
        tempered = distribution.tempered(temperature)
        torch.testing.assert_close(tempered.marginals(), expected.marginals())
        torch.testing.assert_close(tempered.log_partition(), expected.log_partition())


def test_without_second_order_scores_it_is_head_selection() -> None:
    scores, lengths = random((2, 4, 5, RELATIONS), 1), torch.tensor([4, 2])
    plain = HeadSelection(scores, lengths)
    zero = torch.zeros(2, 4, 4, 5)
    choices: list[dict[str, Any]] = [{}, {"siblings": zero}, {"siblings": zero, "grandparents": zero}]
    for parts in choices:
        second = SecondOrderHeads(scores, lengths, **parts)
        assert torch.equal(second.scores, plain.scores)
        assert torch.equal(second.marginals(), plain.marginals())
    assert torch.equal(
        build((4,), iterations=0).scores, HeadSelection(random((1, 4, 5, 2), 0), lengths[:1]).scores
    )


def test_one_round_is_the_update_written_out_by_hand() -> None:
    n = 3
    mine = build((n,), seed=3, iterations=1)
    first = mine.first_order[0].logsumexp(-1)  # [n, n+1]
    q = first.softmax(-1)
    siblings, grandparents = (
        random((1, n, n, n + 1), 4, 1.0, torch.float32)[0],
        random((1, n, n, n + 1), 5, 1.0, torch.float32)[0],
    )
    for i in range(n):
        for h in range(n + 1):
            if h == i + 1:
                continue
            expected = first[i, h].clone()
            for k in range(n):
                if k != i and k + 1 != h:
                    expected += siblings[min(i, k), max(i, k), h] * q[k, h]
                    expected += grandparents[k, i, h] * q[k, i + 1]  # k under i, which is under h
            for g in range(n + 1):
                if h > 0 and g not in (h, i + 1):  # i under h, which is under g
                    expected += grandparents[i, h - 1, g] * q[h - 1, g]
            torch.testing.assert_close(mine.scores[0, i, h].logsumexp(-1), expected)


def test_further_rounds_start_from_the_heads_of_the_round_before() -> None:
    once, twice = build((4, 2), seed=6, iterations=1), build((4, 2), seed=6, iterations=2)
    message = twice._messages(once.marginals().sum(-1))  # [B, n, n+1]
    expected = twice.first_order + message[..., None]
    torch.testing.assert_close(twice.scores[twice.allowed], expected[twice.allowed])


def test_each_pair_of_siblings_counts_once_and_symmetrically() -> None:
    scores, lengths = torch.zeros(1, 3, 4, 1, dtype=torch.float64), torch.tensor([3])
    above = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    above[0, 0, 1, 0] = 2.0
    everywhere = above + 5 * torch.ones(3, 3).tril()[None, ..., None]  # what is not read
    expected = SecondOrderHeads(scores, lengths, siblings=above).marginals()
    torch.testing.assert_close(SecondOrderHeads(scores, lengths, siblings=everywhere).marginals(), expected)
    torch.testing.assert_close(expected[0, 0, 0], expected[0, 1, 0])  # both siblings hear of each other
    assert expected[0, 0, 0] > expected[0, 2, 0]


def test_a_grandparent_pulls_the_arc_below_it_and_above_it() -> None:
    scores, lengths = torch.zeros(1, 3, 4, 1, dtype=torch.float64), torch.tensor([3])
    grandparents = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    grandparents[0, 0, 1, 3] = 3.0  # 3 -> 2 -> 1
    heads = SecondOrderHeads(scores, lengths, grandparents=grandparents).argmax().heads
    assert heads[0, :2].tolist() == [2, 3]


def test_entries_that_are_no_grandparents_are_not_read() -> None:
    scores, lengths = random((1, 3, 4, 1), 1), torch.tensor([3])
    grandparents = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    for i, j in itertools.product(range(3), repeat=2):
        grandparents[0, i, j, [i + 1, j + 1]] = 7.0
    heads = SecondOrderHeads(scores, lengths, grandparents=grandparents)
    torch.testing.assert_close(heads.marginals(), HeadSelection(scores, lengths).marginals())


def test_padding_says_nothing() -> None:
    scores = random((2, 4, 5, RELATIONS), 1)
    siblings, grandparents = random((2, 4, 4, 5), 2), random((2, 4, 4, 5), 3)
    expected = SecondOrderHeads(
        scores, torch.tensor([4, 2]), siblings=siblings, grandparents=grandparents
    ).marginals()
    for parts in (siblings, grandparents):
        parts[1, 2:] = 100.0
        parts[1, :, 2:] = 100.0
        parts[1, :, :, 3:] = 100.0
    found = SecondOrderHeads(scores, torch.tensor([4, 2]), siblings=siblings, grandparents=grandparents)
    torch.testing.assert_close(found.marginals(), expected)


def test_forbidden_arcs_stay_forbidden_at_every_temperature() -> None:
    scores = random((1, 3, 4, RELATIONS), 1)
    scores[0, 0, 2] = FORBIDDEN
    heads = SecondOrderHeads(
        scores,
        torch.tensor([3]),
        siblings=random((1, 3, 3, 4), 2, 5.0),
        grandparents=random((1, 3, 3, 4), 3, 5.0),
    )
    for temperature in (1.0, 0.5, 100.0):
        tempered = heads.tempered(temperature)
        assert (tempered.marginals()[0, 0, 2] == 0).all()
        assert (tempered.scores[0, 0, 2] == FORBIDDEN).all()


def test_gradients_reach_every_order_through_all_rounds() -> None:
    parts = [random((1, 3, 4, RELATIONS), 1), random((1, 3, 3, 4), 2), random((1, 3, 3, 4), 3)]

    def log_prob(scores: Tensor, siblings: Tensor, grandparents: Tensor) -> Tensor:
        heads = SecondOrderHeads(
            scores, torch.tensor([3]), siblings=siblings, grandparents=grandparents, iterations=3
        )
        return heads.log_prob(LabelledHeads(torch.tensor([[2, 0, 2]]), torch.tensor([[0, 1, 1]])))

    inputs = [part.requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(log_prob, inputs)
    log_prob(*inputs).sum().backward()
    assert all(part.grad is not None and (part.grad != 0).any() for part in inputs)


def test_long_sentences_and_large_second_order_scores_stay_finite() -> None:
    n = 80
    parts = [
        random(shape, seed, 20.0).float().requires_grad_()
        for seed, shape in enumerate([(2, n, n + 1, 1), (2, n, n, n + 1), (2, n, n, n + 1)])
    ]
    heads = SecondOrderHeads(parts[0], torch.tensor([n, 1]), siblings=parts[1], grandparents=parts[2])
    heads.log_partition().sum().backward()
    assert torch.isfinite(heads.log_partition()).all()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in parts)


@pytest.mark.parametrize("name", ["siblings", "grandparents"])
def test_parts_of_another_shape_are_an_error_that_names_them(name: str) -> None:
    wrong: dict[str, Any] = {name: torch.zeros(1, 2, 2, 2)}
    with pytest.raises(ValueError, match=rf"{name} must be \[1, 2, "):
        SecondOrderHeads(torch.zeros(1, 2, 3, 1), torch.tensor([2]), **wrong)


def test_iterations_are_not_negative() -> None:
    with pytest.raises(ValueError, match="iterations"):
        build((2,), iterations=-1)
