from dataclasses import replace

import numpy as np
import pytest
import torch

from structural_kd.trees import RelativeLabel
from train.distill.objectives import loss_settings
from train.distill.projection import project
from train.distill.target_store import Content, TargetHeader, TargetRow
from train.models.batch import Batch
from train.models.card import ModelCard, build_model
from train.models.parsers import SequenceLabellingParser
from train.models.words import WordTypes
from train.structs import ArcStatistics, HeadSelection
from train.tasks import parse_targets
from train.tasks.parse import TreeTask

RELATIONS = ("nsubj", "obj", "root")
LENGTHS = (1, 2, 5, 7)
HEADER = TargetHeader("parse", "HeadSelection", "", "", RELATIONS, 1.0, len(LENGTHS))


@pytest.fixture
def teacher() -> HeadSelection:
    scores = 2 * torch.randn(4, 7, 8, 3, generator=torch.Generator().manual_seed(0))
    return HeadSelection(scores, torch.tensor(LENGTHS))


def labeller(labels: list[RelativeLabel]) -> SequenceLabellingParser:
    types = WordTypes(["a"], torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64), ["a"])
    card = ModelCard(
        task="parse", kind="labeller", role="student", language="xx", labels=RELATIONS,
        relative_labels=tuple(labels), hidden_size=4,
    )  # fmt: skip
    model = build_model(card, types)
    assert isinstance(model, SequenceLabellingParser)
    return model


def dense(arcs: ArcStatistics) -> torch.Tensor:
    table = torch.zeros(4, 7, 8, 3)
    table[arcs.sentence, arcs.dependent, arcs.head, arcs.relation] = arcs.probability
    return table


def allowed(labels: list[RelativeLabel]) -> torch.Tensor:
    """The arcs a closed label set can express: [1, n, n+1, R]."""
    table = torch.zeros(1, 7, 8, 3)
    for token in range(7):
        for offset, relation in labels:
            head = 0 if offset == 0 else token + 1 + offset
            if 0 <= head <= 7 and (offset == 0 or head > 0):
                table[0, token, head, RELATIONS.index(relation)] = 1
    return table


def test_the_store_keeps_the_marginals_of_every_arc_that_matters(teacher: HeadSelection) -> None:
    task = TreeTask(RELATIONS)
    rows = task.targets.to_rows(teacher, HeadSelection, HEADER)
    targets = task.targets.to_batch({"marginals": rows}, temperature=1.0)
    marginals = project(teacher, onto=HeadSelection)
    torch.testing.assert_close(dense(targets.marginals), marginals, rtol=1e-4, atol=parse_targets.LOST_MASS)
    best = teacher.argmax()
    assert torch.equal(targets.best.heads, best.heads)
    assert torch.equal(targets.best.relations, best.relations)


@pytest.mark.parametrize("seed", range(5))
def test_a_closed_label_set_gets_the_restricted_marginals_and_the_rest_is_reported_as_lost(
    teacher: HeadSelection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(parse_targets, "LOST_MASS", 0.0)
    generator = np.random.default_rng(seed)
    everything = [(offset, relation) for offset in range(-6, 7) for relation in RELATIONS]
    labels = [everything[i] for i in sorted(generator.choice(len(everything), 9, replace=False))]
    task = TreeTask(RELATIONS)
    rows = task.targets.to_rows(teacher, HeadSelection, HEADER)
    targets = task.targets.to_batch({"marginals": rows}, temperature=1.0, closed=labels)
    kept = project(teacher, onto=HeadSelection) * allowed(labels)  # [B, n, n+1, R]
    mass = kept.sum((2, 3), keepdim=True)  # [B, n, 1, 1]
    renormalised = torch.where(mass > 0, kept / mass, 0.0)
    torch.testing.assert_close(dense(targets.marginals), renormalised, rtol=1e-4, atol=1e-6)
    assert targets.expressible is not None
    assert torch.equal(targets.expressible, mass[:, :, 0, 0] > 0)
    lost = 1 - float(mass.sum()) / sum(LENGTHS)
    assert task.targets.lost_mass(rows, labels) == pytest.approx(lost, abs=1e-5)


@pytest.mark.parametrize("content", ["topk", "topwk"])
def test_a_closed_label_set_can_not_lower_its_k_best_loss_by_a_shift(
    teacher: HeadSelection, content: Content
) -> None:
    """A token none of whose k best arcs it has must drop out of log Z too."""
    labels = [(0, "root"), (-1, "obj")]
    task, model = TreeTask(RELATIONS), labeller(labels)
    rows: dict[Content, list[TargetRow]] = {
        "marginals": task.targets.to_rows(teacher, HeadSelection, HEADER),
        content: task.targets.to_rows(teacher, HeadSelection, replace(HEADER, content=content, k=2)),  # type: ignore[arg-type]
    }
    targets = task.targets.to_batch(rows, temperature=1.0, closed=labels)
    loss = loss_settings(content).teacher_loss
    assert loss is not None
    words = torch.zeros(4, 7, dtype=torch.int64)
    with torch.no_grad():
        student = model(Batch(words, torch.tensor(LENGTHS), (("a",) * 7,) * 4))
        shifted = student.with_potentials([student.scores - 100.0])
        torch.testing.assert_close(loss(shifted, targets), loss(student, targets), rtol=1e-3, atol=1e-3)


def test_decoded_heads_are_trees_over_the_closed_label_set() -> None:
    model = labeller([(0, "root"), (-1, "obj"), (1, "nsubj"), (2, "nsubj")])
    types = torch.zeros(1, 6, dtype=torch.int64)
    with torch.no_grad():
        distribution = model(Batch(types, torch.tensor([6]), (("a",) * 6,)))
    ((heads, relations),) = TreeTask(RELATIONS).decode(model, distribution)
    assert heads.count(0) == 1
    assert set(relations) <= set(RELATIONS)
