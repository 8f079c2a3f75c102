import warnings

import pytest
import torch

from train.distill.divergence import cross_entropy
from train.distill.projection import project
from train.distill.target_store import TargetHeader
from train.distill.tempering import (
    InconsistentTargetsError,
    InconsistentTargetsWarning,
    entropy_column,
    tempered_marginals,
)
from train.structs import HeadSelection, LinearChain, TokenSoftmax


def chain(seed: int = 0, scale: float = 1.0) -> LinearChain:
    generator = torch.Generator().manual_seed(seed)
    emissions = scale * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    transitions = scale * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    return LinearChain(emissions, transitions, transitions[0], transitions[1], torch.tensor([5, 2]))


def test_tempered_potentials_are_the_marginals_of_the_tempered_teacher() -> None:
    found = tempered_marginals(chain(), LinearChain, temperature=2.5)
    torch.testing.assert_close(found.pairs, chain().tempered(2.5).marginals().pairs)


def test_tempered_marginals_of_tokens_are_each_tokens_softened_distribution() -> None:
    found = tempered_marginals(chain(), TokenSoftmax, temperature=2.0, temper="marginals")
    plain = project(chain(), onto=TokenSoftmax)
    expected = plain[0].sqrt() / plain[0].sqrt().sum(-1, keepdim=True)
    torch.testing.assert_close(found[0], expected)
    assert found[1, 2:].abs().max() == 0


def test_tempered_marginals_of_arcs_sum_to_one_a_token_and_are_zero_for_forbidden_arcs() -> None:
    scores = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    selection = HeadSelection(scores, torch.tensor([3]))
    found = tempered_marginals(selection, HeadSelection, temperature=3.0, temper="marginals")
    torch.testing.assert_close(found.sum((2, 3)), torch.ones(1, 3))
    torch.testing.assert_close(found, selection.tempered(3.0).marginals())  # for independent tokens, the same
    assert all(found[0, i, i + 1].sum() == 0 for i in range(3))


def test_tempered_marginals_of_pairs_are_refused_unless_asked_for() -> None:
    with pytest.raises(InconsistentTargetsError, match=r"temper: potentials.*allow_inconsistent: true"):
        tempered_marginals(chain(), LinearChain, temperature=2.0, temper="marginals")
    with pytest.warns(InconsistentTargetsWarning, match="disagree"):
        tempered_marginals(chain(), LinearChain, temperature=2.0, temper="marginals", allow_inconsistent=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tempered_marginals(chain(), LinearChain, temperature=1.0, temper="marginals")  # nothing to soften


def test_inconsistent_pair_targets_let_the_loss_fall_without_bound_and_tempered_potentials_do_not() -> None:
    """The correction to the paper's local temperature for case 1a.

    Adding g(y_2) to one pair and taking it from the next leaves every structure's score, and so log Z, as it
    is. Consistent marginals cancel there too; inconsistent ones do not, and the loss is linear in g.
    """
    student = chain(seed=9, scale=0.0)

    def loss_along(marginals: object, c: float) -> torch.Tensor:
        unary, pairs = (theta.clone() for theta in student.potentials)
        shift = c * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        pairs[0, 0] += shift[None, :]  # + g(y_2) on the pair that ends in token 2
        pairs[0, 1] -= shift[:, None]  # − g(y_2) on the pair that starts in it
        return cross_entropy(student.with_potentials([unary, pairs]), marginals)[0]

    consistent = tempered_marginals(chain(scale=3.0), LinearChain, temperature=3.0)
    far, near = loss_along(consistent, 1000.0), loss_along(consistent, 0.0)
    torch.testing.assert_close(far, near, rtol=1e-4, atol=1e-3)
    with pytest.warns(InconsistentTargetsWarning):
        local = tempered_marginals(
            chain(scale=3.0), LinearChain, temperature=3.0, temper="marginals", allow_inconsistent=True
        )
    lowest = min(float(loss_along(local, c)) for c in (-1000.0, 1000.0))
    assert lowest < float(loss_along(local, 0.0)) - 10  # and twice as far down at twice the distance
    further = min(float(loss_along(local, c)) for c in (-2000.0, 2000.0))
    assert further == pytest.approx(2 * lowest - float(loss_along(local, 0.0)), rel=1e-6)


@pytest.mark.parametrize("temper", ["potentials", "marginals"])
def test_the_stored_entropy_is_that_of_the_stored_targets(temper: str) -> None:
    teacher = TokenSoftmax(
        torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([4, 2])
    )
    header = TargetHeader("ner", "TokenSoftmax", "", "", ("O",), 2.0, 2, temper=temper)
    marginals = tempered_marginals(teacher, TokenSoftmax, temperature=2.0, temper=temper)
    found = entropy_column(teacher, marginals, header)["entropy"]
    torch.testing.assert_close(found[:, 0], teacher.tempered(2.0).entropy())
