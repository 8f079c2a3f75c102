import itertools

import pytest
import torch
from torch import Tensor

from structural_kd.trees import is_tree
from train.distill.divergence import cross_entropy
from train.distill.projection import project, shared_parts
from train.structs import HeadSelection, LabelledHeads, MatrixTree, ProjectiveTree, SecondOrderHeads

RELATIONS = 2
LENGTHS = (4, 1, 3)
Trees = type[MatrixTree | ProjectiveTree]


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trees(family: Trees, seed: int = 0) -> MatrixTree | ProjectiveTree:
    return family(random((3, 4, 5, RELATIONS), seed), torch.tensor(LENGTHS))


def second_order(seed: int = 0) -> SecondOrderHeads:
    return SecondOrderHeads(
        random((3, 4, 5, RELATIONS), seed),
        torch.tensor(LENGTHS),
        siblings=random((3, 4, 4, 5), seed + 1),
        grandparents=random((3, 4, 4, 5), seed + 2),
    )


def crosses(heads: tuple[int, ...]) -> bool:
    arcs = [sorted(arc) for arc in enumerate(heads, 1)]
    return any(a < c < b < d for (a, b), (c, d) in itertools.product(arcs, repeat=2))


@pytest.mark.parametrize("family", [MatrixTree, ProjectiveTree])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_tree_marginals_are_those_of_the_enumeration(family: Trees, temperature: float) -> None:
    teacher = trees(family).tempered(temperature)
    projected: Tensor = project(teacher, onto=HeadSelection)
    for sentence, n in enumerate(LENGTHS):
        scores = teacher.scores[sentence]  # [n, n+1, R]
        weights = torch.zeros_like(scores)
        total = torch.zeros((), dtype=torch.float64)
        for heads in itertools.product(range(n + 1), repeat=n):
            if not is_tree(heads) or (family is ProjectiveTree and crosses(heads)):
                continue
            for relations in itertools.product(range(RELATIONS), repeat=n):
                weight = sum(scores[i, h, r] for i, (h, r) in enumerate(zip(heads, relations, strict=True)))
                weight = torch.as_tensor(weight).exp()
                weights[torch.arange(n), torch.tensor(heads), torch.tensor(relations)] += weight
                total = total + weight
        torch.testing.assert_close(projected[sentence], weights / total)


@pytest.mark.parametrize("family", [MatrixTree, ProjectiveTree])
def test_tree_marginals_give_every_token_a_head_and_the_root_one_child(family: Trees) -> None:
    projected: Tensor = project(trees(family), onto=HeadSelection)
    inside = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    torch.testing.assert_close(projected.sum((2, 3)), inside.double())
    torch.testing.assert_close(projected[:, :, 0].sum((1, 2)), torch.ones(3, dtype=torch.float64))
    assert (projected[~inside] == 0).all()
    assert (projected >= 0).all()
    assert all((projected[:, i, i + 1] == 0).all() for i in range(4))


def test_case_2b_gives_the_marginals_of_the_mean_field() -> None:
    teacher = second_order()
    projected: Tensor = project(teacher, onto=HeadSelection)
    inside = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    torch.testing.assert_close(projected.sum((2, 3)), inside.double())
    assert (projected[~inside] == 0).all()
    for sentence, n in enumerate(LENGTHS):
        expected = torch.zeros(n, n + 1, RELATIONS, dtype=torch.float64)
        arcs = [[(h, r) for h in range(n + 1) if h != i + 1 for r in range(RELATIONS)] for i in range(n)]
        scores = teacher.scores[sentence]
        for choice in itertools.product(*arcs):
            heads, relations = torch.tensor(choice).T
            log_prob = scores[torch.arange(n), heads, relations].sum() - teacher.log_partition()[sentence]
            expected[torch.arange(n), heads, relations] += log_prob.exp()
        torch.testing.assert_close(projected[sentence, :n, : n + 1], expected)


@pytest.mark.parametrize("family", [MatrixTree, ProjectiveTree])
def test_the_student_loss_is_the_cross_entropy_with_every_tree_of_the_teacher(family: Trees) -> None:
    teacher = family(random((1, 3, 4, 1), 5), torch.tensor([3]))
    student = HeadSelection(random((1, 3, 4, 1), 6), torch.tensor([3]))
    expected = torch.zeros(1, dtype=torch.float64)
    for heads in itertools.product(range(4), repeat=3):
        if is_tree(heads) and not (family is ProjectiveTree and crosses(heads)):
            y = LabelledHeads(torch.tensor([heads]), torch.zeros(1, 3, dtype=torch.int64))
            expected -= teacher.log_prob(y).exp() * student.log_prob(y)
    torch.testing.assert_close(cross_entropy(student, project(teacher, onto=HeadSelection)), expected)


@pytest.mark.parametrize("family", [MatrixTree, ProjectiveTree])
def test_trees_and_head_selection_are_not_taken_for_the_same_distribution(family: Trees) -> None:
    with pytest.raises(LookupError, match="do not share"):
        shared_parts(trees(family), HeadSelection)
    mean_field = shared_parts(second_order(), HeadSelection)
    again = HeadSelection(mean_field.potentials[0], mean_field.lengths)
    torch.testing.assert_close(again.marginals(), second_order().marginals())
