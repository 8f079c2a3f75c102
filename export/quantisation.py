"""int8: the check that a graph really has it, and its loss on a corpus."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from export.convolution import WIDTH
from structural_kd.predictor import Predictor
from train.corpora import Sentence
from train.metrics import attachment_scores, entity_scores
from train.models.card import ModelCard
from train.models.representation import ContextKind
from train.recipe import load_recipe
from train.splits import load_splits

BOUND = 0.5
"""Points of F1 or LAS that int8 may cost unless the user sets another bound."""


class QuantisationError(RuntimeError):
    """int8 costs more than was allowed, or the graph is not int8; the bundle is not written."""


def check_quantised(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Make sure that the context of a model multiplies its states in int8 everywhere.

    Raises:
        QuantisationError: it has a product of floats, or another number of products than its card says.
    """
    _CHECKS[card.context](graph.graph, card)


def _check_lstm(graph: onnx.GraphProto, card: ModelCard) -> None:
    """Two products in each loop with gates, one a direction."""
    recurrent = [body for body in _loops(graph) if any(n.op_type == "Sigmoid" for n in body.node)]
    if len(recurrent) != card.layers:
        raise QuantisationError(f"the graph has {len(recurrent)} LSTM layers, the model {card.layers}")
    for body in recurrent:
        operators = [node.op_type for node in body.node]
        _check_counts("an LSTM layer", operators, 2)


def _check_convolutions(graph: onnx.GraphProto, card: ModelCard) -> None:
    """One product a layer, told by the shape of its weight."""
    size = card.hidden_size
    kernels = {tensor.name for tensor in graph.initializer if list(tensor.dims) == [WIDTH * size, size]}
    operators = [node.op_type for node in graph.node if kernels & set(node.input[1:2])]
    _check_counts("the convolutions", operators, len(card.dilations))


def _check_counts(what: str, operators: Sequence[str], expected: int) -> None:
    integers = operators.count("MatMulInteger")
    floats = sum(name in ("Gemm", "MatMul", "LSTM") for name in operators)
    if (integers, floats) != (expected, 0):
        raise QuantisationError(
            f"{integers} products of integers and {floats} of floats in {what}; expected {expected} and 0"
        )


_CHECKS: dict[ContextKind, Callable[[onnx.GraphProto, ModelCard], None]] = {
    "lstm": _check_lstm,
    "convolution": _check_convolutions,
}


def _loops(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        if node.op_type == "Loop":
            yield next(attribute.g for attribute in node.attribute if attribute.name == "body")


def measure_loss(run: Path, task: str, exact: Predictor, quantised: Predictor) -> dict[str, dict[str, float]]:
    """The loss of int8 on the gold of a run's corpus: points of each split and metric that fp32 has more.

    Raises:
        QuantisationError: the corpus cannot be read any more, or has no gold.
    """
    try:
        splits = load_splits(load_recipe(run / "recipe.yaml"), quiet=True)
    except (OSError, ValueError) as error:
        raise QuantisationError(
            f"what int8 costs is measured on the run's corpus, which cannot be read: {error}"
        ) from error
    has_gold, score = SCORES[task]
    loss = {}
    for split, numbers in (("dev", splits.dev), ("test", splits.test)):
        sentences = [sentence for sentence in splits.select(numbers) if has_gold(sentence)]
        if sentences:
            words = [sentence.words for sentence in sentences]
            before, after = (score(sentences, which.predict(words)) for which in (exact, quantised))
            loss[split] = {metric: before[metric] - after[metric] for metric in before}
    if not loss:
        raise QuantisationError(
            f"{run}: neither dev nor test has gold for {task}, so what int8 costs is unknown"
        )
    return loss


def check_loss(loss: dict[str, dict[str, float]], task: str, bound: float) -> None:
    """Compare the main metric's loss on every split with the bound.

    Raises:
        QuantisationError: it is larger.
    """
    metric = MAIN_METRIC[task]
    for split, metrics in loss.items():
        if metrics[metric] > bound:
            raise QuantisationError(
                f"int8 costs {metrics[metric]:.2f} points of {metric.upper()} on {split}, allowed are "
                f"{bound:g}; serve the fp32 bundle, or allow more with --most-loss"
            )


def _score_entities(sentences: Sequence[Sentence], results: Sequence[Any]) -> dict[str, float]:
    return {"f1": entity_scores(sentences, [result.tags for result in results])["f1"]}


def _score_trees(sentences: Sequence[Sentence], results: Sequence[Any]) -> dict[str, float]:
    return attachment_scores(sentences, [(result.heads, result.deprels) for result in results])


Score = Callable[[Sequence[Sentence], Sequence[Any]], dict[str, float]]

SCORES: dict[str, tuple[Callable[[Sentence], bool], Score]] = {
    "ner": (lambda sentence: sentence.tags is not None, _score_entities),
    "parse": (lambda sentence: sentence.heads is not None, _score_trees),
}
MAIN_METRIC = {"ner": "f1", "parse": "las"}
