"""The four parsers over one representation: what they return, how they decode, and that they learn."""

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.tiny import sentence
from train.corpora import Sentence
from train.models.batch import Batch, pad_rows
from train.models.card import ModelCard, build_model, load_trained, read_card, save_trained
from train.models.words import WordTypes
from train.structs import (
    HeadSelection,
    LabelledHeads,
    MatrixTree,
    ProjectiveTree,
    SecondOrderHeads,
    StructuredDistribution,
)
from train.tasks.parse import TreeTask

FAMILIES: dict[str, type[StructuredDistribution]] = {
    "biaffine": HeadSelection,
    "matrix_tree": MatrixTree,
    "projective_tree": ProjectiveTree,
    "second_order": SecondOrderHeads,
}
KINDS = tuple(FAMILIES)


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    made = []
    for number in range(24):
        words, heads, relations, _ = zip(*sentence(number), strict=True)
        made.append(Sentence(tuple(words), heads=tuple(heads), deprels=tuple(relations)))
    return made


@pytest.fixture(scope="module")
def task(sentences: list[Sentence]) -> TreeTask:
    return TreeTask.of(sentences)


@pytest.fixture(scope="module")
def types(sentences: list[Sentence]) -> WordTypes:
    words = sorted({word for s in sentences for word in s.words})
    letters = string.ascii_letters + "."
    spelled = [torch.tensor([letters.index(letter) + 1 for letter in word]) for word in words]
    vectors = torch.randn(len(words) + 1, 8, generator=torch.Generator().manual_seed(0))
    vectors[0] = 0
    characters = pad_rows([torch.zeros(0, dtype=torch.int64), *spelled])
    return WordTypes(words, vectors, characters, list(letters))


@pytest.fixture(scope="module")
def batch(sentences: list[Sentence], types: WordTypes) -> Batch:
    words = pad_rows([torch.from_numpy(types.ids(s.words)) for s in sentences])
    lengths = torch.tensor([len(s.words) for s in sentences])
    return Batch(words, lengths, tuple(s.words for s in sentences))


def card(kind: str, labels: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        task="parse", kind=kind, role="teacher", language="xx", labels=labels,  # type: ignore[arg-type]
        hidden_size=16, dropout=0.0, character_dim=4, character_features=6, arc_size=12, relation_size=12,
        second_order_size=6,
    )  # fmt: skip


def parser(kind: str, task: TreeTask, types: WordTypes) -> Any:
    torch.manual_seed(1)
    return build_model(card(kind, task.labels), types)


@pytest.mark.parametrize("kind", KINDS)
def test_a_parser_learns_a_toy_corpus_by_the_likelihood_of_its_trees(
    kind: str, sentences: list[Sentence], task: TreeTask, types: WordTypes, batch: Batch
) -> None:
    model = parser(kind, task, types)
    gold = task.gold(sentences)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = -model(batch).log_prob(gold).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
    with torch.no_grad():
        distribution = model.eval()(batch)
    found = task.counts(sentences, task.decode(model, distribution))
    assert task.scores_of(found)["las"] == 100.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_parser_returns_the_family_its_kind_names(
    kind: str, task: TreeTask, types: WordTypes, batch: Batch
) -> None:
    distribution = parser(kind, task, types)(batch)
    assert type(distribution) is FAMILIES[kind]
    assert distribution.marginals().shape == (24, 6, 7, len(task.labels))


@pytest.mark.parametrize("kind", ["matrix_tree", "projective_tree"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_decoding_gives_the_most_probable_tree_of_the_family(
    kind: str, scale: float, task: TreeTask, types: WordTypes
) -> None:
    model = parser(kind, task, types)
    generator = torch.Generator().manual_seed(3)
    relations = len(task.labels)
    distribution = model.family(
        arcs=scale * torch.randn(40, 6, 7, generator=generator),
        relations=scale * torch.randn(40, 6, 7, relations, generator=generator),
        lengths=torch.arange(40) % 6 + 1,
    )
    trees = task.decode(model, distribution)
    found = LabelledHeads(
        pad_rows([torch.tensor(heads) for heads, _ in trees]),
        pad_rows([torch.tensor([task.labels.index(kind) for kind in kinds]) for _, kinds in trees]),
    )
    best = distribution.argmax()
    assert distribution.contains(found).all()
    torch.testing.assert_close(distribution.score(found), distribution.score(best))
    arcs, _ = model.decode(distribution)
    assert torch.isfinite(arcs).all()
    assert (arcs <= 0).all()


def test_second_order_parsing_starts_as_first_order_parsing_and_then_learns_its_pairs(
    sentences: list[Sentence], task: TreeTask, types: WordTypes, batch: Batch
) -> None:
    model = parser("second_order", task, types)
    distribution = model(batch)
    first = HeadSelection(distribution.first_order, batch.lengths)
    torch.testing.assert_close(distribution.marginals(), first.marginals())
    (-distribution.log_prob(task.gold(sentences)).mean()).backward()
    for pairs in (model.siblings, model.grandparents):
        assert (pairs.weight.grad != 0).any()


def test_a_trilinear_score_is_its_sum_over_the_factors(task: TreeTask, types: WordTypes) -> None:
    scorer = parser("second_order", task, types).siblings
    with torch.no_grad():
        scorer.weight.uniform_(-1, 1)
        states = torch.randn(2, 3, scorer.first.in_features, generator=torch.Generator().manual_seed(0))
        heads = torch.randn(2, 4, scorer.first.in_features, generator=torch.Generator().manual_seed(1))
        a, b, c = (
            torch.nn.functional.leaky_relu(torch.nn.functional.linear(x, layer.weight, layer.bias), 0.1)
            for layer, x in ((scorer.first, states), (scorer.second, states), (scorer.third, heads))
        )
        expected = torch.einsum("s,bis,bks,bhs->bikh", scorer.weight, a, b, c)
        torch.testing.assert_close(scorer(states, states, heads), expected)


def test_padding_does_not_change_a_sentence(task: TreeTask, types: WordTypes, batch: Batch) -> None:
    for kind in KINDS:
        model = parser(kind, task, types).eval()
        if kind == "second_order":
            torch.nn.init.normal_(model.siblings.weight)
            torch.nn.init.normal_(model.grandparents.weight)
        short = int(batch.lengths.argmin())
        n = int(batch.lengths[short])
        alone = Batch(batch.words[short : short + 1, :n], batch.lengths[short : short + 1], ())
        with torch.no_grad():
            whole, single = model(batch), model(alone)
        torch.testing.assert_close(
            whole.marginals()[short, :n, : n + 1], single.marginals()[0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_parser_is_loaded_with_its_kind_and_scores(
    kind: str, tmp_path: Path, task: TreeTask, types: WordTypes, batch: Batch
) -> None:
    model = parser(kind, task, types).eval()
    save_trained(tmp_path, model, card(kind, task.labels))
    loaded = load_trained(tmp_path, types)
    with torch.no_grad():
        before, after = model(batch), loaded(batch)
    assert type(after) is FAMILIES[kind]
    torch.testing.assert_close(after.marginals(), before.marginals())


def test_a_card_written_before_second_order_parsers_is_still_read(
    tmp_path: Path, task: TreeTask, types: WordTypes
) -> None:
    old = card("biaffine", task.labels)
    save_trained(tmp_path, parser("biaffine", task, types), old)
    written = json.loads((tmp_path / "model.json").read_text())
    del written["card"]["second_order_size"]
    (tmp_path / "model.json").write_text(json.dumps(written))
    assert read_card(tmp_path)[0] == replace(old, second_order_size=64)
