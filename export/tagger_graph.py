"""Taggers as ONNX graphs: emissions, Viterbi and the exact posterior of the decision.

A sentence is read as a chain with one more label, the boundary: it stands before the first token and on all
padding. Start and end scores are then transitions from and to it, sentences of mixed lengths need no masks
inside the loops, and padding falls out as the boundary label.
"""

import numpy as np
import onnx
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Var, build
from torch import nn

from export.layers import (
    axis,
    bidirectional,
    constant,
    inputs,
    linear,
    loop,
    lstm_of,
    positions,
    size_of,
    weights,
)
from train.models.taggers import CRFTagger, SoftmaxTagger

NEVER = -1e9
"""The emission of the boundary on a token, and of a label on padding."""

TINY = 1e-290
"""The least mass of a label beside its position's best one, so that no sum is zero: −667 nats."""


def crf_graph(model: CRFTagger) -> onnx.ModelProto:
    """Words to the labels of the best sequence under the CRF and that decision's posterior.

    Inputs: ``words`` [batch, tokens, D] float32, ``lengths`` [batch] int64. Outputs, 0 on padding:
    ``labels`` [batch, tokens] int64, ``token_log_probs`` log P(y_i | x) and ``pair_log_probs``
    log P(y_{i−1}, y_i | x) of the labels chosen, [batch, tokens] float32 (the first pair is 0).
    The posterior is computed by the scaled forward and backward recursions (Rabiner 1989) in float64.
    """
    words, lengths = inputs(lstm_of(model.representation).input_size)
    emissions, inside = _emissions(model, words, lengths)  # [n, B, L+1], [n, B]
    c = model.constraints
    transitions = _with_boundary(
        weights(model.transitions + c.transitions), weights(model.start + c.start), weights(model.end + c.end)
    )
    labels = _viterbi(emissions, transitions)  # [n, B]
    tokens, pairs = _posterior(emissions, transitions, labels)  # [n, B] each
    return _outputs(words, lengths, inside, labels, tokens, pairs)


def softmax_graph(model: SoftmaxTagger) -> onnx.ModelProto:
    """As `crf_graph`: the best valid BIOES sequence under independent softmaxes.

    Its posteriors are the softmaxes' own, so that a pair's is the product of its tokens'.
    """
    words, lengths = inputs(lstm_of(model.representation).input_size)
    emissions, inside = _emissions(model, words, lengths, normalised=True)  # [n, B, L+1], [n, B]
    c = model.constraints
    transitions = _with_boundary(weights(c.transitions), weights(c.start), weights(c.end))
    labels = _viterbi(emissions, transitions)  # [n, B]
    tokens = _chosen(emissions, labels)  # [n, B]
    return _outputs(words, lengths, inside, labels, tokens, op.add(tokens, _previous(tokens, 0.0)))


def _with_boundary(
    transitions: NDArray[np.float32], start: NDArray[np.float32], end: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Transitions [L, L], start [L] and end [L] as one table [L+1, L+1], the boundary last."""
    boundary = np.zeros(1, np.float32)
    return np.vstack([np.column_stack([transitions, end]), np.concatenate([start, boundary])])


def _emissions(
    model: CRFTagger | SoftmaxTagger, words: Var, lengths: Var, *, normalised: bool = False
) -> tuple[Var, Var]:
    """Emissions with the boundary's [n, B, L+1], and which positions are tokens [n, B]."""
    states = bidirectional(lstm_of(model.representation), words, lengths, time_major=True)  # [n, B, 2H]
    layer: nn.Linear = model.emissions
    weight, bias = weights(layer.weight), weights(layer.bias)
    # The boundary's scores are one more row of the layer.
    weight = np.vstack([weight, np.zeros_like(weight[:1])])
    emissions = linear(states, weight, np.append(bias, np.float32(NEVER)))  # [n, B, L+1]
    if normalised:
        emissions = op.log_softmax(emissions, axis=-1)
    place = op.unsqueeze(positions(size_of(words, 1)), axis(1))  # [n, 1]
    inside = op.less(place, lengths)  # [n, B]
    padding = np.append(np.full(len(bias), NEVER, np.float32), np.float32(0))  # [L+1]
    return op.where(op.unsqueeze(inside, axis(2)), emissions, constant(padding)), inside


def _viterbi(emissions: Var, transitions: NDArray[np.float32]) -> Var:
    """The best label sequence: emissions [n, B, L+1] -> [n, B] int64, the boundary on padding."""
    size = len(transitions)
    boundary = size - 1
    table, into = constant(transitions), constant(np.ascontiguousarray(transitions.T))
    tokens = size_of(emissions, 0)
    last = op.sub(tokens, op.const(np.int64(1)))

    def forward(i: Var, best: Var) -> tuple[Var, Var]:
        reached = op.add(op.unsqueeze(best, axis(2)), table)  # [B, from, to]
        best = op.add(op.reduce_max(reached, axis(1), keepdims=0), op.gather(emissions, i))  # [B, to]
        return best, best

    def backward(i: Var, label: Var) -> tuple[Var, Var]:
        # At the first position this reads the last one, index −1, and nothing uses what it finds.
        before = op.gather(best, op.sub(last, op.add(i, op.const(np.int64(1)))))  # [B, from]
        return leading_to(before, op.gather(into, label)), label

    def leading_to(before: Var, scores: Var) -> Var:
        return op.arg_max(op.add(before, scores), axis=1, keepdims=0)  # [B, from] -> [B]

    start = np.where(np.arange(size) == boundary, 0, NEVER).astype(np.float32)  # [L+1]
    best = loop(tokens, _for_each(emissions, start), forward)  # [n, B, L+1]
    # The boundary follows the last position. This reads ``best`` outside of the loop, which also keeps spox
    # from computing it inside, anew at every step.
    label = leading_to(op.gather(best, last), op.gather(into, op.const(np.int64(boundary))))  # [B]
    return _reversed(loop(tokens, label, backward))  # [n, B]


def _posterior(emissions: Var, transitions: NDArray[np.float32], labels: Var) -> tuple[Var, Var]:
    """log P(y_i) and log P(y_{i−1}, y_i) of the labels given, [n, B] each.

    Forward and backward messages run in one loop, one batched matrix product a position.
    """
    size = len(transitions)
    shifted = op.sub(emissions, op.reduce_max(emissions, axis(2)))  # [n, B, L+1]
    weight = op.exp(op.cast(shifted, to=np.float64))  # [n, B, L+1]
    both_ways = op.concat(
        [op.unsqueeze(weight, axis(1)), op.unsqueeze(_reversed(weight), axis(1))], axis=1
    )  # [n, 2, B, L+1]
    table = np.exp(transitions.astype(np.float64))
    tables = constant(np.stack([table, table.T]))  # [2, from, to]
    tiny = op.const(np.float64(TINY))

    def step(i: Var, mass: Var) -> tuple[Var, Var]:
        message = op.matmul(mass, tables)  # [2, B, L+1]
        mass = op.max([op.mul(message, op.gather(both_ways, i)), tiny])  # [2, B, L+1]
        return op.div(mass, op.reduce_sum(mass, axis(2))), message

    start = (np.arange(size) == size - 1).astype(np.float64)  # [L+1], all mass on the boundary
    messages = loop(size_of(emissions, 0), _for_each(both_ways, start), step)  # [n, 2, B, L+1]
    ahead, behind = (op.squeeze(part, axis(1)) for part in op.split(messages, axis=1, num_outputs=2))
    behind = _reversed(behind)  # [n, B, L+1]

    mass = op.max([op.mul(ahead, weight), tiny])  # [n, B, L+1] forward, not yet scaled to 1
    joint = op.mul(mass, behind)  # [n, B, L+1] ∝ P(y_i)
    total = _log(op.reduce_sum(joint, axis(2), keepdims=0))  # [n, B]
    tokens = op.sub(_log(_chosen(joint, labels)), total)
    scale = _log(op.reduce_sum(mass, axis(2), keepdims=0))
    before = _previous(op.sub(_log(_chosen(mass, labels)), scale), 0.0)  # log of the forward mass of y_{i−1}
    moves = op.add(op.mul(_previous(labels, size - 1), op.const(np.int64(size))), labels)
    moved = op.gather(constant(transitions.ravel().astype(np.float64)), moves)
    here = op.add(op.cast(_chosen(shifted, labels), to=np.float64), _log(_chosen(behind, labels)))
    pairs = op.sub(op.add(op.add(before, moved), here), total)
    zero = op.const(np.float64(0))
    return tuple(op.cast(op.min([x, zero]), to=np.float32) for x in (tokens, pairs))  # type: ignore[return-value]


def _for_each(table: Var, row: NDArray) -> Var:
    """The row [L+1] for each row at the first position: [n, …, L+1] -> […, L+1]."""
    zero = op.cast_like(op.const(np.float32(0)), table)
    return op.add(op.mul(op.gather(table, op.const(np.int64(0))), zero), op.const(row))


def _log(x: Var) -> Var:
    return op.log(op.max([x, op.const(np.float64(1e-300))]))


def _chosen(table: Var, labels: Var) -> Var:
    """The entry of the label at each position: [n, B, L+1], [n, B] -> [n, B]."""
    return op.squeeze(op.gather_elements(table, op.unsqueeze(labels, axis(2)), axis=2), axis(2))


def _reversed(x: Var) -> Var:
    """[n, …] from the last position to the first."""
    return op.slice(x, axis(-1), axis(np.iinfo(np.int64).min), axis(0), axis(-1))


def _previous(x: Var, first: float) -> Var:
    """At each position the value of the one before: [n, B] -> [n, B]."""
    fill = op.cast_like(op.const(np.float64(first)), x)
    before = op.pad(x, axis(1, 0, 0, 0), fill)  # [n+1, B]
    return op.slice(before, axis(0), axis(-1), axis(0))


def _outputs(words: Var, lengths: Var, inside: Var, labels: Var, tokens: Var, pairs: Var) -> onnx.ModelProto:
    """The graph, with batch first and zeros on padding; the first pair has no token before it."""
    zero = op.const(np.float32(0))
    first = op.equal(positions(size_of(words, 1)), op.const(np.int64(0)))  # [n]
    within = op.and_(inside, op.unsqueeze(op.not_(first), axis(1)))  # [n, B]
    outputs = {
        "labels": op.where(inside, labels, op.const(np.int64(0))),
        "token_log_probs": op.where(inside, tokens, zero),
        "pair_log_probs": op.where(within, pairs, zero),
    }
    return build(
        {"words": words, "lengths": lengths},
        {name: op.transpose(value, perm=[1, 0]) for name, value in outputs.items()},
    )
