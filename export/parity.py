"""Parity: a bundle's answers against those of the torch model, on the same inputs.

A decision may differ only where torch itself finds the two equally good, up to the tolerance; such ties are
counted, and too many of them are refused as well.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from structural_kd.decoding import SpanReader, complete_trees
from structural_kd.graph_io import GraphInputs
from structural_kd.predictor import Predictor
from structural_kd.results import ParsedSentence, TaggedSentence
from train.models.batch import Batch, pad_rows
from train.models.encoders import Encoder, encode
from train.models.taggers import CRFTagger, SoftmaxTagger
from train.models.words import WordTypes
from train.structs import HeadSelection, LinearChain, TokenSoftmax

TOLERANCE = 1e-4
"""Most that a score may differ, and that a decision may be worse in log-probability."""

MOST_TIES = 0.005
"""Share of sentences in which a tie may be broken the other way."""

LONGEST = 60
BATCH = 32


class ParityError(RuntimeError):
    """A bundle does not answer as its model; it is not written."""


@dataclass
class Parity:
    """How many sentences were compared, ties broken the other way, and the largest difference of a score."""

    sentences: int = 0
    ties: int = 0
    difference: float = 0.0

    def add(self, *differences: float) -> None:
        # A NaN has to survive here: it is not at most the tolerance.
        self.difference = float(np.max(np.abs([self.difference, *differences])))

    def check(self, what: str) -> None:
        """Raises `ParityError` where there are too many ties or a score differs by too much."""
        if not self.difference <= TOLERANCE:
            raise ParityError(f"{what}: a score differs by {self.difference:.2g}, allowed are {TOLERANCE:g}")
        if self.ties > MOST_TIES * max(self.sentences, 1 / MOST_TIES):
            raise ParityError(f"{what}: {self.ties} of {self.sentences} sentences differ, if only by ties")


def on_random_inputs(model: Any, predictor: Predictor, *, count: int = 1000, seed: int = 0) -> Parity:
    """Compare on standard normal features of sentences of 1 to 60 tokens.

    Raises:
        ParityError: the bundle's answer is another, or a score differs by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    context = model.representation.context
    encoded_size = model.representation.encoded_size
    parity = Parity()
    with context_alone(model):
        for first in range(0, count, BATCH):
            lengths = rng.integers(1, LONGEST + 1, min(BATCH, count - first))  # [B]
            shape = (len(lengths), int(lengths.max()))
            features = rng.standard_normal((*shape, context.input_size), np.float32)  # [B, n, E + D]
            encoded, own = np.split(features, [encoded_size], axis=2)
            given = GraphInputs(
                rows=own.reshape(-1, own.shape[2]) @ predictor.words.weight + predictor.words.bias,
                words=np.arange(np.prod(shape)).reshape(shape),
                lengths=lengths,
                encoded=encoded if encoded_size else None,
            )
            batch = Batch(
                words=torch.zeros(shape, dtype=torch.int64),
                lengths=torch.from_numpy(lengths),
                sentences=(),
                encoded=torch.from_numpy(features),
            )
            _compare(model, batch, predictor.decode(predictor.run(given), lengths), parity)
    parity.check(f"{predictor.manifest.name}, random inputs")
    return parity


def on_sentences(
    model: nn.Module,
    predictor: Predictor,
    sentences: Sequence[Sequence[str]],
    types: WordTypes,
    encoder: Encoder | None = None,
) -> Parity:
    """Compare from words to answers, through word table and encoder; the words are among ``types``.

    Raises:
        ParityError: as `on_random_inputs`.
    """
    settings = predictor.manifest.encoder
    parity = Parity()
    for first in range(0, len(sentences), BATCH):
        some = sentences[first : first + BATCH]
        encoded = None
        if settings is not None and not settings.finetuned:
            if encoder is None:
                raise ValueError(f"{predictor.manifest.name} needs an encoder, and none was given")
            encoded = pad_rows([rows.float() for rows in encode(encoder, some, layers=settings.layers)])
        batch = Batch(
            words=pad_rows([torch.from_numpy(types.ids(words)) for words in some]).long(),
            lengths=torch.tensor([len(words) for words in some]),
            sentences=tuple(some),
            encoded=encoded,
        )
        _compare(model, batch, predictor.predict(some), parity)
    parity.check(f"{predictor.manifest.name}, sentences")
    return parity


def _compare(model: Any, batch: Batch, results: Sequence[Any], parity: Parity) -> None:
    compare = _compare_tags if isinstance(model, CRFTagger | SoftmaxTagger) else _compare_trees
    with torch.no_grad():
        compare(model, model(batch), results, parity)
    parity.sentences += len(results)


def _compare_tags(
    model: Any,  # CRFTagger or SoftmaxTagger
    distribution: LinearChain | TokenSoftmax,
    results: Sequence[TaggedSentence],
    parity: Parity,
) -> None:
    labels = model.decode(distribution)  # [B, n]
    index = {label: i for i, label in enumerate(model.labels)}
    found = pad_rows([torch.tensor([index[tag] for tag in result.tags]) for result in results])  # [B, n]
    if isinstance(distribution, LinearChain):
        chain = distribution
        tokens, pairs = chain.marginals()
    else:
        c = model.constraints
        log_probs = distribution.scores.log_softmax(-1)  # [B, n, L]
        chain = LinearChain(log_probs, c.transitions, c.start, c.end, distribution.lengths)
        tokens = log_probs.exp()
        pairs = tokens[:, :-1, :, None] * tokens[:, 1:, None]
    loss = chain.score(labels) - chain.score(found)  # [B] by how much the bundle's decision is worse
    spans = SpanReader(model.labels).spans(labels.numpy(), chain.lengths.numpy())
    expected: list[list[tuple[int, int, float]]] = [[] for _ in results]
    for sentence, start, end in zip(spans.sentence, spans.start, spans.end, strict=True):
        chosen = labels[sentence, start:end]  # [m]
        places = torch.arange(start, end)
        score = tokens[sentence, start, chosen[0]].double()
        score *= pairs[sentence, places[:-1], chosen[:-1], chosen[1:]].double().prod()
        score /= tokens[sentence, places[:-1], chosen[:-1]].double().prod()
        expected[sentence].append((int(start), int(end), float(score)))
    for i, result in enumerate(results):
        if not torch.equal(labels[i], found[i]):
            _count_tie(float(loss[i]), "tags", parity)
            continue
        for entity, (start, end, score) in zip(result.entities, expected[i], strict=True):
            if (entity.start, entity.end) != (start, end):
                raise ParityError(f"an entity at {entity.start}..{entity.end} instead of {start}..{end}")
            parity.add(entity.score - score)


def _compare_trees(
    model: Any,  # BiaffineParser or SequenceLabellingParser
    distribution: HeadSelection,
    results: Sequence[ParsedSentence],
    parity: Parity,
) -> None:
    arcs, best = (table.numpy() for table in model.decode(distribution))  # [B, n, n+1] each
    log_probs = distribution.scores.flatten(2).log_softmax(-1).view_as(distribution.scores).numpy()
    lengths = distribution.lengths.numpy()
    heads, _ = complete_trees(arcs.argmax(-1), lengths, lambda broken: arcs[broken])  # [B, n]
    index = {relation: i for i, relation in enumerate(model.relations)}
    for i, (result, n) in enumerate(zip(results, lengths.tolist(), strict=True)):
        words = np.arange(n)
        found_heads = np.array(result.heads)
        if not np.array_equal(found_heads, heads[i, :n]):
            loss = arcs[i, words, heads[i, :n]].sum() - arcs[i, words, found_heads].sum()
            _count_tie(float(loss), "heads", parity)
            continue
        found = np.array([index[relation] for relation in result.deprels])
        of_arc = log_probs[i, words, found_heads]  # [n, R]
        relations = best[i, words, found_heads]
        if not np.array_equal(found, relations):
            _count_tie(float((of_arc[words, relations] - of_arc[words, found]).max()), "relations", parity)
            continue
        parity.add(*(np.array(result.scores) - np.exp(of_arc[words, relations])))


def _count_tie(loss: float, what: str, parity: Parity) -> None:
    if not abs(loss) <= TOLERANCE:
        raise ParityError(f"other {what}, which torch finds worse by {loss:.2g} nats")
    parity.ties += 1


@contextmanager
def context_alone(model: Any) -> Iterator[None]:
    """Makes a model read its word features from ``batch.encoded``, in place of computing them."""
    representation = model.representation
    model.representation = _Context(representation.context)
    try:
        yield
    finally:
        model.representation = representation


class _Context(nn.Module):
    """The contexts of the features [B, n, E + D] in the batch."""

    def __init__(self, context: nn.Module) -> None:
        super().__init__()
        self.context = context

    def forward(self, batch: Batch) -> Tensor:
        return self.context(batch.encoded, batch.lengths)
