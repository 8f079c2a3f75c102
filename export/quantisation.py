"""int8: the check that a graph really has it, and its loss on a corpus."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from structural_kd.predictor import Predictor
from train.corpora import Sentence
from train.metrics import attachment_scores, entity_scores
from train.recipe import load_recipe
from train.splits import load_splits

BOUND = 0.5
"""Points of F1 or LAS that int8 may cost unless the user sets another bound."""


class QuantisationError(RuntimeError):
    """int8 costs more than was allowed, or the graph is not int8; the bundle is not written."""


def check_quantised(graph: onnx.ModelProto, layers: int) -> None:
    """Make sure that every LSTM of a graph multiplies its states in int8, in both directions.

    Raises:
        QuantisationError: a loop with gates has a product of floats, or another number of products than two.
    """
    recurrent = [body for body in _loops(graph.graph) if any(n.op_type == "Sigmoid" for n in body.node)]
    if len(recurrent) != layers:
        raise QuantisationError(f"the graph has {len(recurrent)} LSTM layers, the model {layers}")
    for body in recurrent:
        operators = [node.op_type for node in body.node]
        floats = [name for name in operators if name in ("Gemm", "MatMul", "LSTM")]
        if floats or operators.count("MatMulInteger") != 2:
            raise QuantisationError(
                f"an LSTM layer has {operators.count('MatMulInteger')} products of integers and "
                f"{len(floats)} of floats; expected 2 and 0"
            )


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
