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
from torch import Tensor, nn

from export.context import context_states, input_vars
from export.inputs import InputVars
from export.layers import axis, constant, loop, positions, reversed_rows, size_of, weights
from export.products import Product
from train.models.taggers import CRFTagger, SoftmaxTagger
from train.structs import FORBIDDEN

NEVER = -1e9
"""The emission of the boundary on a token, and of a label on padding."""

MANY_LABELS = 32
"""More labels than this, and moves that are forbidden are left out of the search."""

LEAST_MOVE = 1e-200
"""The least exponential of a transition, −460 nats: products with it stay far from denormal numbers."""

LEAST = 1e-300
"""The least argument of a logarithm."""

END = np.iinfo(np.int64).max

TINY = 1e-290
"""The least mass of a label beside its position's best one, so that no sum is zero: −667 nats."""


def crf_graph(model: CRFTagger, product: Product) -> onnx.ModelProto:
    """Words to the labels of the best sequence under the CRF and that decision's posterior.

    Inputs: see `export.inputs.InputVars`. Outputs, 0 on padding:
    ``labels`` [batch, tokens] int64, ``token_log_probs`` log P(y_i | x) and ``pair_log_probs``
    log P(y_{i−1}, y_i | x) of the labels chosen, [batch, tokens] float32 (the first pair is 0).
    The posterior is computed by the scaled forward and backward recursions (Rabiner 1989) in float64.
    """
    inputs = input_vars(model.representation)
    emissions, inside = _emissions(model, inputs, product)  # [n, B, L+1], [n, B]
    c = model.constraints
    transitions = _with_boundary(model.transitions + c.transitions, model.start + c.start, model.end + c.end)
    return _outputs(inputs, inside, *_decode(emissions, transitions))


def softmax_graph(model: SoftmaxTagger, product: Product) -> onnx.ModelProto:
    """As `crf_graph`: the best valid BIOES sequence under independent softmaxes.

    Its posteriors are the softmaxes' own, so that a pair's is the product of its tokens'.
    """
    inputs = input_vars(model.representation)
    emissions, inside = _emissions(model, inputs, product, normalised=True)  # [n, B, L+1], [n, B]
    c = model.constraints
    transitions = _with_boundary(c.transitions, c.start, c.end)
    labels = _viterbi(emissions, transitions)  # [n, B]
    tokens = _chosen(emissions, labels)  # [n, B]
    return _outputs(inputs, inside, labels, tokens, op.add(tokens, _previous(tokens, 0.0)))


def emissions_graph(model: CRFTagger, product: Product) -> onnx.ModelProto:
    """`crf_graph` without its decoding, to time it: ``emissions`` [tokens, batch, L+1]."""
    inputs = input_vars(model.representation)
    emissions, _ = _emissions(model, inputs, product)
    return build(inputs.named(), {"emissions": emissions})


def _with_boundary(transitions: Tensor, start: Tensor, end: Tensor) -> NDArray[np.float32]:
    """Transitions [L, L], start [L] and end [L] as one table [L+1, L+1], the boundary last."""
    table = np.zeros((len(start) + 1, len(start) + 1), np.float32)
    table[:-1, :-1], table[-1, :-1], table[:-1, -1] = map(weights, (transitions, start, end))
    return table


def _emissions(
    model: CRFTagger | SoftmaxTagger, inputs: InputVars, product: Product, *, normalised: bool = False
) -> tuple[Var, Var]:
    """Emissions with the boundary's [n, B, L+1], and which positions are tokens [n, B]."""
    states = context_states(model.representation, inputs, product)
    layer: nn.Linear = model.emissions
    weight, bias = weights(layer.weight), weights(layer.bias)
    # The boundary's scores are one more row of the layer.
    weight = np.vstack([weight, np.zeros_like(weight[:1])])
    emissions = states.scores(weight, np.append(bias, np.float32(NEVER)))  # [B, n, L+1]
    if normalised:
        emissions = op.log_softmax(emissions, axis=-1)
    padding = np.append(np.full(len(bias), NEVER, np.float32), np.float32(0))  # [L+1]
    emissions = op.where(op.unsqueeze(states.inside, axis(2)), emissions, constant(padding))
    return op.transpose(emissions, perm=[1, 0, 2]), op.transpose(states.inside, perm=[1, 0])


def _decode(emissions: Var, transitions: NDArray[np.float32]) -> tuple[Var, Var, Var]:
    """The best labels [n, B] and log P(y_i) and log P(y_{i−1}, y_i) of them, [n, B] each.

    One loop computes the best scores of Viterbi's recursion and the forward and the backward messages of the
    sum: a step's overhead is larger than its arithmetic.
    """
    size = len(transitions)
    shifted = op.sub(emissions, op.reduce_max(emissions, axis(2)))  # [n, B, L+1]
    weight = op.exp(op.cast(shifted, to=np.float64))  # [n, B, L+1]
    both_ways = op.concat(
        [op.unsqueeze(weight, axis(1)), op.unsqueeze(reversed_rows(weight), axis(1))], axis=1
    )  # [n, 2, B, L+1]
    # No entry is zero, so that no sum is.
    exponentials = np.maximum(np.exp(transitions.astype(np.float64)), LEAST_MOVE)
    tables = constant(np.stack([exponentials, exponentials.T]))  # [2, from, to]

    def step(i: Var, best: Var, mass: Var) -> tuple[list[Var], list[Var]]:
        into = _best_into(best, transitions)
        message = op.matmul(mass, tables)  # [2, B, L+1]
        mass = op.mul(message, op.gather(both_ways, i))  # [2, B, L+1]
        mass = op.div(mass, op.reduce_sum(mass, axis(2)))
        return [op.add(into, op.gather(emissions, i)), mass], [into, message]

    start = (np.arange(size) == size - 1).astype(np.float64)  # [L+1], all mass on the boundary
    states = [_for_each(emissions, _best_start(size)), _for_each(both_ways, start)]
    into, messages = loop(size_of(emissions, 0), states, step)  # [n, B, L+1], [n, 2, B, L+1]
    labels = _backtrace(op.add(into, emissions), transitions)
    ahead, behind = (op.squeeze(part, axis(1)) for part in op.split(messages, axis=1, num_outputs=2))
    return labels, *_log_probs(shifted, weight, transitions, labels, ahead, reversed_rows(behind))


def _viterbi(emissions: Var, transitions: NDArray[np.float32]) -> Var:
    """The best label sequence: emissions [n, B, L+1] -> [n, B] int64, the boundary on padding."""

    def step(i: Var, best: Var) -> tuple[list[Var], list[Var]]:
        into = _best_into(best, transitions)
        return [op.add(into, op.gather(emissions, i))], [into]

    start = _for_each(emissions, _best_start(len(transitions)))
    (into,) = loop(size_of(emissions, 0), [start], step)  # [n, B, L+1]
    return _backtrace(op.add(into, emissions), transitions)


def _best_start(size: int) -> NDArray[np.float32]:
    return np.where(np.arange(size) == size - 1, 0, NEVER).astype(np.float32)  # [L+1]


def _best_into(best: Var, transitions: NDArray[np.float32]) -> Var:
    """The best score of a sequence that goes on with each label, before that label's emission: [B, L+1].

    Of few labels the sums of all scores and transitions are one product with a matrix of zeros and ones,
    which is exact, and faster than an addition that repeats short rows.
    """
    size = len(transitions)
    if size > MANY_LABELS:
        return _best_into_many(best, transitions)
    repeat = np.repeat(np.eye(size, dtype=np.float32), size, axis=1)  # [from, from · to]
    reached = op.gemm(best, constant(repeat), constant(transitions.ravel()))  # [B, from · to]
    return op.reduce_max(op.reshape(reached, axis(-1, size, size)), axis(1), keepdims=0)


def _best_into_many(best: Var, transitions: NDArray[np.float32]) -> Var:
    """`_best_into` without what BIOES forbids: of its moves three in four, as a label inside an entity has
    two labels before it, and the others follow the labels that end something."""
    allowed = transitions > FORBIDDEN / 2  # [from, to]
    is_few = allowed.sum(0) <= 2  # [to]
    few, others = np.flatnonzero(is_few), np.flatnonzero(~is_few)  # [F], [to']
    sources = np.flatnonzero(allowed[:, others].any(1))  # [from']
    table = np.ascontiguousarray(transitions[np.ix_(sources, others)].T)  # [to', from']
    before = op.unsqueeze(op.gather(best, constant(sources), axis=1), axis(1))  # [B, 1, from']
    reached = [op.reduce_max(op.add(before, constant(table)), axis(2), keepdims=0)]  # [B, to']
    if len(few):
        two = np.argsort(-transitions[:, few], axis=0, kind="stable")[:2]  # [2, F], the allowed ones first
        first, second = (
            op.add(op.gather(best, constant(row), axis=1), constant(transitions[row, few])) for row in two
        )
        reached.append(op.max([first, second]))  # [B, F]
    order = np.argsort(np.concatenate([others, few]))
    return op.gather(op.concat(reached, axis=1), constant(order), axis=1)


def _backtrace(best: Var, transitions: NDArray[np.float32]) -> Var:
    """The labels that lead to the best last score: [n, B, L+1] -> [n, B]."""
    boundary = len(transitions) - 1
    into = constant(np.ascontiguousarray(transitions.T))
    tokens = size_of(best, 0)
    backwards = reversed_rows(best)  # [n, B, L+1]
    # At each step the scores of the position before; at the last one the first, and nothing uses that.
    first = op.slice(backwards, axis(0), axis(1), axis(0))
    before = op.concat([op.slice(backwards, axis(1), axis(END), axis(0)), first], axis=0)

    def step(i: Var, label: Var) -> tuple[list[Var], list[Var]]:
        return [leading_to(op.gather(before, i), op.gather(into, label))], [label]

    def leading_to(reached: Var, scores: Var) -> Var:
        return op.arg_max(op.add(reached, scores), axis=1, keepdims=0)  # [B, from] -> [B]

    # The boundary follows the last position.
    label = leading_to(op.squeeze(first, axis(0)), op.gather(into, op.const(np.int64(boundary))))  # [B]
    (labels,) = loop(tokens, [label], step, reads=[before])  # [n, B]
    return reversed_rows(labels)


def _log_probs(
    shifted: Var, weight: Var, transitions: NDArray[np.float32], labels: Var, ahead: Var, behind: Var
) -> tuple[Var, Var]:
    """log P(y_i) and log P(y_{i−1}, y_i) of given labels, from the messages into each position.

    Args:
        shifted: emissions less the best one of each position, and ``weight`` their exponentials: [n, B, L+1].
        ahead: forward messages, ``behind`` backward ones, both before the position's own emission and each
            up to a factor of its position: [n, B, L+1].
    """
    size = len(transitions)
    tiny = op.const(np.float64(TINY))
    mass = op.max([op.mul(ahead, weight), tiny])  # [n, B, L+1] forward, not yet scaled to 1
    joint = op.mul(mass, behind)  # [n, B, L+1] ∝ P(y_i)
    least = op.const(np.float64(LEAST))
    sums = op.max([op.reduce_sum(joint, axis(2), keepdims=0), least])  # [n, B]
    total = _log(sums)
    tokens = _log(op.div(_chosen(joint, labels), sums))
    scale = op.reduce_sum(mass, axis(2), keepdims=0)  # [n, B]
    before = _previous(_log(op.div(_chosen(mass, labels), scale)), 0.0)  # log of the forward mass of y_{i−1}
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
    return op.log(op.max([x, op.const(np.float64(LEAST))]))


def _chosen(table: Var, labels: Var) -> Var:
    """The entry of the label at each position: [n, B, L+1], [n, B] -> [n, B]."""
    return op.squeeze(op.gather_elements(table, op.unsqueeze(labels, axis(2)), axis=2), axis(2))


def _previous(x: Var, first: float) -> Var:
    """At each position the value of the one before: [n, B] -> [n, B]."""
    fill = op.cast_like(op.const(np.float64(first)), x)
    before = op.pad(x, axis(1, 0, 0, 0), fill)  # [n+1, B]
    return op.slice(before, axis(0), axis(-1), axis(0))


def _outputs(inputs: InputVars, inside: Var, labels: Var, tokens: Var, pairs: Var) -> onnx.ModelProto:
    """The graph, with batch first and zeros on padding; the first pair has no token before it."""
    zero = op.const(np.float32(0))
    first = op.equal(positions(size_of(inputs.words, 1)), op.const(np.int64(0)))  # [n]
    within = op.and_(inside, op.unsqueeze(op.not_(first), axis(1)))  # [n, B]
    outputs = {
        "labels": op.where(inside, labels, op.const(np.int64(0))),
        "token_log_probs": op.where(inside, tokens, zero),
        "pair_log_probs": op.where(within, pairs, zero),
    }
    return build(inputs.named(), {name: op.transpose(value, perm=[1, 0]) for name, value in outputs.items()})
