import pytest
import torch

from structural_kd.labels import bioes_labels
from train.distill.objectives import DIVERGENCES, OBJECTIVES, is_for, loss_settings
from train.distill.target_store import TargetHeader
from train.models.taggers import constraint_scores
from train.structs import (
    HeadSelection,
    LinearChain,
    MatrixTree,
    Mixture,
    SpanSet,
    StructuredDistribution,
    TokenSoftmax,
)
from train.tasks import EntityTask, TreeTask

LABELS = tuple(bioes_labels({"LOC", "PER"}))
LENGTHS = torch.tensor([4, 1, 3])
NER, PARSE = EntityTask(LABELS), TreeTask(("nsubj", "obj", "root"))


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(seed: int) -> LinearChain:
    transitions, start, end = (scores.double() for scores in constraint_scores(LABELS))
    size = len(LABELS)
    return LinearChain(
        2 * random(3, 4, size, seed=seed),
        random(size, size, seed=seed + 1) + transitions,
        random(size, seed=seed + 2) + start,
        random(size, seed=seed + 3) + end,
        LENGTHS,
    )


def spans(seed: int) -> SpanSet:
    return SpanSet(random(3, 4, 4, 2, seed=seed), LENGTHS)


def tokens(seed: int) -> TokenSoftmax:
    return TokenSoftmax(2 * random(3, 4, len(LABELS), seed=seed), LENGTHS)


def header(task: str, content: str, family: type, k: int | None = None) -> TargetHeader:
    labels = LABELS if task == "ner" else PARSE.labels
    return TargetHeader(task, family.__name__, "", "", labels, 1.0, 3, content=content, k=k)  # type: ignore[arg-type]


def stored(teacher: StructuredDistribution, family: type, *contents: str, k: int = 3) -> dict:
    task = PARSE if isinstance(teacher, HeadSelection | MatrixTree) else NER
    return {
        content: task.targets.to_rows(
            teacher, family, header(task.name, content, family, k if "top" in content else None)
        )
        for content in contents
    }


def test_top_k_of_every_structure_weighted_by_probability_is_the_structural_loss() -> None:
    """Top-K methods are the structural loss with fewer structures: with all of them nothing is left out."""
    teacher, student = chain(1), chain(30)
    count = int(teacher.log_count().exp().max().round())
    rows = stored(teacher, LinearChain, "marginals", "topwk", k=count)
    targets = NER.targets.to_batch(rows, 1.0)
    whole, best = loss_settings("structural").teacher_loss, loss_settings("topwk").teacher_loss
    assert whole is not None
    assert best is not None
    torch.testing.assert_close(best(student, targets), whole(student, targets), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [LinearChain, TokenSoftmax])
@pytest.mark.parametrize("name", ["topk", "topwk"])
def test_top_k_losses_are_the_mean_over_the_k_best(name: str, family: type) -> None:
    teacher = chain(1)
    student = chain(30) if family is LinearChain else tokens(30)
    targets = NER.targets.to_batch(stored(teacher, family, "marginals", name), 1.0)
    best = teacher.topk(3)
    weights = best.scores.softmax(1)
    if name == "topk":
        weights = torch.isfinite(best.scores) / torch.isfinite(best.scores).sum(1, keepdim=True)
    expected = -sum(
        torch.where(weight > 0, weight * student.log_prob(y), 0.0)
        for weight, y in zip(weights.unbind(1), best.structures, strict=True)
    )
    loss = loss_settings(name).teacher_loss
    assert loss is not None
    torch.testing.assert_close(loss(student, targets), expected, rtol=1e-4, atol=1e-4)


def test_top_k_of_a_parser_is_the_mean_over_its_k_best() -> None:
    teacher, student = (HeadSelection(random(3, 4, 5, 3, seed=s), LENGTHS) for s in (1, 2))
    targets = PARSE.targets.to_batch(stored(teacher, HeadSelection, "marginals", "topk"), 1.0)
    expected = -torch.stack([student.log_prob(y) for y in teacher.topk(3).structures]).mean(0)
    loss = loss_settings("topk").teacher_loss
    assert loss is not None
    torch.testing.assert_close(loss(student, targets), expected, rtol=1e-4, atol=1e-4)


def test_posterior_is_lowest_where_the_token_marginals_agree() -> None:
    teacher = chain(1)
    targets = NER.targets.to_batch(stored(teacher, LinearChain, "marginals"), 1.0)
    loss = loss_settings("posterior").teacher_loss
    assert loss is not None
    own = torch.special.entr(teacher.marginals().tokens).sum((1, 2))
    torch.testing.assert_close(loss(teacher, targets), own, rtol=1e-4, atol=1e-4)
    assert (loss(chain(30), targets) > own).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_stored_targets_give_each_divergence_its_value(divergence: str) -> None:
    from train.distill.divergence import cross_entropy, jeffreys, kl, renyi, reverse_kl

    teacher, student = chain(1), chain(30)
    rows = stored(teacher, LinearChain, *loss_settings("structural", divergence=divergence).contents)
    targets = NER.targets.to_batch(rows, 1.0)
    loss = loss_settings("structural", divergence=divergence, alpha=0.4).teacher_loss
    assert loss is not None
    expected = {
        "cross_entropy": lambda: cross_entropy(student, teacher.marginals()),
        "kl": lambda: kl(student, teacher.marginals(), teacher.entropy()),
        "reverse_kl": lambda: reverse_kl(student, teacher),
        "jeffreys": lambda: jeffreys(student, teacher),
        "renyi": lambda: renyi(student, teacher, 0.4),
    }[divergence]()
    torch.testing.assert_close(loss(student, targets), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("divergence", ["reverse_kl", "jeffreys", "renyi"])
def test_stored_scores_of_a_parser_give_each_divergence_its_value(divergence: str) -> None:
    from train.distill.divergence import jeffreys, renyi, reverse_kl

    teacher, student = (HeadSelection(random(3, 4, 5, 3, seed=s), LENGTHS) for s in (1, 2))
    rows = stored(teacher, HeadSelection, "marginals", "potentials")
    targets = PARSE.targets.to_batch(rows, 1.0)
    loss = loss_settings("structural", divergence=divergence, alpha=0.4).teacher_loss
    assert loss is not None
    known = {"reverse_kl": reverse_kl, "jeffreys": jeffreys, "renyi": lambda s, t: renyi(s, t, 0.4)}
    torch.testing.assert_close(
        loss(student, targets), known[divergence](student, teacher), rtol=1e-4, atol=1e-4
    )


def test_targets_of_a_softmax_teacher_for_a_crf_are_conditioned_on_valid_labels() -> None:
    """Eq. 8 gives mass to label pairs that a constrained student forbids: its loss would be near 1e4."""
    teacher, student = tokens(1), chain(30)
    rows = stored(teacher, LinearChain, "marginals")
    targets = NER.targets.to_batch(rows, 1.0)
    loss = loss_settings("structural").teacher_loss
    assert loss is not None
    assert loss(student, targets).max() < 100
    transitions, _, _ = constraint_scores(LABELS)
    assert targets.marginals.transitions[:, transitions < 0].abs().max() == 0
    lost = NER.targets.lost_mass(rows["marginals"])
    assert lost is not None
    assert 0 < lost < 1


@pytest.mark.parametrize("family", [LinearChain, TokenSoftmax])
def test_the_targets_of_a_mixture_are_the_mean_of_its_components_marginals(family: type) -> None:
    parts = [chain(1), spans(2)]
    mixture = Mixture(parts, torch.tensor([0.5, 0.5]))
    together = NER.targets.to_batch(stored(mixture, family, "marginals"), 1.0)
    apart = [NER.targets.to_batch(stored(part, family, "marginals"), 1.0) for part in parts]
    first, second, both = (
        targets.marginals.tokens if family is LinearChain else targets.marginals
        for targets in (*apart, together)
    )
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-4, atol=1e-6, check_dtype=False)
    assert together.entropy is None


def test_an_objective_adds_pseudo_gold_or_takes_the_mean() -> None:
    assert loss_settings("structural+top1").pseudo_gold_loss is not None
    assert loss_settings("top1").pseudo_gold_loss is None
    assert loss_settings("none").teacher_loss is None
    teacher, student = chain(1), chain(30)
    targets = NER.targets.to_batch(stored(teacher, LinearChain, "marginals", "topwk"), 1.0)
    names = ("posterior+topwk", "posterior", "topwk")
    both, one, other = (loss_settings(name).teacher_loss for name in names)
    assert both is not None
    assert one is not None
    assert other is not None
    expected = (one(student, targets) + other(student, targets)) / 2
    torch.testing.assert_close(both(student, targets), expected)


@pytest.mark.parametrize(
    "name", ["none+structural", "none+token+top1", "top1+top1", "token+structural", "best"]
)
def test_combinations_that_mean_nothing_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match=r"combined|unknown"):
        loss_settings(name)


def test_top1_of_the_paper_is_gold_where_there_is_any_and_the_teachers_best_elsewhere() -> None:
    top1 = loss_settings("none+top1")
    assert top1.teacher_loss is None
    assert top1.pseudo_gold_loss is not None
    assert top1.contents == ("marginals",)
    assert not top1.by_token_teacher


def test_token_and_top1_both_come_from_the_softmax_teacher() -> None:
    both = loss_settings("token+top1")
    assert both.by_token_teacher
    assert both.pseudo_gold_loss is not None
    assert is_for("token+top1", TokenSoftmax)
    assert not is_for("token+top1", LinearChain)


def test_objectives_of_one_family_are_for_no_other() -> None:
    assert is_for("posterior", LinearChain)
    assert not is_for("posterior", TokenSoftmax)
    assert not is_for("posterior+topwk", TokenSoftmax)
    assert is_for("token", TokenSoftmax)
    assert all(is_for(name, HeadSelection) for name in OBJECTIVES if name not in ("posterior", "token"))
