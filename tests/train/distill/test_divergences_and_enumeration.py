"""Every divergence against the sum over all structures."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from train.distill.divergence import cross_entropy, jeffreys, kl, renyi, reverse_kl
from train.structs import HeadSelection, LabelledHeads, LinearChain, StructuredDistribution, TokenSoftmax

LENGTHS = torch.tensor([3, 1])


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(seed: int) -> LinearChain:
    return LinearChain(
        random((2, 3, 3), seed),
        random((3, 3), seed + 1),
        random((3,), seed + 2),
        random((3,), seed + 3),
        LENGTHS,
    )


def tokens(seed: int) -> TokenSoftmax:
    return TokenSoftmax(random((2, 3, 3), seed), LENGTHS)


def heads(seed: int) -> HeadSelection:
    return HeadSelection(random((2, 3, 4, 2), seed), LENGTHS)


def label_structures(length: int) -> list[Tensor]:
    return [
        torch.tensor([[*labels, *[0] * (3 - length)]] * 2)
        for labels in itertools.product(range(3), repeat=length)
    ]


def head_structures(length: int) -> list[LabelledHeads]:
    choices = [[(h, r) for h in range(length + 1) if h != i + 1 for r in range(2)] for i in range(length)]
    padding = [0] * (3 - length)
    return [
        LabelledHeads(
            torch.tensor([[*(h for h, _ in picked), *padding]] * 2),
            torch.tensor([[*(r for _, r in picked), *padding]] * 2),
        )
        for picked in itertools.product(*choices)
    ]


FAMILIES: dict[str, tuple[Callable[[int], StructuredDistribution], Callable[[int], list]]] = {
    "chain": (chain, label_structures),
    "tokens": (tokens, label_structures),
    "heads": (heads, head_structures),
}


def log_probabilities(distribution: StructuredDistribution, family: str, sentence: int) -> Tensor:
    structures = FAMILIES[family][1](int(LENGTHS[sentence]))
    return torch.stack([distribution.score(y)[sentence] for y in structures]).log_softmax(0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_divergence_is_the_sum_over_all_structures(family: str, temperature: float) -> None:
    build = FAMILIES[family][0]
    teacher, student = build(1), build(50)
    soft = teacher.tempered(temperature)
    found = {
        "cross_entropy": cross_entropy(student, soft.marginals(), temperature),
        "kl": kl(student, soft.marginals(), soft.entropy(), temperature),
        "reverse_kl": reverse_kl(student, teacher, temperature),
        "jeffreys": jeffreys(student, teacher, temperature),
        "renyi_half": renyi(student, teacher, 0.5, temperature),
        "renyi_two": renyi(student, teacher, 2.0, temperature),
    }
    for i in range(2):
        log_t = log_probabilities(soft, family, i)
        log_s = log_probabilities(student.tempered(temperature), family, i)
        t, s = log_t.exp(), log_s.exp()
        forward, backward = (t * (log_t - log_s)).sum(), (s * (log_s - log_t)).sum()
        expected = {
            "cross_entropy": -(t * log_s).sum(),
            "kl": forward,
            "reverse_kl": backward,
            "jeffreys": forward + backward,
            "renyi_half": -2 * (0.5 * (log_t + log_s)).logsumexp(0),
            "renyi_two": (2 * log_t - log_s).logsumexp(0),
        }
        for name, value in expected.items():
            assert float(found[name][i]) == pytest.approx(float(temperature**2 * value), rel=1e-7), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["reverse_kl", "jeffreys", "renyi"])
def test_the_gradient_of_a_divergence_is_its_finite_difference_and_zero_at_the_teacher(
    family: str, name: str
) -> None:
    losses: dict[str, Callable[..., Tensor]] = {
        "reverse_kl": reverse_kl,
        "jeffreys": jeffreys,
        "renyi": partial(renyi, alpha=0.3),
    }
    build = FAMILIES[family][0]
    teacher, start = build(1), build(50)

    def loss(potentials: list[Tensor]) -> Tensor:
        return losses[name](start.with_potentials(potentials), teacher).sum()

    theta = [t.detach().clone().requires_grad_() for t in start.potentials]
    gradients = torch.autograd.grad(loss(theta), theta)
    direction = [random(tuple(t.shape), 9) for t in theta]
    step = 1e-6
    ahead, behind = (
        loss([t.detach() + sign * step * d for t, d in zip(theta, direction, strict=True)])
        for sign in (1, -1)
    )
    along = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    torch.testing.assert_close(along, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)
    same = [t.detach().clone().requires_grad_() for t in teacher.potentials]
    at_teacher = torch.autograd.grad(loss(same), same)
    assert all(g.abs().max() < 1e-9 for g in at_teacher)


def test_renyi_tends_to_kl_as_its_order_tends_to_one() -> None:
    teacher, student = chain(1), chain(50)
    limit = kl(student, teacher.marginals(), teacher.entropy())
    torch.testing.assert_close(renyi(student, teacher, 1 - 1e-6), limit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divergence", [reverse_kl, jeffreys, lambda s, t: renyi(s, t, 0.5)])
def test_a_divergence_between_different_parts_explains_itself(divergence: Callable) -> None:
    with pytest.raises(
        ValueError, match=r"share their parts; the teacher is a LinearChain.*Use cross_entropy"
    ):
        divergence(tokens(1), chain(1))


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.0, math.nan])
def test_an_order_that_is_no_renyi_divergence_is_an_error(alpha: float) -> None:
    with pytest.raises(ValueError, match="order"):
        renyi(chain(1), chain(2), alpha)
