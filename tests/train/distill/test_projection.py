import pytest
import torch
from torch import Tensor

from train.distill.projection import project
from train.structs import FORBIDDEN, ChainMarginals, HeadSelection, LinearChain, TokenSoftmax


def chain(seed: int = 0, lengths: tuple[int, ...] = (4, 1)) -> LinearChain:
    generator = torch.Generator().manual_seed(seed)
    emissions = torch.randn(len(lengths), max(lengths), 3, generator=generator)
    transitions = torch.randn(3, 3, generator=generator)
    return LinearChain(emissions, transitions, transitions[0], transitions[1], torch.tensor(lengths))


def heads(seed: int = 0) -> HeadSelection:
    scores = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(seed))
    return HeadSelection(scores, torch.tensor([3, 2]))


def test_case_1a_gives_pair_marginals_that_agree_with_the_token_marginals() -> None:
    marginals = project(chain(), onto=LinearChain)
    assert isinstance(marginals, ChainMarginals)
    torch.testing.assert_close(marginals.pairs[0].sum(1), marginals.tokens[0, 1:])
    torch.testing.assert_close(marginals.pairs[0].sum(2), marginals.tokens[0, :-1])


def test_case_2a_gives_a_distribution_over_labels_for_every_token_and_nothing_in_the_padding() -> None:
    tokens: Tensor = project(chain(), onto=TokenSoftmax)
    torch.testing.assert_close(tokens.sum(-1), torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]]))


def test_case_3_gives_the_pair_marginals_of_a_chain_without_transitions() -> None:
    generator = torch.Generator().manual_seed(2)
    scores, zero = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64), torch.zeros(3)
    lengths = torch.tensor([4, 2])
    found = project(TokenSoftmax(scores, lengths), onto=LinearChain)
    expected = LinearChain(scores, torch.zeros(3, 3), zero, zero, lengths).marginals()
    torch.testing.assert_close(found.tokens, expected.tokens)
    torch.testing.assert_close(found.pairs, expected.pairs)
    torch.testing.assert_close(found.pairs[0].sum(1), found.tokens[0, 1:])
    torch.testing.assert_close(found.pairs[0].sum(2), found.tokens[0, :-1])


def test_case_1b_gives_a_distribution_over_labelled_arcs_for_every_token() -> None:
    marginals: Tensor = project(heads(), onto=HeadSelection)
    torch.testing.assert_close(marginals.sum((2, 3)), torch.tensor([[1.0, 1, 1], [1, 1, 0]]))


def test_an_unknown_pair_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        LookupError, match=r"HeadSelection onto LinearChain; known:.*LinearChain -> TokenSoftmax"
    ):
        project(heads(), onto=LinearChain)


def test_tempering_potentials_keeps_pair_marginals_consistent_and_tempering_marginals_does_not() -> None:
    """The authors' way of tempering case 1a gives pair tables that disagree about the token between them."""
    tempered = project(chain(seed=3).tempered(3.0), onto=LinearChain)
    torch.testing.assert_close(tempered.pairs[0, 0].sum(0), tempered.pairs[0, 1].sum(1))
    pairs = project(chain(seed=3), onto=LinearChain).pairs[0] ** (1 / 3)
    pairs = pairs / pairs.sum((1, 2), keepdim=True)
    assert (pairs[0].sum(0) - pairs[1].sum(1)).abs().max() > 1e-3


def test_forbidden_labels_have_no_marginal() -> None:
    emissions = torch.zeros(1, 2, 2)
    table = torch.tensor([[0.0, FORBIDDEN], [0.0, 0.0]])
    marginals = project(
        LinearChain(emissions, table, table[0], table[1], torch.tensor([2])), onto=LinearChain
    )
    assert marginals.pairs[0, 0, 0, 1] == 0
    assert marginals.tokens[0, 0, 1] == 0
