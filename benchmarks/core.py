"""How fast the core of training is, against other ways to compute the same, on one thread.

    python -m benchmarks.core [--out reports/bench.json]

Times are CPU time of the process; ratios are of medians over rounds in which the contestants take turns.
Before anything is timed the contestants' answers are compared.

Inference: 32 sentences of 40 tokens. Each contestant computes what structural distillation needs: log Z, the
marginals of every part (a teacher's targets), and the gradient of Σ log Z by the scores (a student's step).

Epochs: a CRF student of the quickstart's size on sentences of ``he_htb``, whole steps from batch to update.
The supervised epoch learns from gold labels, the other from gold labels and a target store. The teacher is
not trained: the time does not depend on the targets' values.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.bench import REPORT, Bounds, conditions, cpu_seconds, merge, table, take_turns
from structural_kd.words import SubwordVectors
from train.batching import Dataset, TrainingBatch, shuffled
from train.corpora import load_corpus
from train.distill.loss import distillation_loss
from train.distill.objectives import loss_settings
from train.distill.target_store import TargetHeader, TargetStore
from train.models.card import ModelCard, build_model
from train.models.words import WordTypes, alphabet_of
from train.recipe import Training
from train.structs import LinearChain, SpanSet
from train.tasks import EntityTask
from train.trainer import CLIP

SENTENCES, TOKENS, LABELS, TYPES = 32, 40, 17, 9
ROUNDS = 11
TURN_SECONDS = 0.1
EPOCHS = 5
EPOCH_SENTENCES = 1000

REQUIRED: Bounds = {
    "chain_vs_torch_struct": ("at least", 30.0),
    "chain_vs_loop": ("at least", 2.0),
    "spanset_vs_chain": ("under", 3.0),
    "distill_epoch_vs_supervised": ("at most", 1.3),
}


class ChainScores(NamedTuple):
    """The input of every chain: leaves of the graph, so that each contestant gets gradients of its own."""

    emissions: Tensor  # [B, n, L]
    transitions: Tensor  # [L, L]
    lengths: Tensor  # [B]


class ChainAnswers(NamedTuple):
    """Computed by every chain."""

    log_partition: Tensor  # [B]
    pairs: Tensor  # [B, n-1, L, L] marginals of neighbouring labels
    emissions: Tensor  # [B, n, L] gradient of Σ log Z
    transitions: Tensor  # [L, L] the same


def chain(scores: ChainScores) -> ChainAnswers:
    emissions, transitions = _leaves(scores.emissions, scores.transitions)
    free = torch.zeros(emissions.shape[-1])
    distribution = LinearChain(emissions, transitions, free, free, scores.lengths)
    log_partition = distribution.log_partition()
    with torch.no_grad():
        pairs = distribution.marginals().pairs
    log_partition.sum().backward()
    return ChainAnswers(log_partition.detach(), pairs, _grad(emissions), _grad(transitions))


def loop(scores: ChainScores) -> ChainAnswers:
    """The forward recursion as it is written down: one logsumexp over [B, L, L] a position."""
    emissions, transitions = _leaves(scores.emissions, scores.transitions)
    batch, tokens, labels = emissions.shape
    pairs = transitions.expand(batch, tokens - 1, labels, labels)
    log_partition = loop_log_partition(emissions, pairs, scores.lengths)
    (marginals,) = torch.autograd.grad(log_partition.sum(), pairs, retain_graph=True)
    log_partition.sum().backward()
    return ChainAnswers(log_partition.detach(), marginals, _grad(emissions), _grad(transitions))


def loop_log_partition(emissions: Tensor, pairs: Tensor, lengths: Tensor) -> Tensor:
    """log Z of emissions [B, n, L] and transitions [B, n−1, L, L]: [B]."""
    unary = emissions.unbind(1)  # n × [B, L]
    alpha = unary[0]  # [B, L]
    for i, pair in enumerate(pairs.unbind(1), start=1):
        step = (alpha[:, :, None] + pair).logsumexp(1) + unary[i]  # [B, L]
        alpha = torch.where((i < lengths)[:, None], step, alpha)
    return alpha.logsumexp(-1)


def torch_struct_chain(scores: ChainScores) -> ChainAnswers:
    """LinearChainCRF of torch-struct (Rush 2020), whose parts are the pairs, later label first."""
    from torch_struct import LinearChainCRF

    emissions, transitions = _leaves(scores.emissions, scores.transitions)
    potentials = transitions.T + emissions[:, 1:, :, None]  # [B, n-1, L, L]
    first = potentials[:, :1] + emissions[:, :1, None]  # [B, 1, L, L]
    distribution = LinearChainCRF(torch.cat([first, potentials[:, 1:]], 1), scores.lengths)
    log_partition = distribution.partition
    pairs = distribution.marginals.detach().transpose(2, 3)
    log_partition.sum().backward()
    return ChainAnswers(log_partition.detach(), pairs, _grad(emissions), _grad(transitions))


def span_set(scores: Tensor, lengths: Tensor) -> None:
    """The same for a SpanSet over [B, n, n, L]."""
    (scores,) = _leaves(scores)
    distribution = SpanSet(scores, lengths)
    log_partition = distribution.log_partition()
    with torch.no_grad():
        distribution.marginals()
    log_partition.sum().backward()


def measure_inference() -> dict[str, float]:
    """Milliseconds of each contestant, and their ratios.

    Raises:
        AssertionError: the contestants disagree.
    """
    # torch-struct's distributions do not declare their arguments, and torch would warn of it at each.
    torch.distributions.Distribution.set_default_validate_args(False)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((SENTENCES,), TOKENS)
    scores = ChainScores(
        torch.randn(SENTENCES, TOKENS, LABELS, generator=generator),
        torch.randn(LABELS, LABELS, generator=generator),
        lengths,
    )
    spans = torch.randn(SENTENCES, TOKENS, TOKENS, TYPES, generator=generator)
    answers = chain(scores)
    for other in (loop, torch_struct_chain):
        torch.testing.assert_close(other(scores), answers, rtol=1e-4, atol=1e-4)
    contestants: dict[str, Callable[[], object]] = {
        "chain": lambda: chain(scores),
        "chain_loop": lambda: loop(scores),
        "span_set": lambda: span_set(spans, lengths),
        "torch_struct": lambda: torch_struct_chain(scores),
    }
    seconds = take_turns(contestants, ROUNDS, turn_seconds=TURN_SECONDS)
    return {f"{name}_ms": 1000 * value for name, value in seconds.items()} | {
        "chain_vs_torch_struct": seconds["torch_struct"] / seconds["chain"],
        "chain_vs_loop": seconds["chain_loop"] / seconds["chain"],
        "spanset_vs_chain": seconds["span_set"] / seconds["chain"],
    }


def measure_epochs() -> dict[str, float]:
    """Seconds of an epoch with gold labels alone and of one with structural targets too, and their ratio."""
    sentences = load_corpus("he_htb", merge_subtokens=True).train[:EPOCH_SENTENCES]
    task = EntityTask.of(sentences)
    settings = Training()
    words = sorted({word for sentence in sentences for word in sentence.words})
    vectors = SubwordVectors(
        words, np.random.default_rng(0).standard_normal((len(words), 100), np.float32), None, min_n=3, max_n=5
    )
    alphabet = alphabet_of(words, min_count=2)
    dataset = Dataset(sentences, WordTypes.build(words, vectors, alphabet))
    card = ModelCard("ner", "crf", "student", "he", task.labels, hidden_size=settings.hidden_size)

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(card, dataset.types).train()

    teacher = model(0).eval()
    header = TargetHeader("ner", "LinearChain", "untrained", "he_htb", task.labels, 1.0, len(sentences))

    @torch.no_grad()
    def targets(numbers: Sequence[int]) -> list[Any]:
        return [task.targets.to_rows(teacher(dataset.batch([i])), LinearChain, header)[0] for i in numbers]

    epoch: list[list[int]] = []
    for batch in shuffled(lambda g: g.permutation(len(sentences)), dataset.lengths, settings.batch_tokens, 0):
        epoch.append(batch)
        if sum(map(len, epoch)) >= len(sentences):
            break
    structural = loss_settings("structural", anneal=0.5)
    with tempfile.TemporaryDirectory() as folder:
        store = TargetStore(Path(folder), header)
        for shard, numbers in store.missing():
            store.write(shard, targets(numbers))
        supervised_model, distilled_model = model(1), model(1)

        def supervised(chosen: list[int]) -> Tensor:
            batch = dataset.batch(chosen)
            gold = task.gold([sentences[i] for i in chosen])  # [B, n]
            return -supervised_model(batch).log_prob(gold).sum() / batch.lengths.sum()

        def distilled(chosen: list[int]) -> Tensor:
            targets = task.targets.to_batch({"marginals": [store[i] for i in chosen]}, temperature=1.0)
            gold = task.gold([sentences[i] for i in chosen])  # [B, n]
            has_gold = torch.ones(len(chosen), dtype=torch.bool)  # [B]
            batch = TrainingBatch(chosen, dataset.batch(chosen), gold, has_gold, targets)
            return distillation_loss(distilled_model(batch.inputs), batch, 0.5, settings=structural)

        steps = {
            "supervised": _step(supervised_model, supervised, settings.learning_rate),
            "distill": _step(distilled_model, distilled, settings.learning_rate),
        }
        seconds: dict[str, list[list[float]]] = {name: [[] for _ in epoch] for name in steps}
        for _ in range(EPOCHS):
            for place, chosen in enumerate(epoch):
                for name, step in steps.items():
                    seconds[name][place].append(cpu_seconds(partial(step, chosen)))
    whole = {name: sum(median(step) for step in places) for name, places in seconds.items()}
    return {f"{name}_epoch_s": value for name, value in whole.items()} | {
        "distill_epoch_vs_supervised": whole["distill"] / whole["supervised"]
    }


def _step(
    model: nn.Module, loss: Callable[[list[int]], Tensor], learning_rate: float
) -> Callable[[list[int]], None]:
    """One step of training as ``train.trainer`` takes it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), eps=1e-8)

    def step(chosen: list[int]) -> None:
        value = loss(chosen)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return step


def _leaves(*scores: Tensor) -> tuple[Tensor, ...]:
    return tuple(theta.detach().requires_grad_() for theta in scores)


def _grad(theta: Tensor) -> Tensor:
    assert theta.grad is not None
    return theta.grad


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.core", description="How fast the core of training is."
    )
    parser.add_argument("--out", type=Path, default=REPORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        measured = conditions() | measure_inference() | measure_epochs()
        merge(options.out, measured)
    except ModuleNotFoundError as error:
        if error.name != "torch_struct":
            raise
        print("error: torch-struct is missing: run make bench, which installs it", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{table(measured, REQUIRED)}\n\nwritten: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
