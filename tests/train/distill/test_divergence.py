import pytest
import torch
from torch import Tensor

from train.distill.divergence import cross_entropy
from train.distill.objectives import TeacherTargets, loss_settings
from train.distill.projection import project
from train.structs import ArcStatistics, HeadSelection, LinearChain, StructuredDistribution, TokenSoftmax

TEMPERATURES = (0.5, 1.0, 2.0, 5.0)
LENGTHS = torch.tensor([5, 1, 3])


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(family: str, seed: int) -> tuple[list[Tensor], StructuredDistribution]:
    """Scores that require a gradient, and the distribution over them."""
    if family == "chain":
        theta = [
            random((3, 5, 4), seed),
            random((4, 4), seed + 50),
            random((4,), seed + 51),
            random((4,), seed + 52),
        ]
        theta = [t.requires_grad_() for t in theta]
        emissions, transitions, start, end = theta
        return theta, LinearChain(emissions, transitions, start, end, LENGTHS)
    if family == "token":
        scores = random((3, 5, 4), seed).requires_grad_()
        return [scores], TokenSoftmax(scores, LENGTHS)
    scores = random((3, 5, 6, 2), seed).requires_grad_()
    return [scores], HeadSelection(scores, LENGTHS)


@pytest.mark.parametrize("family", ["chain", "token", "heads"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_loss_of_a_student_that_is_its_teacher_is_the_entropy_and_its_gradient_is_zero(
    family: str, temperature: float
) -> None:
    theta, student = build(family, seed=1)
    with torch.no_grad():
        teacher = student.tempered(temperature)
        marginals = project(teacher, onto=type(student))
        entropy = teacher.entropy()
    loss = cross_entropy(student, marginals, temperature)
    torch.testing.assert_close(loss, temperature**2 * entropy)
    loss.sum().backward()
    for t in theta:
        assert t.grad is not None
        assert t.grad.abs().max() < 1e-10


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_sufficient_statistics_give_the_loss_and_gradient_of_the_pair_tables(temperature: float) -> None:
    _, teacher = build("chain", seed=2)
    gradients, losses = [], []
    with torch.no_grad():
        marginals = project(teacher.tempered(temperature), onto=LinearChain)
    for form in (marginals, marginals.statistics()):
        theta, student = build("chain", seed=7)
        loss = cross_entropy(student, form, temperature)
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append([t.grad for t in theta])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("family", ["chain", "token", "heads"])
def test_the_loss_is_never_below_the_entropy(family: str) -> None:
    for seed in range(5):
        _, teacher = build(family, seed=seed)
        _, student = build(family, seed=seed + 100)
        with torch.no_grad():
            loss = cross_entropy(student, project(teacher, onto=type(student)))
            assert (loss >= teacher.entropy() - 1e-9).all()


def test_top1_is_the_likelihood_of_the_best_structure_and_leaves_out_tokens_without_one() -> None:
    _, student = build("heads", seed=3)
    best = student.argmax()
    nobody = torch.zeros(0, dtype=torch.int64)
    arcs = ArcStatistics(nobody, nobody, nobody, nobody, torch.zeros(0))
    top1 = loss_settings("top1").teacher_loss
    assert top1 is not None
    loss = top1(student, TeacherTargets(arcs, best, 1.0))
    torch.testing.assert_close(loss, -student.log_prob(best))
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    masked = top1(student, TeacherTargets(arcs, best, 1.0, expressible=nothing))
    torch.testing.assert_close(masked, torch.zeros_like(masked))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_token_without_teacher_mass_in_the_students_parts_has_no_gradient_at_any_temperature(
    temperature: float,
) -> None:
    (scores,), student = build("heads", seed=3)
    _, teacher = build("heads", seed=4)
    expressible = torch.ones(3, 5, dtype=torch.bool)
    expressible[0, 1] = False
    with torch.no_grad():
        marginals = project(teacher.tempered(temperature), onto=HeadSelection) * expressible[..., None, None]
    structural = loss_settings("structural").teacher_loss
    assert structural is not None
    structural(
        student, TeacherTargets(marginals, None, temperature, expressible=expressible)
    ).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, 1].abs().max() == 0
    assert scores.grad[0, 0].abs().max() > 0


def test_the_weight_of_the_teacher_falls_linearly_and_stays_at_zero() -> None:
    steep = loss_settings("structural", anneal=1.5)
    assert [steep.teacher_weight(p) for p in (0.0, 0.5, 0.9, 1.0)] == pytest.approx([1.0, 0.25, 0.0, 0.0])
    assert loss_settings("structural", anneal=0.0).teacher_weight(1.0) == 1.0
